# SPDX-License-Identifier: Apache-2.0
"""Output of executions: entries, their lines, and which are kept. How they are stored is `formats/log_blocks.py`'s.

An entry holds the lines that came together from one place. Lines end with a line feed; only what a command left
unfinished, or a line too long to wait for, has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from quarterdeck.core.jobs import LOG_LEVELS

#: What the two streams of a command are logged as.
LEVEL_OF_STREAM = {"stdout": "INFO", "stderr": "ERR"}


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`time` is aware, in whole milliseconds once stored; `node` and `step` are "" for the execution as a whole."""

    time: datetime
    level: str
    node: str
    step: str
    user: str
    text: bytes


def kept(level: str, loglevel: str) -> bool:
    """Whether an execution at this log level keeps an entry of this level, its nodes' output included."""
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(loglevel)


def count_lines(text: bytes) -> int:
    """How many lines a text has; an unfinished last one counts."""
    return text.count(b"\n") + (bool(text) and not text.endswith(b"\n"))


def lines(entry: LogEntry) -> Iterator[LogEntry]:
    """The entry line by line, line ends included."""
    if entry.text.find(b"\n") in (-1, len(entry.text) - 1):
        yield entry
        return
    for line in entry.text.split(b"\n")[:-1]:
        yield replace(entry, text=line + b"\n")
    if rest := entry.text[entry.text.rfind(b"\n") + 1 :]:
        yield replace(entry, text=rest)


def line_border(text: bytes, most: int) -> int:
    """Where the last line that ends within the first `most` bytes ends; 0 when not even the first one does."""
    return text.rfind(b"\n", 0, most) + 1
