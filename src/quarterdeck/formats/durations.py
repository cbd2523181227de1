# SPDX-License-Identifier: Apache-2.0
"""Durations as people write them for relays: whole seconds, or spans such as `1d 2h`, in any order, added up."""

from __future__ import annotations

import re

from quarterdeck.core.errors import Invalid

#: A thousand years; what is longer is a slip, and times that far away cannot be told.
MAX_SECONDS = 1000 * 31_557_600
_MINUTE, _HOUR, _DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
#: unit -> nanoseconds; a month is 30.44 days, a year 365.25
_UNITS: dict[str, int] = {
    **dict.fromkeys(("ns", "nsec", "nanos"), 1),
    **dict.fromkeys(("us", "usec", "µs"), 10**3),
    **dict.fromkeys(("ms", "msec", "millis"), 10**6),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 10**9),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
    **dict.fromkeys(("M", "month", "months"), 3044 * _DAY // 100),
    **dict.fromkeys(("y", "year", "years"), 36525 * _DAY // 100),
}
_SPAN = r"\s*([0-9]{1,20})\s*([a-zA-Zµ]+)\s*"
_SPANS = re.compile(f"(?:{_SPAN})+")
_ONE = re.compile(_SPAN)


def seconds(text: str) -> float:
    """A duration in seconds. Raises Invalid for anything else, and for more than a thousand years."""
    if re.fullmatch(r"[0-9]{1,20}", text):
        return _bounded(int(text) * 10**9, text)
    if len(text) > 1000 or not _SPANS.fullmatch(text):
        raise _invalid(text)
    total = 0
    for amount, unit in _ONE.findall(text):
        if unit not in _UNITS:
            raise _invalid(text)
        total += int(amount) * _UNITS[unit]
    return _bounded(total, text)


def _bounded(nanoseconds: int, text: str) -> float:
    if nanoseconds > MAX_SECONDS * 10**9:
        raise Invalid(f"The duration '{text[:40]}' is too long.")
    return nanoseconds / 10**9


def _invalid(text: str) -> Invalid:
    return Invalid(f"'{text[:40]}' is no duration, as in 3600, 1d or '1d 2h'.")
