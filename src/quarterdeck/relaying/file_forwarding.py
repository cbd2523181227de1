# SPDX-License-Identifier: Apache-2.0
"""The way up for files of genuine agents: what a drop directory hands over is put to the server above, by its name.

Each goes up as it came, byte for byte; its directory forgets it when the server above has it. Several go at the same
time, an inventory and its signature one after the other. A refusal that no other moment would change is told as one;
whatever else happens, the file waits. After a kill in between it goes up twice, which the root takes for one.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.formats import report_files
from quarterdeck.relaying.drop_directory import Dropped, Later
from quarterdeck.relaying.links import Told
from quarterdeck.relaying.spool import Rejection

log = logging.getLogger(__name__)

#: Files on their way at the same time, and handed over at a time.
WORKERS = 4
BATCH_FILES = 8
#: Answers that tell of the file itself: it would be the same another time. Others tell of the server above, of who
#: may come there, or of how that is set up.
_FINAL = frozenset({400, 411, 413, 414, 415, 422})
#: Of the others, those that others would get as well.
_OF_THE_WAY = frozenset({401, 403, 404, 405, 407, 429, 502, 503, 504, 507})
_SAFE = ":@+"
_LONGEST_TEXT = 200


class Send(Protocol):
    """One request to the server above. Raises Unavailable."""

    def __call__(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Told: ...


#: Tells a file that need not go up, and why; None for others. Raises Unavailable when that cannot be told now.
Check = Callable[[Dropped], Rejection | None]


@dataclass(kw_only=True)
class FileForwarder:
    """Files of one kind, put below one path. `arrived` is called for each, with its name."""

    path: str
    user: str
    password: str
    send: Send
    check: Check = lambda _: None
    arrived: Callable[[str], None] = lambda _: None
    workers: int = WORKERS
    _checking: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, files: Sequence[Dropped]) -> Sequence[Rejection | Later]:
        """Put some files; which did not get there, and why. Raises Unavailable."""
        if not self.password:
            raise Unavailable(f"The server above takes files at {self.path} with a password only, and none is set.")
        units = _units(files)
        line, verdicts, lock = iter(units), list[Rejection | Later](), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    unit = next(line, None)
                if unit is None:
                    return
                found = self._carry(files, unit)
                if found is not None:
                    with lock:
                        verdicts.extend(found._replace(position=position) for position in unit)

        _at_once(work, min(self.workers, len(units)))
        return verdicts

    def _carry(self, files: Sequence[Dropped], unit: Sequence[int]) -> Rejection | Later | None:
        """Put files that belong together; what keeps the first of them from it keeps all of them here."""
        try:
            for position in unit:
                with self._checking:  # one at a time is unpacked
                    unfit = self.check(files[position])
                verdict = unfit or self._put(files[position])
                if verdict is not None:
                    return verdict
        except QuarterdeckError as error:
            return Later(0, error.message)
        for position in unit:
            self.arrived(files[position].name)
        return None

    def _put(self, file: Dropped) -> Rejection | Later | None:
        identity = report_files.queue_id(file.name)
        target = f"{self.path}/{quote(file.name.encode(errors='surrogateescape'), safe=_SAFE)}"
        try:
            told = self.send("PUT", target, file.content, self._headers())
        except Unavailable as error:
            return Later(0, error.message, way=True)
        if 200 <= told.status < 300:
            waited = time.time() - file.at
            log.debug("[%s] %s went up to %s after %.1f s", identity, file.name, self.path, waited)
            return None
        reason = f"The server above answers {told.status}: {_said(told)}"
        if told.status in _FINAL:
            return Rejection(0, reason)
        return Later(0, reason, way=told.status in _OF_THE_WAY)

    def _headers(self) -> dict[str, str]:
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {login}", "Content-Type": "application/octet-stream"}


def _units(files: Sequence[Dropped]) -> list[list[int]]:
    """The positions of files that belong together; a signature comes before what it signs, which is then complete."""
    units: dict[str, list[int]] = {}
    for position, file in enumerate(files):
        units.setdefault(report_files.inventory_of(file.name), []).append(position)
    return [sorted(unit, key=lambda one: not report_files.is_signature(files[one].name)) for unit in units.values()]


def _at_once(work: Callable[[], None], number: int) -> None:
    """Do something on several threads; raises what one of them raised."""
    faults: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as fault:  # noqa: BLE001  # it is raised again below
            faults.append(fault)

    # None of them may keep the process when it is told to end: what is on its way then goes up again.
    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(number - 1)]
    for thread in threads:
        thread.start()
    guarded()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _said(told: Told) -> str:
    """What stands in a refusal, whether it is ours or a peer's, or a page of somebody between."""
    text = told.message if told.message != f"status {told.status}" else told.body.decode("utf-8", errors="replace")
    return " ".join(text.split())[:_LONGEST_TEXT]


def check_report(is_known: Callable[[str], bool]) -> Check:
    """Reports of nodes that are known, in a container that the root would open; what is inside is for the root.

    `is_known` raises Unavailable when that cannot be told now.
    """

    def check(file: Dropped) -> Rejection | None:
        node = report_files.node_of(file.name)
        if not is_known(node):
            return Rejection(0, f"There is no node '{node}' below this relay.", "invalid")
        return _fault(lambda: report_files.unpacked(file.name, file.content))

    return check


def check_inventory(file: Dropped) -> Rejection | None:
    """Inventories of anybody, when the root would open them."""
    return _fault(lambda: report_files.check_inventory(file.content))


def _fault(look: Callable[[], object]) -> Rejection | None:
    try:
        look()
    except QuarterdeckError as error:
        return Rejection(0, error.message)
    return None
