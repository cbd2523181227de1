# SPDX-License-Identifier: Apache-2.0
"""A directory into which others put files, by renaming or writing in place; each goes on, once it is whole.

Where to is the consumer's business: the server keeps them, a relay passes them on. A file goes when that is done, so
after a kill it may be handed over twice. What can never be taken is set aside with the reason; what has another
ending, or is hidden, is none of ours and lies until it is old. Files that belong together are handed over together.
Nothing that lies there keeps others waiting: while what failed waits for its next try, what is new has its first one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.formats import report_files
from quarterdeck.relaying import pauses, turns
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Rejection

log = logging.getLogger(__name__)

#: How the directories are called into which files are dropped, and to which they are set aside.
INCOMING = "incoming"
FAILED = "failed"
#: How files begin that are being put here over HTTP; after so long without a change, whoever did was killed.
UPLOADING = ".upload-"
_KILLED_SECONDS = 600.0
RETENTION_SECONDS = 7 * 86_400.0
_PAUSE_SECONDS = 0.2
_EXPIRY_SECONDS = 60.0
#: Where nobody can tell whether a file is still being written, it counts as whole when it did not change for so long.
_SETTLED_SECONDS = 1.0
#: Two changes of a directory within this time may leave the same mark on it.
_TICK_SECONDS = 2.0
#: A file whose counterpart is not there goes alone after so long.
_TOGETHER_SECONDS = 60.0
_MAX_FILES = 200
#: Handed over at a time after nothing was taken, until something is.
_TRIAL_FILES = 8
_TRIAL_SECONDS = 0.5
_MAX_BYTES = 16 * 1024 * 1024


class Dropped(NamedTuple):
    """A file that is whole. `at` is when it came, as Unix time."""

    name: str
    content: bytes
    at: float
    inode: int = 0


def _alone(name: str) -> str:
    return name


def _always(_names: Sequence[str]) -> bool:
    return True


class Rules(NamedTuple):
    """`is_ours` tells files of the right kind by their ending, `check_name` raises Invalid for names that are unfit.

    Files of the same `unit` belong together; `is_complete` tells whether all of a unit are there.
    """

    is_ours: Callable[[str], bool]
    check_name: Callable[[str], object]
    max_bytes: int
    unit: Callable[[str], str] = _alone
    is_complete: Callable[[Sequence[str]], bool] = _always


REPORTS = Rules(report_files.is_report, report_files.node_of, report_files.MAX_FILE_BYTES)
INVENTORIES = Rules(
    report_files.is_inventory,
    report_files.check_name,
    report_files.MAX_INVENTORY_BYTES,
    report_files.inventory_of,
    report_files.has_signature,
)


class Later(NamedTuple):
    """A file, by its position in a batch, that could not be taken now, while others perhaps could.

    `way`: that seems to be for the way it takes, so that others would not be luckier.
    """

    position: int
    reason: str
    way: bool = False


#: Gets some files; returns when all are safe elsewhere, but for those that can never be, or not now.
#: Raises Unavailable when nothing can be done now.
Consume = Callable[[Sequence[Dropped]], Sequence[Rejection | Later]]
#: Called for a file that the consumer did not take for good, by its name.
Rejected = Callable[[str, Rejection], None]


class FilesWait(Unavailable):
    """None of some files could be taken, which says nothing of files that were never tried."""


class _Deferral(NamedTuple):
    failures: int
    #: monotonic
    until: float


class DropDirectory:
    """One at a time over all processes, guarded by a lock beside the directory."""

    def __init__(
        self,
        directory: Path,
        failed: FailedFiles,
        consume: Consume,
        *,
        rules: Rules = REPORTS,
        retention_seconds: float = RETENTION_SECONDS,
        counters: Counters | None = None,
        rejected: Rejected | None = None,
        max_files: int | None = None,
    ) -> None:
        """`max_files` are handed over at a time. Without `rejected` those of them are counted as reports."""
        self.directory = directory
        self._failed = failed
        self._consume = consume
        self._rules = rules
        self._retention = retention_seconds
        self._counters = counters or Counters()
        self._rejected = rejected or (lambda _, rejection: self._counters.report(rejection.kind))
        self._max_files = max_files or _MAX_FILES
        #: (name, inode) -> when it is tried again
        self._deferred: dict[tuple[str, int], _Deferral] = {}
        #: until when none of those is tried again, monotonic, and how often that was so since something was taken
        self._held_until, self._holds = 0.0, 0
        #: files that are done, and that something keeps from being removed: (name, inode)
        self._stuck: set[tuple[str, int]] = set()
        self._seen = -1
        self._look_again = True
        #: monotonic: something waits until then
        self._next_look = float("inf")

    def run(self, stop: threading.Event) -> None:
        """Take files until told to stop; waits while another process does it."""
        failures = 0
        while not stop.is_set():
            try:
                self.directory.mkdir(mode=0o770, parents=True, exist_ok=True)
                with turns.turn(self.directory.with_name(f"{self.directory.name}.lock"), stop):
                    self._run(stop)
            except OSError as error:
                log.warning("Nobody can take files from %s: %s", self.directory, error)
                stop.wait(pauses.after(failures))
                failures += 1

    def _run(self, stop: threading.Event) -> None:
        failures, next_expiry = 0, 0.0
        while not stop.is_set():
            try:
                if time.monotonic() >= next_expiry:
                    self.expire()
                    next_expiry = time.monotonic() + _EXPIRY_SECONDS
                if self._changed() and self.look(stop):
                    failures = 0
            except FilesWait as error:
                log.warning("Files wait in %s: %s", self.directory, error)
                self._counters.failed_for_now()
                self._look_again = True  # for those that were never tried
                stop.wait(_TRIAL_SECONDS)
            except Exception as error:
                # Nothing may end this silently; what is expected is told in a line.
                known = isinstance(error, Unavailable | OSError)
                log.warning("Files wait in %s: %s", self.directory, error, exc_info=None if known else error)
                self._counters.failed_for_now()
                self._look_again = True
                stop.wait(pauses.after(failures))
                failures += 1
                with contextlib.suppress(OSError):  # it may be what is missing
                    self.directory.mkdir(mode=0o770, parents=True, exist_ok=True)
            stop.wait(_PAUSE_SECONDS)

    def look(self, stop: threading.Event | None = None) -> int:
        """Take every file that is whole now; how many. Raises Unavailable: what was not taken stays."""
        self._remember()
        self._next_look = float("inf")
        taken = 0
        for batch in self._batches():
            try:
                taken += self._take(batch)
                if taken:
                    self._held_until, self._holds = 0.0, 0
            except Unavailable as error:
                if not taken:
                    if isinstance(error, FilesWait):
                        self._held_until = time.monotonic() + pauses.after(self._holds)
                        self._holds += 1
                    raise
                self._counters.failed_for_now()
                self._look_again = True  # somebody answers, so the others need not wait long
                break
            if stop is not None and stop.is_set():
                self._look_again = True
                break
        return taken

    def expire(self) -> int:
        """Forget files, of whatever kind, that lie here or were set aside since longer than is kept; how many."""
        now, old, ours = time.time(), 0, 0
        before = now - self._retention
        for entry in self._entries():
            try:
                limit = now - _KILLED_SECONDS if entry.name.startswith(UPLOADING) else before
                if not entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < limit:
                    Path(entry.path).unlink()
                    old += 1
                    ours += self._rules.is_ours(entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("The old file %s cannot be removed: %s", entry.path, error.strerror)
        if ours:
            log.warning("%d files in %s were too old to be kept, and are gone.", ours, self.directory)
        return old + self._failed.expire(before)

    # -- what lies there ----------------------------------------------------------------

    def _changed(self) -> bool:
        """Whether there may be something to take; cheap, for it is asked all the time."""
        due = self._look_again or time.monotonic() >= self._next_look
        return due or self.directory.stat().st_mtime_ns != self._seen

    def _remember(self) -> None:
        self._seen = self.directory.stat().st_mtime_ns
        self._look_again = time.time() - self._seen / 1e9 < _TICK_SECONDS

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            return list(os.scandir(self.directory))
        except FileNotFoundError:
            return []

    def _batches(self) -> Iterator[list[Dropped]]:
        """All files that are whole, oldest name first, in portions."""
        batch: list[Dropped] = []
        size = 0
        for unit in self._units():
            dropped = self._read_all(unit)
            most = min(self._max_files, _TRIAL_FILES) if self._holds else self._max_files
            if batch and len(batch) + len(dropped) > most:
                yield batch
                batch, size = [], 0
            batch += dropped
            size += sum(len(one.content) for one in dropped)
            if len(batch) >= most or size >= _MAX_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _units(self) -> Iterator[list[str]]:
        """The names of files that belong together, when their time has come; those with the fewest failures first."""
        there: dict[str, list[tuple[str, int]]] = {}
        for entry in sorted(self._entries(), key=lambda one: one.name):
            if self._rules.is_ours(entry.name) and entry.is_file(follow_symlinks=False):
                identity = (entry.name, entry.inode())
                if identity not in self._stuck:
                    there.setdefault(self._rules.unit(entry.name), []).append(identity)
        if self._deferred:  # those that are gone need not be remembered
            known = {one for unit in there.values() for one in unit}
            self._deferred = {one: until for one, until in self._deferred.items() if one in known}
        for unit in sorted(there.values(), key=self._failures):
            names = [name for name, _ in unit]
            if self._is_due(unit) and (self._rules.is_complete(names) or self._waited_enough(names)):
                yield names

    def _failures(self, unit: Sequence[tuple[str, int]]) -> int:
        return max((self._deferred[one].failures for one in unit if one in self._deferred), default=0)

    def _is_due(self, unit: Sequence[tuple[str, int]]) -> bool:
        waits = [self._deferred[one].until for one in unit if one in self._deferred]
        until = max(self._held_until, *waits) if waits else 0.0
        if until <= time.monotonic():
            return True
        self._next_look = min(self._next_look, until)
        return False

    def _waited_enough(self, names: Sequence[str]) -> bool:
        """Whether what is to come with these files will hardly come any more."""
        age = time.time() - max(_changed(self.directory / name) for name in names)
        if age > _TOGETHER_SECONDS:
            return True
        self._next_look = min(self._next_look, time.monotonic() + _TOGETHER_SECONDS - max(0.0, age))
        return False

    def _read_all(self, names: Sequence[str]) -> list[Dropped]:
        """Files that belong together, or nothing as long as one is not whole; what is unfit is set aside."""
        found = []
        for name in names:
            dropped = self._read(name)
            if isinstance(dropped, Rejection):
                for one in names:
                    self._refuse(one, dropped)
                return []
            if dropped is None:
                return []
            found.append(dropped)
        return found

    def _read(self, name: str) -> Dropped | Rejection | None:
        """A file, if it is one and whole; why not, when it can be seen to be unfit."""
        try:
            descriptor = os.open(self.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                log.warning("The file %s cannot be read: %s", self.directory / name, error.strerror)
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            if not _is_whole(descriptor, time.time() - found.st_mtime):
                self._look_again = True
                return None
            problem = self._problem(name, found.st_size)
            if problem:
                return Rejection(0, problem)
            return Dropped(name, file.read(self._rules.max_bytes), found.st_mtime, found.st_ino)

    def _problem(self, name: str, size: int) -> str:
        """What can be seen from outside to be wrong; empty when nothing is."""
        if size > self._rules.max_bytes:
            return f"The file is longer than {self._rules.max_bytes} bytes."
        try:
            self._rules.check_name(name)
        except Invalid as error:
            return error.message
        return ""

    # -- what becomes of it ---------------------------------------------------------------

    def _take(self, batch: Sequence[Dropped]) -> int:
        """Hand some files over; when that fails for a reason nobody foresaw, the one at fault is found by halving."""
        try:
            verdicts = {one.position: one for one in self._consume(batch)}
        except Unavailable:
            raise
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._take(batch[:middle]) + self._take(batch[middle:])
            log.exception("The file %s cannot be taken", batch[0].name)
            verdicts = {0: Rejection(0, str(error) or type(error).__name__)}
        are_new = any((one.name, one.inode) not in self._deferred for one in batch)
        for position, dropped in enumerate(batch):
            self._settle(dropped, verdicts.get(position))
        waiting = [one for one in verdicts.values() if isinstance(one, Later)]
        if len(waiting) == len(batch):  # the next ones would hardly be luckier
            # What failed before may be at fault itself, whatever it says of the way; what is new tells of that.
            known_down = are_new and all(one.way for one in waiting)
            raise (Unavailable if known_down else FilesWait)(waiting[0].reason)
        if waiting:
            self._counters.failed_for_now()
        return len(batch) - len(verdicts)

    def _settle(self, dropped: Dropped, verdict: Rejection | Later | None) -> None:
        if isinstance(verdict, Later):
            self._defer(dropped, verdict.reason)
        elif verdict is not None:
            self._rejected(dropped.name, verdict)
            if self._is_still_there(dropped):
                self._refuse(dropped.name, verdict)
        else:
            self._remove(dropped)

    def _defer(self, dropped: Dropped, reason: str) -> None:
        """Try a file again after a while, longer each time, so that it does not keep others waiting."""
        identity = (dropped.name, dropped.inode)
        failures = self._deferred[identity].failures if identity in self._deferred else 0
        until = time.monotonic() + pauses.after(failures)
        self._deferred[identity] = _Deferral(failures + 1, until)
        self._next_look = min(self._next_look, until)
        log.info("[%s] The file %s waits: %s", report_files.queue_id(dropped.name), dropped.name, reason)

    def _remove(self, dropped: Dropped) -> None:
        path = self.directory / dropped.name
        try:
            if self._is_still_there(dropped):
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("The file %s was taken and cannot be removed: %s", path, error.strerror)  # noqa: TRY400  # no bug
            self._stuck.add((dropped.name, dropped.inode))

    def _is_still_there(self, dropped: Dropped) -> bool:
        """Whether nobody removed or replaced a file meanwhile; what came in its place is taken for itself."""
        try:
            return (self.directory / dropped.name).lstat().st_ino == dropped.inode
        except FileNotFoundError:
            return False

    def _refuse(self, name: str, rejection: Rejection) -> None:
        identity = report_files.queue_id(name)
        log.warning("[%s] The file %s was set aside: %s", identity, self.directory / name, rejection.reason)
        self._counters.set_aside()
        try:
            self._failed.move(self.directory / name, rejection.reason, rejection.kind)
        except FileNotFoundError:
            return


def _changed(path: Path) -> float:
    """When a file was renamed or written last, whatever it says of itself, as Unix time; now, when it is gone."""
    try:
        return path.lstat().st_ctime
    except FileNotFoundError:
        return time.time()


def _is_whole(descriptor: int, age: float) -> bool:
    """Whether nobody writes to an open file any more. The kernel leases a file only when nobody can write to it."""
    try:
        # Whoever opens the file in this very moment would else end this process with a signal.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno != errno.EAGAIN and age > _SETTLED_SECONDS
    return True
