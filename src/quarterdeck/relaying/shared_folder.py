# SPDX-License-Identifier: Apache-2.0
"""The files that every node may have: found below one directory, opened, and their hashes remembered.

Links are followed as long as they stay below the directory. What is asked about a file and how it is said: the dialect.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.core.errors import Invalid, NotFound

_PIECE = 256 * 1024
MOST_HASHES = 20_000
#: A file that was changed so lately may change again without its time telling.
_SETTLING_SECONDS = 2.0


class NotAFile(Invalid):
    """A directory, a device, or what this process may not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFile:
    """An open regular file; whoever has it closes `descriptor`."""

    descriptor: int
    size: int
    modified_ns: int
    #: device, inode, and when anything of it changed, in ns: whoever sets the time of change does not set that
    identity: tuple[int, int, int]
    name: str

    def close(self) -> None:
        os.close(self.descriptor)


def segments(path: str) -> tuple[str, ...]:
    """The segments of a decoded path. Raises Invalid for those that nobody needs but to get elsewhere."""
    if "\0" in path:
        raise Invalid("The path has a NUL.")
    parts = tuple(part for part in path.split("/") if part)
    for part in parts:
        if part.startswith(".."):
            raise Invalid(f"The path has a segment that begins with '..': {part[:80]}")
        if "\\" in part:
            raise Invalid(f"The path has a backslash: {part[:80]}")
    return parts


class SharedFolder:
    """One directory. Safe for threads."""

    def __init__(self, root: Path, most_hashes: int = MOST_HASHES) -> None:
        """`most_hashes` of files are remembered, those that were asked for last."""
        self.root = root
        self._most_hashes = most_hashes
        self._hashes: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._hashing: dict[tuple[object, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def open(self, parts: tuple[str, ...], *, within: int = 0) -> OpenedFile:
        """A file below the directory. Raises NotFound, and NotAFile for what is there and cannot be given.

        No link leads out of the directory, nor out of the one below it that the first `within` segments name.
        """
        root = self.root  # once: a mirror moves on to another
        path = root.joinpath(*parts)
        try:
            # Not blocking: a pipe that nobody writes would hold this thread for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("There is no such file.") from None
        except OSError as error:
            raise NotAFile(f"The file cannot be read: {error.strerror}.", detail=str(error)) from error
        try:
            return self._checked(descriptor, path.name, root.resolve().joinpath(*parts[:within]))
        except BaseException:
            os.close(descriptor)
            raise

    def _checked(self, descriptor: int, name: str, inside: Path) -> OpenedFile:
        # Where the file really is, asked after it was opened: nobody can put a link in between.
        really = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not really.is_relative_to(inside):
            raise NotFound("There is no such file.", detail=f"{really} is outside of {inside}")
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile("This is not a file.")
        return OpenedFile(
            descriptor=descriptor,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            identity=(status.st_dev, status.st_ino, status.st_ctime_ns),
            name=name,
        )

    @contextmanager
    def opened(self, parts: tuple[str, ...], *, within: int = 0) -> Iterator[OpenedFile]:
        """The same, closed at the end."""
        file = self.open(parts, within=within)
        try:
            yield file
        finally:
            file.close()

    def digest(self, file: OpenedFile, algorithm: str) -> bytes:
        """The hash of a file's content, remembered as long as the file looks the same; many who ask wait for one."""
        key = (file.identity, file.modified_ns, file.size, algorithm)
        with self._lock:
            if (found := self._remembered(key)) is not None:
                return found
            mine = self._hashing.setdefault(key, threading.Lock())
        try:
            with mine:
                with self._lock:
                    if (found := self._remembered(key)) is not None:
                        return found
                made = _digest(file, algorithm)
                if time.time() - max(file.modified_ns, file.identity[-1]) / 10**9 > _SETTLING_SECONDS:
                    self._remember(key, made)
                return made
        finally:
            with self._lock:
                self._hashing.pop(key, None)

    def _remembered(self, key: tuple[object, ...]) -> bytes | None:
        found = self._hashes.get(key)
        if found is not None:
            self._hashes.move_to_end(key)
        return found

    def _remember(self, key: tuple[object, ...], made: bytes) -> None:
        with self._lock:
            self._hashes[key] = made
            while len(self._hashes) > self._most_hashes:
                self._hashes.popitem(last=False)


def _digest(file: OpenedFile, algorithm: str) -> bytes:
    digest, at = hashlib.new(algorithm), 0
    while piece := os.pread(file.descriptor, _PIECE, at):
        digest.update(piece)
        at += len(piece)
    return digest.digest()
