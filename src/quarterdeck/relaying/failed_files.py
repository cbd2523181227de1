# SPDX-License-Identifier: Apache-2.0
"""A directory of files that could not be taken, each with a file beside it (`NAME.reason`) that says why.

Bounded: the oldest go when there are too many. What may be done with them is `quarantine.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import msgspec

from quarterdeck.formats import report_files
from quarterdeck.relaying.kept_files import sync_directory

MAX_FILES = 10_000
MAX_BYTES = 256 * 1024 * 1024
#: `invalid`: whose it is, is not known here
Kind = Literal["error", "invalid"]
_REASON = ".reason"
_TEMPORARY = ".writing-"
_LONGEST_NAME = 240


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a file lies here, since when (Unix time), and what it was called, if otherwise, as in a URL."""

    reason: str
    kind: Kind = "error"
    name: str = ""
    at: float = 0.0

    def called(self, name: str) -> str:
        """What a file of this name here was called before."""
        return unquote(self.name, errors="surrogateescape") or name


class FailedFiles:
    """One such directory. Several processes may use it."""

    def __init__(self, directory: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self._max_files = max_files
        self._max_bytes = max_bytes
        #: what this process knows of the directory's size: nobody counts ten thousand files for one that comes
        self._known: tuple[int, int] | None = None

    def put(self, name: str, content: bytes, reason: str, kind: Kind = "error") -> None:
        """Set some content aside under a name, whose former file is replaced; durable when this returns."""
        self.directory.mkdir(mode=0o770, parents=True, exist_ok=True)
        place = self._explained(name, reason, kind)
        try:
            _write(place, content)
        except OSError:
            if not place.exists():
                _reason_file(place).unlink(missing_ok=True)
            raise
        self._finish(len(content))

    def move(self, path: Path, reason: str, kind: Kind = "error") -> None:
        """Set a file aside that lies on the same disk. Raises FileNotFoundError."""
        self.directory.mkdir(mode=0o770, parents=True, exist_ok=True)
        size = path.lstat().st_size
        os.utime(path)  # it is kept from now on for as long as others are
        path.rename(self._explained(path.name, reason, kind))
        self._finish(size)

    def _explained(self, name: str, reason: str, kind: Kind) -> Path:
        """Where a file of this name belongs; why it does, stands there already."""
        kept = safe_name(name)
        why = Reason(
            reason=reason, kind=kind, name=quote(name, errors="surrogateescape") if kept != name else "", at=time.time()
        )
        place = self.directory / kept
        _write(_reason_file(place), msgspec.json.encode(why))
        return place

    def _finish(self, size: int) -> None:
        sync_directory(self.directory)
        if self._known is not None:
            self._known = (self._known[0] + 1, self._known[1] + size)
        if self._known is None or self._known[0] > self._max_files or self._known[1] > self._max_bytes:
            self._known = self._prune()

    def _prune(self) -> tuple[int, int]:
        """Forget the oldest beyond nine tenths of what may lie here; how many files and bytes are left."""
        found = sorted(((_status(path), path) for path in self._files()), reverse=True)
        full = len(found) > self._max_files or sum(size for (_, size), _ in found) > self._max_bytes
        share = 0.9 if full else 1.0
        kept = total = 0
        for (_, size), path in found:
            if kept and (kept >= self._max_files * share or total + size > self._max_bytes * share):
                self._drop(path)
            else:
                kept, total = kept + 1, total + size
        return kept, total

    def names(self) -> list[str]:
        """What lies here, sorted."""
        return sorted(path.name for path in self._files())

    def path(self, name: str) -> Path | None:
        """The file of a name; None when there is none."""
        return next((path for path in self._files() if path.name == name), None)

    def reason(self, name: str) -> Reason:
        """Why a file lies here, as far as that is known."""
        try:
            return msgspec.json.decode(_reason_file(self.directory / name).read_bytes(), type=Reason)
        except (OSError, msgspec.MsgspecError):
            return Reason(reason="")

    def remove(self, name: str) -> bool:
        """Forget a file; whether there was one."""
        found = self.path(name)
        if found is not None:
            self._drop(found)
        return found is not None

    def release(self, name: str, place: Path) -> None:
        """Move a file to another place on the same disk. Raises FileNotFoundError."""
        path = self.directory / name
        path.lstat()
        # First: the file may be back here before anything else could be done.
        _reason_file(path).unlink(missing_ok=True)
        path.rename(place)

    def expire(self, before: float) -> int:
        """Forget files that lie here since before a moment (Unix time); how many."""
        old = [path for path in self._files() if _changed(path) < before]
        for path in old:
            self._drop(path)
        for entry in self._entries():  # reasons whose file went another way, and writes that were killed
            lost = entry.name.endswith(_REASON) and not os.path.lexists(entry.path.removesuffix(_REASON))
            if (lost or entry.name.startswith(_TEMPORARY)) and _changed(Path(entry.path)) < before:
                Path(entry.path).unlink(missing_ok=True)
        return len(old)

    def _files(self) -> Iterator[Path]:
        for entry in self._entries():
            if not entry.name.startswith(".") and not entry.name.endswith(_REASON):
                yield Path(entry.path)

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            return [entry for entry in os.scandir(self.directory) if not entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def _drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        _reason_file(path).unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """The name itself, or, where it is too long or would be mistaken for something else, one made from it."""
    long = len(os.fsencode(name)) > _LONGEST_NAME
    return report_files.queue_id(name) if long or name.startswith(".") or name.endswith(_REASON) else name


def _reason_file(path: Path) -> Path:
    return path.with_name(path.name + _REASON)


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{report_files.queue_id(path.name)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
        temporary.rename(path)
    except OSError:  # on a full disk above all it must not stay
        temporary.unlink(missing_ok=True)
        raise


def _status(path: Path) -> tuple[float, int]:
    """When a file came here, and how long it is."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return time.time(), 0
    return found.st_mtime, found.st_size


def _changed(path: Path) -> float:
    return _status(path)[0]
