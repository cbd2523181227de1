# SPDX-License-Identifier: Apache-2.0
"""The lines that a process writes to standard error, and which of them; that may change while it runs.

Time, level, where from, what. A line is written when it is as important as the part of the program that it comes from
must be, or when it names a node that somebody watches.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence

from quarterdeck.daemon.config import Log

_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PROGRAM = "quarterdeck"
#: Their usual lines are of no use to administrators.
_CHATTY = ("alembic", "uvicorn")


class _Chosen(logging.Filter):
    """Lets through what is important enough, or names a watched node."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: re.Pattern[str] | None = None
        self._levels: Mapping[str, int] = {}
        self._level = logging.INFO

    def choose(self, level: int, levels: Mapping[str, int], nodes: Sequence[str]) -> None:
        """From now on."""
        self._level, self._levels = level, levels
        # An id that only begins like this one is another node's.
        self._watched = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, nodes))})(?![\w-])") if nodes else None

    def filter(self, record: logging.LogRecord) -> bool:
        if self._watched is None or record.levelno >= self._required(record.name):
            return True
        try:
            return self._watched.search(record.getMessage()) is not None
        except Exception:  # noqa: BLE001  # what is wrong with a line is told where it is written, and ends nobody's work
            return True

    def _required(self, name: str) -> int:
        while name:
            if name in self._levels:
                return self._levels[name]
            name = name.rpartition(".")[0]
        return self._level


_chosen = _Chosen()
#: Loggers whose level was set by `choose`.
_set: set[str] = set()


def start(log: Log) -> None:
    """Write lines from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORM))
    handler.addFilter(_chosen)
    logging.getLogger().addHandler(handler)
    choose(log)


def choose(log: Log) -> None:
    """Write these lines from now on, whatever was written before."""
    level = logging.getLevelNamesMapping()[log.level.upper()]
    levels = {name: logging.getLevelNamesMapping()[wanted.upper()] for name, wanted in log.levels.items()}
    for chatty in _CHATTY:
        levels[chatty] = logging.DEBUG if log.level == "debug" else logging.WARNING
    _chosen.choose(level, levels, log.nodes)
    logging.getLogger().setLevel(level)
    # Lines about a watched node must come as far as the filter.
    wanted_from = {name: logging.DEBUG if log.nodes and _is_ours(name) else found for name, found in levels.items()}
    if log.nodes:
        wanted_from[_PROGRAM] = logging.DEBUG
    for name in _set - wanted_from.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, found in wanted_from.items():
        logging.getLogger(name).setLevel(found)
    _set.clear()
    _set.update(wanted_from)


def _is_ours(name: str) -> bool:
    return name == _PROGRAM or name.startswith(f"{_PROGRAM}.")
