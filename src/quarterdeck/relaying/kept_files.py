# SPDX-License-Identifier: Apache-2.0
"""Small files that are there whole or not at all, whenever the process or the power ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: Before the names of files that are being written.
UNFINISHED = ".writing-"


def replace(path: Path, content: bytes) -> None:
    """Give a file this content, mode 600; durable when this returns. Raises OSError; then the old content stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content(path: Path) -> bytes | None:
    """What is in a file; None when there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def sweep(directory: Path) -> None:
    """Remove what writes left that were killed. Only while nobody writes there."""
    for left in directory.glob(f"{UNFINISHED}*"):
        left.unlink(missing_ok=True)
