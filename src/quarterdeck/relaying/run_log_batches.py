# SPDX-License-Identifier: Apache-2.0
"""The way up for run logs of genuine agents to a server of our own, where many wait: with one request, signed once.

Each file goes up as it came, byte for byte; its directory forgets it when the server above has it. A few, and whatever
goes to peers, are put one by one: `file_forwarding.py`. That takes three times as long, mostly for the signatures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quarterdeck.core.errors import Invalid, QuarterdeckError, Unavailable
from quarterdeck.formats import relay_documents, report_files
from quarterdeck.formats.relay_documents import Slip
from quarterdeck.relaying import forwarding
from quarterdeck.relaying.drop_directory import Consume, Dropped, Later
from quarterdeck.relaying.file_forwarding import Check, Send
from quarterdeck.relaying.links import Times
from quarterdeck.relaying.spool import Rejection

log = logging.getLogger(__name__)

BATCH_FILES = 200
#: Fewer are put one by one.
LEAST_FILES = 20
_TAKEN, _UNAVAILABLE = 202, 503


@dataclass(kw_only=True)
class RunLogBatches:
    """Consumes what a drop directory hands over, a few with `alone`.

    `times` is the clock of the server above: files tell their age by ours. `arrived` is called for each file that got
    there with others, with its name.
    """

    ask: Send
    check: Check
    alone: Consume
    times: Times
    arrived: Callable[[str], None] = lambda _: None

    def __call__(self, files: Sequence[Dropped]) -> Sequence[Rejection | Later]:
        """Take some files up; which did not get there, and why. Raises Unavailable."""
        if len(files) < LEAST_FILES:
            return self.alone(files)
        verdicts: list[Rejection | Later] = []
        fit: list[int] = []
        for position, file in enumerate(files):
            verdict = self._checked(file)
            if verdict is None:
                fit.append(position)
            else:
                verdicts.append(verdict._replace(position=position))
        if fit:
            found = self._carry([files[position] for position in fit])
            verdicts += [one._replace(position=fit[one.position]) for one in found]
        return verdicts

    def _carry(self, files: Sequence[Dropped]) -> Sequence[Rejection | Later]:
        body = relay_documents.pack_batch([_record(one, self.times.ahead) for one in files])
        told = self.ask("POST", relay_documents.PATH_PARCELS, body, {"Content-Type": "application/octet-stream"})
        if told.status == _UNAVAILABLE:
            raise Unavailable(told.message)
        if told.status != _TAKEN:
            log.warning("The server above answers %d to many files at once, so each goes alone.", told.status)
            return self.alone(files)
        refused = forwarding.refusals(told, len(files))
        self._note(files, {one.position for one in refused})
        return refused

    def _checked(self, file: Dropped) -> Rejection | Later | None:
        try:
            return self.check(file)
        except Unavailable as error:
            return Later(0, error.message)
        except QuarterdeckError as error:
            return Rejection(0, error.message)

    def _note(self, files: Sequence[Dropped], refused: set[int]) -> None:
        for position, file in enumerate(files):
            if position not in refused:
                identity, waited = report_files.queue_id(file.name), time.time() - file.at
                log.debug("[%s] %s went up after %.1f s", identity, file.name, waited)
                self.arrived(file.name)


def _record(file: Dropped, ahead: int) -> bytes:
    slip = Slip("run-log", report_files.node_of(file.name), file.at + ahead, file.name)
    try:
        return relay_documents.pack_slip(slip, file.content)
    except UnicodeEncodeError as error:
        raise Invalid("The name of the file is not text.") from error
