# SPDX-License-Identifier: Apache-2.0
"""The way up for reports and inventories: from this relay's spool to the server above, in batches, however long.

A parcel leaves the spool when the server above has acknowledged it; after a kill in between it goes up twice, which
the root takes for one. What it refuses for good is set aside with the reason, and does not block the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import Taken
from quarterdeck.relaying import pauses
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.links import Link, Told
from quarterdeck.relaying.spool import Drain, Rejection

log = logging.getLogger(__name__)

BATCH_PARCELS = 500
_POLL_SECONDS = 0.05
#: Answers to a batch that no other moment would make better: the batch itself is at fault.
_FINAL = (400, 413)


class Forwarder:
    """Carries what is in one spool to the server above."""

    def __init__(self, spool: Path, link: Link, failed: FailedFiles, counters: Counters | None = None) -> None:
        self._link = link
        self._failed = failed
        self._counters = counters or Counters()
        self._drain = Drain(spool, self._take, max_records=BATCH_PARCELS, set_aside=self._set_aside)

    def run(self, stop: threading.Event) -> None:
        """Carry until told to stop."""
        failures = 0
        while not stop.is_set():
            try:
                carried = self._drain.once()
            except Unavailable as error:
                if not failures:
                    log.warning("Reports wait here for the server above: %s", error.message)
                self._counters.failed_for_now()
                stop.wait(pauses.after(failures))
                failures += 1
            except Exception:
                # Whatever it is, this thread must not end silently while the rest looks healthy.
                log.exception("Reports could not be carried")
                self._counters.failed_for_now()
                stop.wait(pauses.after(failures))
                failures += 1
            else:
                if failures:
                    log.info("The server above takes reports again.")
                failures = 0
                if not carried:
                    stop.wait(_POLL_SECONDS)

    def once(self) -> int:
        """Carry one batch; how many parcels. Raises Unavailable."""
        return self._drain.once()

    def _take(self, batch: Sequence[bytes]) -> list[Rejection]:
        told = self._link.ask("POST", relay_documents.PATH_PARCELS, relay_documents.pack_batch(batch), _BINARY)
        if told.status in _FINAL:
            raise Invalid(told.message)
        if told.status != 202:
            raise Unavailable(told.message)
        refused = refusals(told, len(batch))
        if len(refused) < len(batch):
            self._counters.report("forward_ok", len(batch) - len(refused))
            self._counters.succeeded(time.time())
        return refused

    def _set_aside(self, record: bytes, rejection: Rejection) -> None:
        log.error("A parcel is set aside: %s", rejection.reason)
        self._counters.report("forward_error")
        self._counters.set_aside()
        name = f"{time.time_ns():020d}-{agent.digest(record)[:16]}.parcel"
        self._failed.put(name, record, rejection.reason, rejection.kind)


_BINARY = {"Content-Type": "application/octet-stream"}


def refusals(told: Told, count: int) -> list[Rejection]:
    """What a server that took a batch of `count` refuses of it for good. Raises Unavailable for a strange answer."""
    return [Rejection(one.position, one.reason, one.kind) for one in _taken(told).refused if one.position < count]


def _taken(told: Told) -> Taken:
    try:
        return relay_documents.decode(told.body, Taken)
    except Invalid as error:  # somebody else answered in its place
        raise Unavailable(error.message) from error
