# SPDX-License-Identifier: Apache-2.0
"""Run logs of genuine agents: what one of their runs printed, line by line, and the reports in it.

Reading never fails: a line that is neither a report nor a log entry costs itself, not its neighbours, and each line
is looked at twice at most. Who signed the text is `smime.py`; what its file is called, `report_files.py`; what of it
our own model keeps, `services/run_logs.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

CONTROL = "control"
START = "start"
END = "end"
#: What stands for an empty key, and for an empty report id.
NO_KEY = "None"
NO_REPORT_ID = "0"

_MARKER = "R: @@"
_SEPARATOR = "@@"
#: policy, event type, rule, directive, report id, component, key, and what follows them
_PARTS = 8
#: The fields in front of the component stand on the line of the marker.
_PARTS_ON_FIRST_LINE = 6
#: A time in front of a line; the year decides quickly.
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})) "
)
_TAIL = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}) ?([+-][0-9]{2}):?([0-9]{2})##([^@]*(?:@(?!#)[^@]*)*)@#"
)
#: Blanks in front of a level align it with others, and count.
_ENTRY = re.compile(
    r"(?:(?P<log_warn>(?:rudder )?(?:CRITICAL|   error| warning)|R: (?:\[FATAL\]|\[ERROR\]|WARNING|DEBUG))"
    r"|(?P<log_debug>[ ]verbose|   debug|R: \[DEBUG\])"
    r"|(?P<log_info>(?:rudder )?(?:  notice|    info)|R: \[INFO\]|R:(?! @@)))"
    r":?[ \t]*"
)
_LINE_END = re.compile(r"\r\n?")
#: Many lines of a run have the same time, and all have the same start.
_REMEMBERED = 512


class Event(NamedTuple):
    """One report, or one line of the log that says more about the report after it. Times are aware."""

    at: datetime
    policy: str
    kind: str
    rule: str
    directive: str
    report_id: str
    component: str
    key: str
    start: datetime
    node: str
    message: str


class RunLog(NamedTuple):
    """All that a run told, in order. `skipped` counts the lines that could not be read."""

    events: Sequence[Event]
    skipped: int

    @property
    def start(self) -> datetime | None:
        """When the run began, as its first report says."""
        return self.events[0].start if self.events else None

    @property
    def end(self) -> datetime | None:
        """When its last line was printed."""
        return self.events[-1].at if self.events else None

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that its reports name; one, if nothing is wrong."""
        return frozenset(one.node for one in self.events)

    @property
    def config_id(self) -> str | None:
        """The configuration that the run was about; None when neither its beginning nor its end stands there."""
        marks = (one for one in self.events if one.kind == CONTROL and one.component in (START, END))
        return next((one.key for one in marks), None)

    @property
    def complete(self) -> bool:
        """Whether it is a whole run, and not part of one; the end does not matter."""
        return any(one.kind == CONTROL and one.component == START for one in self.events)


class _Report(NamedTuple):
    event: Event
    #: where the line after it stands
    after: int


def decode(data: bytes) -> RunLog:
    """Read the bytes of a run log; what is not UTF-8 in them is replaced."""
    # No database keeps the first of these characters in text.
    return parse(data.decode("utf-8", errors="replace").replace("\0", "\ufffd"))


def parse(text: str) -> RunLog:
    """Read a run log."""
    if "\r" in text:
        text = _LINE_END.sub("\n", text)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    events: list[Event] = []
    waiting: list[tuple[datetime, str, str]] = []
    position = skipped = 0
    while position < len(lines):
        time = _TIME.match(lines[position])
        if time is None or (at := _moment(time[1])) is None:
            skipped += 1
            position += 1
            continue
        rest = time.end()
        if lines[position].startswith(_MARKER, rest):
            found = _report(lines, position, rest + len(_MARKER), at)
            if found is None:
                skipped += 1
                position += 1
                continue
            events += [found.event._replace(at=at, kind=kind, message=message) for at, kind, message in waiting]
            waiting = []
            events.append(found.event)
            position = found.after
        elif (entry := _ENTRY.match(lines[position], rest)) is not None:
            message, position = _message(lines, position, entry.end())
            waiting.append((at, entry.lastgroup or "", message))
        else:
            skipped += 1
            position += 1
    return RunLog(events, skipped)


def _report(lines: Sequence[str], position: int, begin: int, at: datetime) -> _Report | None:
    """The report whose fields begin in a line; None when they are not complete before the next report."""
    parts = lines[position][begin:].split(_SEPARATOR, _PARTS - 1)
    if len(parts) < _PARTS_ON_FIRST_LINE:
        return None
    if len(parts) < _PARTS:
        position = _complete(lines, position, parts)
    if len(parts) < _PARTS:
        return None
    policy, kind, rule, directive, report_id, component, key, rest = parts
    tail = _TAIL.match(rest)
    start = _start(tail[1], tail[2], tail[3]) if tail is not None else None
    if tail is None or start is None:
        return None
    message, after = _message(lines, position, len(lines[position]) - len(rest) + tail.end())
    identity = (policy, kind, rule, directive, report_id or NO_REPORT_ID, component, key or NO_KEY)
    return _Report(Event(at, *identity, start, tail[4], message), after)


def _complete(lines: Sequence[str], position: int, parts: list[str]) -> int:
    """Add what a component or a key of several lines has in the lines that follow; the last one of them."""
    open_part = [parts.pop()]
    while len(parts) + 1 < _PARTS and position + 1 < len(lines):
        text = _without_time(lines[position + 1])
        if text.startswith(_MARKER):
            break
        position += 1
        more = text.split(_SEPARATOR, _PARTS - len(parts) - 1)
        open_part.append(more[0])
        if len(more) > 1:
            parts.append("\n".join(open_part))
            parts += more[1:-1]
            open_part = [more[-1]]
    parts.append("\n".join(open_part))
    return position


def _message(lines: Sequence[str], position: int, begin: int) -> tuple[str, int]:
    """The message that begins in a line, with all lines that begin nothing else; and where the next thing stands."""
    first = lines[position][begin:]
    position += 1
    more = []
    while position < len(lines):
        text = _without_time(lines[position])
        if text.startswith(_MARKER) or _ENTRY.match(text) is not None:
            break
        more.append(text)
        position += 1
    return ("\n".join((first, *more)) if more else first), position


def _without_time(line: str) -> str:
    time = _TIME.match(line)
    return line[time.end() :] if time is not None else line


@functools.lru_cache(maxsize=_REMEMBERED)
def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@functools.lru_cache(maxsize=_REMEMBERED)
def _start(local: str, hours: str, minutes: str) -> datetime | None:
    return _moment(f"{local}{hours}:{minutes}")
