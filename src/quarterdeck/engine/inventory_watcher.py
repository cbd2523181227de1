# SPDX-License-Identifier: Apache-2.0
"""Watches a directory into which genuine agents' inventories are dropped, each with its signature file.

    incoming/  new ones       accepted-nodes-updates/  the same, of known nodes
    received/  what was read  failed/                  what was refused, each with a `.reject-<time>.log` that says why

An inventory is one unit of work. It is moved after the commit: one that is read twice changes nothing the second
time. What changed in the last moment may still be written and waits. Errors never end the watcher.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from quarterdeck.core.errors import QuarterdeckError, TooLarge, Unavailable
from quarterdeck.formats import report_files
from quarterdeck.relaying.counters import Counters
from quarterdeck.services import inventory_files
from quarterdeck.services.context import Context

log = logging.getLogger(__name__)

UnitOfWork = Callable[[], AbstractContextManager[Context]]

INCOMING = ("incoming", "accepted-nodes-updates")
RECEIVED = "received"
FAILED = "failed"
#: Files, logs included, that are kept of what was refused.
MAX_FAILED = 3_000
#: Of a name that gets an ending; no name is longer than 255 bytes.
_NAME_KEPT = 50
_ENDINGS = (".xml", ".ocs", ".xml.gz", ".ocs.gz")
_SIGNATURE_ENDINGS = (".sign", ".sign.gz")
#: `_2026-11-21_21-30-00` or the like before the ending: received files overwrite those of the same node
_DATE = re.compile(r"[_-]\d{4}-\d{2}-\d{2}[T_-]?[\d:_-]*(?=\.)")


class _Dropped(NamedTuple):
    inventory: Path
    #: None: not there
    signature: Path | None


class InventoryWatcher:
    """A thread that looks every `pause_seconds`; `orphan_seconds` is how long an inventory waits for its signature."""

    def __init__(
        self,
        directory: Path,
        unit_of_work: UnitOfWork,
        *,
        pause_seconds: float = 2.0,
        settled_seconds: float = 0.5,
        orphan_seconds: float = 180.0,
        counters: Counters | None = None,
    ) -> None:
        self.directory = directory
        self._unit_of_work = unit_of_work
        self._pause_seconds = pause_seconds
        self._settled_seconds = settled_seconds
        self._orphan_seconds = orphan_seconds
        self._counters = counters or Counters()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it looks."""
        return self._thread is not None

    def start(self) -> None:
        """Begin to look; nothing happens when it does so already. Raises Unavailable."""
        with self._lock:
            if self._thread is not None:
                return
            try:
                for name in (*INCOMING, RECEIVED, FAILED):
                    (self.directory / name).mkdir(mode=0o750, parents=True, exist_ok=True)
            except OSError as error:
                raise Unavailable(f"The directory {self.directory} cannot be used: {error.strerror}.") from error
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._watch, args=(self._stop,), name="inventory watcher", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Look no more; what is being read is finished first."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None:
            thread.join()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.look(stop)
            except Exception:
                log.exception("the inventory directory %s could not be read", self.directory)
            stop.wait(self._pause_seconds)

    def look(self, stop: threading.Event | None = None) -> int:
        """Read everything that is complete now; returns how many inventories were taken."""
        taken = 0
        for dropped in self._dropped():
            if stop is not None and stop.is_set():
                break
            taken += self._take(dropped)
        for signature in self._lost_signatures():
            self._refuse(_Dropped(signature, None), "No inventory came with this signature.")
        return taken

    def _dropped(self) -> Iterator[_Dropped]:
        for name in INCOMING:
            for path in sorted((self.directory / name).iterdir()):
                if path.is_file() and not path.is_symlink() and path.name.endswith(_ENDINGS):
                    yield _Dropped(path, _signature_of(path))

    def _lost_signatures(self) -> Iterator[Path]:
        for name in INCOMING:
            for path in sorted((self.directory / name).iterdir()):
                lost = path.name.endswith(_SIGNATURE_ENDINGS) and not _has_inventory(path)
                if lost and _age(path) > self._orphan_seconds:
                    yield path

    def _take(self, dropped: _Dropped) -> bool:
        if dropped.signature is None:
            if _age(dropped.inventory) > self._orphan_seconds:
                self._refuse(dropped, "No signature came with it.")
            return False
        if min(_age(dropped.inventory), _age(dropped.signature)) < self._settled_seconds:
            return False
        try:
            content, sign_file = _read(dropped.inventory), _read(dropped.signature)
            with self._unit_of_work() as ctx:
                received = inventory_files.receive(ctx, content, sign_file)
        except Unavailable:
            raise  # the database is away: the file waits
        except QuarterdeckError as error:
            self._refuse(dropped, error.message)
            return False
        except Exception:
            log.exception("the inventory %s could not be read", dropped.inventory)
            self._refuse(dropped, "Internal error; the server's log tells more.")
            return False
        identity = report_files.queue_id(dropped.inventory.name)
        log.info("[%s] read the inventory of node %s from %s", identity, received.node, dropped.inventory.name)
        self._counters.inventory("ok")
        self._move(dropped, RECEIVED, dated=False)
        return True

    def _refuse(self, dropped: _Dropped, reason: str) -> None:
        identity = report_files.queue_id(dropped.inventory.name)
        log.warning("[%s] refused the inventory %s: %s", identity, dropped.inventory, reason)
        self._counters.inventory("error")
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        told = self.directory / FAILED / f"{dropped.inventory.name[:_NAME_KEPT]}.reject-{stamp}.log"
        told.write_text(f"{reason}\n", encoding="utf-8")
        self._move(dropped, FAILED, dated=True)
        _keep_newest(self.directory / FAILED, MAX_FAILED)

    def _move(self, dropped: _Dropped, place: str, *, dated: bool) -> None:
        for path in dropped:
            if path is not None:
                name = path.name if dated else _DATE.sub("", path.name)
                path.replace(self.directory / place / name)


def _keep_newest(directory: Path, number: int) -> None:
    """Forget the oldest files beyond a number."""
    found = sorted(directory.iterdir(), key=lambda path: path.lstat().st_ctime_ns)
    for path in found[: max(0, len(found) - number)]:
        path.unlink()


def _signature_of(inventory: Path) -> Path | None:
    """`<inventory>.sign`; a compressed inventory may be signed under its plain name."""
    names = (inventory.name, inventory.name.removesuffix(".gz"))
    candidates = (inventory.with_name(name + ending) for name in names for ending in _SIGNATURE_ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def _has_inventory(signature: Path) -> bool:
    name = signature.name.removesuffix(".gz").removesuffix(".sign")
    return signature.with_name(name).exists() or signature.with_name(f"{name}.gz").exists()


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _read(path: Path) -> bytes:
    if path.stat().st_size > inventory_files.MAX_BYTES:
        raise TooLarge(f"{path.name} is longer than {inventory_files.MAX_BYTES} bytes.")
    return path.read_bytes()
