# SPDX-License-Identifier: Apache-2.0
"""A spool on disk: records are acknowledged when they are durable, and drained later, by whichever process drains.

Threads that append at the same time share one fsync, at the end of one open file. The drain takes a file away from its
writer (a lock on the file keeps the two apart), and removes it when what was in it is committed; after a kill in
between it is drained again, so whoever takes records must not mind seeing one twice. What can never be taken is set
aside with the reason. No SQL here, and nothing about what a record means.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from quarterdeck.core.errors import Unavailable
from quarterdeck.relaying import kept_files, turns
from quarterdeck.relaying.group_syncs import GroupSync
from quarterdeck.relaying.kept_files import sync_directory

log = logging.getLogger(__name__)

#: length, CRC-32
_FRAME = struct.Struct(">II")
_OPEN = ".open"
_SEALED = ".batch"
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
MAX_QUARANTINED = 10_000
MAX_QUARANTINED_BYTES = 256 * 1024 * 1024
#: A file this long is left to the drain, which reads whole files; while the database is away, others follow it.
MAX_SEGMENT_BYTES = 16 * 1024 * 1024


class Spool:
    """The writing side. One per process and directory."""

    def __init__(self, directory: Path, *, reserve_bytes: int = 256 * 1024 * 1024) -> None:
        """`reserve_bytes` of the disk are left free for others: the database may live on it too."""
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._reserve = reserve_bytes
        self._numbers = itertools.count()
        self._writing = GroupSync(self._write_all)
        self._segment: _Segment | None = None

    def append(self, record: bytes) -> None:
        """Keep a record; durable when this returns. Raises Unavailable when the disk does not take it."""
        self.append_all([record])

    def append_all(self, records: Sequence[bytes]) -> None:
        """Keep some records, all in one file; durable when this returns. Raises Unavailable."""
        try:
            self._writing.take(records)
        except OSError as error:
            raise Unavailable("The report could not be kept on disk.", detail=str(error)) from error

    def _write_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        records = [record for batch in batches for record in batch]
        self._check_room(sum(map(len, records)))
        self._write(records)

    def _check_room(self, size: int) -> None:
        found = os.statvfs(self.directory)
        if found.f_bavail * found.f_frsize < self._reserve + size:
            message = f"less than {self._reserve} bytes are free below {self.directory}"
            raise OSError(message)

    def _write(self, records: Sequence[bytes]) -> None:
        data = b"".join(_FRAME.pack(len(record), zlib.crc32(record)) + record for record in records)
        segment = self._segment
        if segment is None or not segment.take_hold():
            segment = self._segment = self._new_segment()
        try:
            if segment.append(data) >= MAX_SEGMENT_BYTES:
                self._segment = None
        except OSError:
            self._segment = None
            raise
        finally:
            segment.let_go()

    def _new_segment(self) -> _Segment:
        """An open file of our own, held."""
        while True:
            name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}{_OPEN}"
            segment = _Segment(self.directory / name)
            if segment.take_hold():
                sync_directory(self.directory)
                return segment


class _Segment:
    """The file that a writer appends to, as long as the drain has not taken it away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def take_hold(self) -> bool:
        """Keep the drain away; False when it has the file already."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self._path.exists()  # no name comes twice, so it is this file

    def let_go(self) -> None:
        """Let the drain have the file if it wants."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def append(self, data: bytes) -> int:
        """Add bytes, durably; how long the file is now. Raises OSError; then nothing of them counts."""
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
            return size + len(data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise


def pending(directory: Path) -> list[Path]:
    """The files that wait to be drained or are written now, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith((_OPEN, _SEALED)))
        return [directory / name for name in names]
    return []


def _seal(path: Path) -> Path | None:
    """Take a file away from its writer; None when that one writes just now, or the file is gone."""
    if path.suffix == _SEALED:
        return path
    sealed = path.with_suffix(_SEALED)
    try:
        with path.open("rb") as file:
            if not turns.lock_unless_taken(file.fileno()):
                return None
            path.rename(sealed)
    except FileNotFoundError:
        return None
    return sealed


def records(path: Path) -> Iterator[bytes]:
    """The records of one file, up to the first damaged place: there a writer was killed before it had acknowledged."""
    content = path.read_bytes()
    position = 0
    while position < len(content):
        if position + _FRAME.size > len(content):
            break
        length, checksum = _FRAME.unpack_from(content, position)
        start, position = position + _FRAME.size, position + _FRAME.size + length
        record = content[start:position]
        if len(record) != length or zlib.crc32(record) != checksum:
            break
        yield record
    else:
        return
    log.warning("The spool file %s ends in the middle of a record; that one was never acknowledged.", path)


class Rejection(NamedTuple):
    """A record, by its position in a batch, that can never be taken. `invalid`: it is of nobody who is known here."""

    position: int
    reason: str
    kind: Literal["error", "invalid"] = "error"


#: Gets a batch of records; returns when all are committed, but for those it can never take.
Take = Callable[[Sequence[bytes]], Sequence[Rejection]]
#: Keeps a record that was rejected; durable when it returns.
SetAside = Callable[[bytes, Rejection], None]


class Drain:
    """The taking side: one at a time over all processes, guarded by a lock on the directory.

    `take` raises Unavailable when it could not be done now, and anything else when something in the batch is at
    fault that it did not see coming: the batch is then halved until that record stands alone, and is set aside.
    """

    def __init__(
        self, directory: Path, take: Take, *, max_records: int = 500, set_aside: SetAside | None = None
    ) -> None:
        """Without `set_aside` what is rejected goes to `quarantine` in the directory."""
        self._directory = directory
        self._take = take
        self._set_aside = set_aside or self._quarantine
        self._max_records = max_records
        #: found and not done yet, oldest first
        self._listed: deque[Path] = deque()
        self.taken = 0

    def run(self, stop: threading.Event) -> None:
        """Drain until told to stop; waits while another process does it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with turns.turn(self._directory / "drain.lock", stop):
            failures = 0
            while not stop.is_set():
                try:
                    drained = self.once()
                    failures = 0
                except Unavailable as error:
                    log.warning("Reports wait in the spool: %s", error.message)
                    stop.wait(_PATIENCE_SECONDS[min(failures, len(_PATIENCE_SECONDS) - 1)])
                    failures += 1
                    continue
                except Exception:
                    # Nothing may end this silently: what is acknowledged would wait here for ever.
                    log.exception("Reports wait in the spool")
                    stop.wait(_PATIENCE_SECONDS[min(failures, len(_PATIENCE_SECONDS) - 1)])
                    failures += 1
                    continue
                if not drained:
                    stop.wait(_POLL_SECONDS)

    def once(self) -> int:
        """Take what waits now, at most one batch; how many records. Raises Unavailable."""
        try:
            paths, batch = self._batch()
            self._take_all(batch)
        except BaseException:
            self._listed.clear()
            raise
        for path in paths:
            path.unlink(missing_ok=True)
        self.taken += len(batch)
        return len(batch)

    def _batch(self) -> tuple[list[Path], list[bytes]]:
        """Some files and what is in them. The directory is looked at again when all that was found in it is done:
        where very many files wait, looking takes longer than all else.
        """
        paths: list[Path] = []
        batch: list[bytes] = []
        size = 0
        fresh = not self._listed
        if fresh:
            self._listed.extend(pending(self._directory))
        while self._listed and len(batch) < self._max_records and size < MAX_SEGMENT_BYTES:
            sealed = _seal(self._listed.popleft())
            if sealed is not None:
                paths.append(sealed)
                found = list(records(sealed))
                batch += found
                size += sum(map(len, found))
        return (paths, batch) if paths or fresh else self._batch()

    def _take_all(self, batch: Sequence[bytes]) -> None:
        if not batch:
            return
        try:
            for rejection in self._take(batch):
                self._set_aside(batch[rejection.position], rejection)
        except Unavailable:
            raise
        except Exception as error:
            if len(batch) == 1:
                log.exception("A record cannot be taken")
                self._set_aside(batch[0], Rejection(0, str(error) or type(error).__name__))
                return
            middle = len(batch) // 2
            self._take_all(batch[:middle])
            self._take_all(batch[middle:])

    def _quarantine(self, record: bytes, rejection: Rejection) -> None:
        quarantine(self._directory / "quarantine", record, rejection.reason)


def quarantine(directory: Path, record: bytes, reason: str) -> None:
    """Keep a record that nobody can take, and why, for an administrator; the oldest go when there are too many.

    Durable when this returns. Only one at a time.
    """
    log.error("A record was set aside in %s: %s", directory, reason)
    kept_files.sweep(directory)
    name = f"{time.time_ns():020d}-{zlib.crc32(record):08x}"
    content, why = directory / f"{name}.record", directory / f"{name}.json"
    try:
        kept_files.replace(content, record)
        kept_files.replace(why, json.dumps({"reason": reason}).encode())
    except OSError:  # it is tried again, under another name
        content.unlink(missing_ok=True)
        raise
    room = MAX_QUARANTINED_BYTES
    for number, kept in enumerate(sorted(directory.glob("*.record"), reverse=True)):
        room -= kept.stat().st_size
        if number and (number >= MAX_QUARANTINED or room < 0):
            kept.unlink(missing_ok=True)
            kept.with_suffix(".json").unlink(missing_ok=True)
