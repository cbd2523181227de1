# SPDX-License-Identifier: Apache-2.0
"""Work that one process of a machine does at a time, however many could: who has the lock on a file has the turn."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_SECONDS = 1.0


@contextmanager
def turn(path: Path, stop: threading.Event) -> Iterator[None]:
    """Wait for the turn and keep it meanwhile; without it only when `stop` is set. Raises OSError."""
    with path.open("a") as lock:
        while not stop.is_set() and not lock_unless_taken(lock.fileno()):
            stop.wait(_LOOK_SECONDS)
        yield


def lock_unless_taken(descriptor: int) -> bool:
    """Lock an open file unless somebody else has it; whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
