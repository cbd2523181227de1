# SPDX-License-Identifier: Apache-2.0
"""What became of reports and inventories, counted where it happens and read where somebody asks.

The two may be different processes: counters that are given a file keep their numbers in it, and go on there after a
restart. The names are those that dashboards for relays know (`metrics.py` gives them out).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

ReportStatus = Literal["ok", "error", "invalid", "forward_ok", "forward_error"]
InventoryStatus = Literal["ok", "error", "forward_ok", "forward_error"]
#: Upper ends of the histogram's buckets, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_NAMES = (
    *(f"reports.{status}" for status in ("ok", "error", "invalid", "forward_ok", "forward_error")),
    *(f"inventories.{status}" for status in ("ok", "error", "forward_ok", "forward_error")),
    "transient_failures",
    "quarantined",
    "last_success",
    *(f"seconds.{end:g}" for end in SECONDS),
    "seconds.more",
    "seconds.sum",
)
#: name -> where its number begins
_SLOTS = {name: number * 8 for number, name in enumerate(_NAMES)}
_NUMBERS = struct.Struct(f"={len(_NAMES)}d")


class Counters:
    """Numbers that only grow, all zero at first. Safe for threads."""

    def __init__(self, path: Path | None = None) -> None:
        """With a path they are in that file, together with those of other processes, and `read` reads them."""
        self._lock = threading.Lock()
        self._descriptor = _opened(path) if path is not None else -1
        self._numbers = mmap.mmap(self._descriptor, _NUMBERS.size)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def report(self, status: ReportStatus, number: int = 1) -> None:
        """So many reports came to an end: kept (or there already), of nobody known, never to be kept, or passed on."""
        self._add(f"reports.{status}", number)

    def inventory(self, status: InventoryStatus, number: int = 1) -> None:
        """So many inventories came to an end."""
        self._add(f"inventories.{status}", number)

    def processed(self, seconds: float, number: int = 1) -> None:
        """One report, or each of several, was worked on for so long, with or without success."""
        position = bisect_left(SECONDS, seconds)
        self._add(f"seconds.{SECONDS[position]:g}" if position < len(SECONDS) else "seconds.more", number)
        self._add("seconds.sum", seconds * number)

    def failed_for_now(self) -> None:
        """Something could not be done at this moment, and will be tried again."""
        self._add("transient_failures", 1)

    def set_aside(self, number: int = 1) -> None:
        """So many files or records wait for somebody to look at them."""
        self._add("quarantined", number)

    def succeeded(self, at: float) -> None:
        """Something went all the way at this moment, a Unix time."""
        with self._held():
            self._put("last_success", at)

    def snapshot(self) -> dict[str, float]:
        """All numbers by name."""
        return dict(zip(_NAMES, _NUMBERS.unpack_from(self._numbers), strict=True))

    def _add(self, name: str, number: float) -> None:
        with self._held():
            self._put(name, struct.unpack_from("=d", self._numbers, _SLOTS[name])[0] + number)

    def _put(self, name: str, number: float) -> None:
        struct.pack_into("=d", self._numbers, _SLOTS[name], number)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else changes a number meanwhile, in no process."""
        with self._lock:
            if self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                if self._descriptor >= 0:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def read(path: Path) -> dict[str, float]:
    """The numbers that another process keeps in a file; all zero while there is none."""
    content = b""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()[: _NUMBERS.size]
    numbers = _NUMBERS.unpack(content.ljust(_NUMBERS.size, b"\0"))
    return dict(zip(_NAMES, numbers, strict=True))


def buckets(snapshot: Mapping[str, float]) -> list[tuple[str, float]]:
    """(upper end, how many were at most so long) of the durations, as histograms are given out."""
    ends = [*(f"{end:g}" for end in SECONDS), "more"]
    totals = itertools.accumulate(snapshot[f"seconds.{end}"] for end in ends)
    return list(zip([*(str(end) for end in SECONDS), "+Inf"], totals, strict=True))


def _opened(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(descriptor).st_size != _NUMBERS.size:  # new, or of a version that counted other things
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, _NUMBERS.size)
    return descriptor
