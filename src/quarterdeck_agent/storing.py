# SPDX-License-Identifier: Apache-2.0
"""Writing the agent's own files so that a crash at any moment leaves the old content or the new, never half.

Files that policies manage are written by the methods, which also keep owner and attributes.
"""

from __future__ import annotations

import contextlib
import os

#: Marks files that a crash may leave behind; whoever holds the run lock removes them.
LEFTOVER_PREFIX = ".new-"


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`, durably, with exactly `mode`. Raises OSError."""
    directory, name = os.path.split(path)
    fresh = os.path.join(directory, f"{LEFTOVER_PREFIX}{os.getpid()}-{name}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(fresh, path)
    except BaseException:
        remove(fresh)
        raise
    sync_directory(directory)


def remove(path: str) -> None:
    """Delete a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def sync_directory(path: str) -> None:
    """Make the names inside a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: str) -> int:
    """Remove what interrupted writes left in `directory`; how many there were."""
    found = [name for name in os.listdir(directory) if name.startswith(LEFTOVER_PREFIX)]
    for name in found:
        remove(os.path.join(directory, name))
    return len(found)


def trim(directory: str, limit: int) -> None:
    """Remove the oldest files of `directory` until at most `limit` bytes are left."""
    files = [(entry.stat(), entry.path) for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    total = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda file: file[0].st_ctime_ns):
        if total <= limit:
            return
        remove(path)
        total -= status.st_size
