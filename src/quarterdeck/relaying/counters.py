# SPDX-License-Identifier: Apache-2.0
"""What became of reports and inventories, counted where it happens and read where somebody asks.

The two may be different processes: counters that are given a file keep their numbers in it. One process counts, any
number read. The names are those that dashboards for relays know (`metrics.py` gives them out).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import struct
import threading
from bisect import bisect_left
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
_SLOTS = {name: number for number, name in enumerate(_NAMES)}
_NUMBERS = struct.Struct(f"={len(_NAMES)}d")


class Counters:
    """Numbers that only grow, all zero at first. Safe for threads."""

    def __init__(self, path: Path | None = None) -> None:
        """With a path they begin anew in that file, which `read` understands."""
        self._lock = threading.Lock()
        self._numbers = [0.0] * len(_NAMES)
        self._shared = _shared(path) if path is not None else None
        if self._shared is not None:
            _NUMBERS.pack_into(self._shared, 0, *self._numbers)

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
        with self._lock:
            self._put(_SLOTS["last_success"], at)

    def snapshot(self) -> dict[str, float]:
        """All numbers by name, as of one moment."""
        with self._lock:
            return dict(zip(_NAMES, self._numbers, strict=True))

    def _add(self, name: str, number: float) -> None:
        slot = _SLOTS[name]
        with self._lock:
            self._put(slot, self._numbers[slot] + number)

    def _put(self, slot: int, number: float) -> None:
        self._numbers[slot] = number
        if self._shared is not None:
            struct.pack_into("=d", self._shared, slot * 8, number)


def read(path: Path) -> dict[str, float]:
    """The numbers that another process keeps in a file; all zero while there is none."""
    content = b""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()[: _NUMBERS.size]
    numbers = _NUMBERS.unpack(content.ljust(_NUMBERS.size, b"\0"))
    return dict(zip(_NAMES, numbers, strict=True))


def buckets(snapshot: dict[str, float]) -> list[tuple[str, float]]:
    """(upper end, how many were at most so long) of the durations, as histograms are given out."""
    ends = [*(f"{end:g}" for end in SECONDS), "more"]
    totals = itertools.accumulate(snapshot[f"seconds.{end}"] for end in ends)
    return list(zip([*(str(end) for end in SECONDS), "+Inf"], totals, strict=True))


def _shared(path: Path) -> mmap.mmap:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(descriptor, _NUMBERS.size)
        return mmap.mmap(descriptor, _NUMBERS.size)
    finally:
        os.close(descriptor)
