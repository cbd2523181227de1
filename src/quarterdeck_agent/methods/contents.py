# SPDX-License-Identifier: Apache-2.0
"""Whole files as bytes: read, compared, replaced atomically with everything but the content kept.

A replacement keeps owner, mode and extended attributes (SELinux label, ACL), follows symbolic links
to the real file as an editor would (but see `system.resolved`), and leaves the previous content in the
call's backups. What the lines of a text mean is not known here; see texts.py.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from typing import IO, Callable, Iterable, List, Optional

from quarterdeck_agent.methods import system
from quarterdeck_agent.methods.system import UnableError

#: Files that methods edit in memory may not be larger; copies are streamed and have no limit.
EDIT_LIMIT_BYTES = 64 * 1024 * 1024
#: Previous contents kept of one file.
BACKUPS_OF_A_FILE = 20
#: Mode of a file that a policy creates without asking for permissions: nobody else reads it.
PRIVATE = 0o600
#: Mode of new files in /etc that programs of every user read.
PUBLIC = 0o644
#: Longest diff in a message; longer ones are cut.
DIFF_LINES = 40
#: Above this a diff costs too much time to be shown.
DIFF_LIMIT_BYTES = 1024 * 1024

_SECRET_NAMES = ("shadow", "gshadow", "master.passwd", "opasswd")

Fill = Callable[[IO[bytes]], None]


def read(path: str) -> Optional[bytes]:
    """The content of a file, links followed; None when there is none.

    Raises UnableError when it is no regular file or larger than EDIT_LIMIT_BYTES, OSError when it
    cannot be read.
    """
    # Looked at before it is opened: opening alone starts what some devices do.
    if _regular(path) is None:
        return None
    with open(path, "rb", opener=_cautiously) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnableError(f"{path} is not a regular file.")
        if status.st_size > EDIT_LIMIT_BYTES:
            raise UnableError(f"{path} is larger than {EDIT_LIMIT_BYTES // 1024**2} MiB and is not edited.")
        return stream.read()


def _cautiously(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write(path: str, data: bytes, backups: Optional[str], mode: int = PRIVATE) -> None:
    """Replace the content of the file at `path`, or create it with `mode`; see `replace`."""
    replace(path, lambda stream: _put(stream, data), backups, mode)


def replace(path: str, fill: Fill, backups: Optional[str], mode: int = PRIVATE) -> None:
    """Put what `fill` writes in place of the file at `path`, at once or not at all.

    Owner, mode and extended attributes of an existing file stay, other hard links to it keep the
    old content; a new file gets `mode`. Raises UnableError (no such directory, not a regular file)
    and OSError.
    """
    real = system.resolved(path)
    if not os.path.isdir(os.path.dirname(real)):
        raise UnableError(f"{path} cannot be written: there is no directory {os.path.dirname(real)}.")
    before = _regular(real)
    if before:
        back_up(real, backups)
    directory, name = os.path.split(real)
    temporary = os.path.join(directory, f".{name[:200]}.quarterdeck-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of a run that was killed
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            fill(stream)
            stream.flush()
            _dress(descriptor, real, before, mode)
            os.fsync(descriptor)
        os.replace(temporary, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def back_up(path: str, backups: Optional[str]) -> None:
    """Keep the content of the regular file at `path` in the directory `backups`; None keeps nothing.

    The name tells path, time and digest; a content that is kept already is not kept twice. Files
    with secrets of the system (shadow) are never kept.
    """
    if backups is None or is_secret(path) or _regular(path) is None:
        return
    with open(path, "rb") as stream:
        checksum = digest(stream)
    os.makedirs(backups, mode=0o700, exist_ok=True)
    encoded = path.strip("/").replace("%", "%25").replace("/", "%2F").encode("utf-8", "surrogateescape")[-150:]
    name = os.fsdecode(encoded)
    if any(entry.startswith(f"{name}@") and entry.endswith(checksum) for entry in os.listdir(backups)):
        return
    _forget_oldest(backups, name)
    kept = os.path.join(backups, f"{name}@{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}@{checksum}")
    with open(path, "rb") as source:
        replace(kept, lambda stream: copy(source, stream), None)


def _forget_oldest(backups: str, name: str) -> None:
    """Make room for one more backup of a file; their names sort by time."""
    mine = sorted(entry for entry in os.listdir(backups) if entry.startswith(f"{name}@"))
    for entry in mine[: max(len(mine) - BACKUPS_OF_A_FILE + 1, 0)]:
        os.unlink(os.path.join(backups, entry))


def remove(path: str, backups: Optional[str]) -> None:
    """Remove a file or a link, after keeping a regular file's content."""
    if not os.path.islink(path):
        back_up(path, backups)
    os.unlink(path)


def digest(stream: IO[bytes]) -> str:
    """SHA-256 in hex of the rest of a stream, read in pieces."""
    sha = hashlib.sha256()
    for piece in iter(lambda: stream.read(1024 * 1024), b""):
        sha.update(piece)
    return sha.hexdigest()


def copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Write the rest of `source` to `target`, in pieces."""
    for piece in iter(lambda: source.read(1024 * 1024), b""):
        target.write(piece)


def is_secret(path: str) -> bool:
    """Whether no part of the file may appear in a report or a backup: it holds password hashes."""
    return os.path.basename(os.path.realpath(path)).rstrip("-") in _SECRET_NAMES


def diff(path: str, before: bytes, after: bytes) -> str:
    """A unified diff of at most DIFF_LINES lines, or a sentence where one cannot or must not be shown."""
    if is_secret(path):
        return "The difference is not shown: the file holds secrets."
    if b"\0" in before or b"\0" in after:
        return f"Binary content differs: {len(before)} bytes found, {len(after)} expected."
    if len(before) + len(after) > DIFF_LIMIT_BYTES:
        return f"The difference is not shown: {len(before)} bytes found, {len(after)} expected."
    import difflib  # only drift pays for it

    lines = difflib.unified_diff(_shown(before), _shown(after), "found", "expected", n=1, lineterm="")
    return "\n".join(_cut(lines))


def _cut(lines: Iterable[str]) -> List[str]:
    shown = list(lines)
    if len(shown) <= DIFF_LINES:
        return shown
    return [*shown[: DIFF_LINES - 1], f"... and {len(shown) - DIFF_LINES + 1} more lines"]


def _shown(data: bytes) -> List[str]:
    text = data.decode("utf-8", "replace")
    lines = [line.replace("\r", "\\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    elif lines:
        lines[-1] += "  (no line end)"
    return lines


def _put(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)


def _regular(path: str) -> Optional[os.stat_result]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise UnableError(f"{path} is not a regular file.")
    return status


def _dress(descriptor: int, path: str, before: Optional[os.stat_result], mode: int) -> None:
    """Give the new file owner, mode and attributes before anyone can see it under its name."""
    if before is None:
        os.fchmod(descriptor, mode)
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
    for name in _attributes(path):
        try:
            os.setxattr(descriptor, name, os.getxattr(path, name))
        except OSError as problem:
            if problem.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
                raise


def _attributes(path: str) -> List[str]:
    try:
        return os.listxattr(path)
    except OSError as problem:
        if problem.errno == errno.ENOTSUP:
            return []
        raise


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
