# SPDX-License-Identifier: Apache-2.0
"""Quartz expressions: read, checked, and asked for the next moment.

Fields: seconds minutes hours day-of-month month day-of-week [year]; weekday 1 is Sunday; exactly one of the two day
fields is `?`. Where a clock is put forward, what would fall into the gap happens at the first instant after it;
where it is put back, a local time happens once. A schedule for every hour follows elapsed time instead: nothing is
added at a gap and the repeated hour is served again.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NoReturn
from zoneinfo import ZoneInfo

from quarterdeck.core.errors import Invalid

WRONG = "Crontab string format was invalid"
NEVER = "The Cron expression will never be triggered in the future"

_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_MOST_YEARS = 100
_MONTHS = {
    "JAN": 1,
    "FEB": 2,
    "MAR": 3,
    "APR": 4,
    "MAY": 5,
    "JUN": 6,
    "JUL": 7,
    "AUG": 8,
    "SEP": 9,
    "OCT": 10,
    "NOV": 11,
    "DEC": 12,
}
_WEEKDAYS = {"SUN": 1, "MON": 2, "TUE": 3, "WED": 4, "THU": 5, "FRI": 6, "SAT": 7}
_ITEM = re.compile(r"(?:(\*)|([A-Z]{3}|[0-9]{1,4})(?:-([A-Z]{3}|[0-9]{1,4}))?)?(?:/([0-9]{1,4}))?")
_LAST_DAY = re.compile(r"L(?:-([0-9]{1,2}))?(W)?")
_NEAREST = re.compile(r"([0-9]{1,2})W")
_WEEKDAY_LAST = re.compile(r"([A-Z]{3}|[0-9])L")
_WEEKDAY_NTH = re.compile(r"([A-Z]{3}|[0-9])#([0-9])")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The single fields as texts, by the names that job documents give them."""

    seconds: str = "0"
    minute: str = "0"
    hour: str = "0"
    dayofmonth: str = "?"
    month: str = "*"
    weekday: str = "*"
    year: str = "*"

    def __str__(self) -> str:
        times = f"{self.seconds} {self.minute} {self.hour}"
        return f"{times} {self.dayofmonth} {self.month} {self.weekday} {self.year}".upper()


def from_parts(
    *,
    seconds: str = "",
    minute: str = "",
    hour: str = "",
    dayofmonth: str = "",
    month: str = "",
    weekday: str = "",
    year: str = "",
) -> str:
    """The expression of these fields, "" for what is not given; the weekday is `?` when a day of month is given."""
    without_weekday = dayofmonth not in ("", "?")
    return str(
        Parts(
            seconds=seconds or "0",
            minute=minute or "0",
            hour=hour or "0",
            dayofmonth=dayofmonth or "?",
            month=month or "*",
            weekday="?" if without_weekday else weekday or "*",
            year=year or "*",
        ),
    )


def parts(expression: str) -> Parts:
    """The fields of an expression of 6 or 7; a missing year is `*`. Raises Invalid."""
    fields = expression.upper().split()
    if len(fields) not in (6, 7):
        _wrong(f"{len(fields)} fields")
    second, minute, hour, day, month, weekday, *year = fields
    return Parts(
        seconds=second,
        minute=minute,
        hour=hour,
        dayofmonth=day,
        month=month,
        weekday=weekday,
        year=year[0] if year else "*",
    )


def normalised(expression: str) -> str:
    """The expression in upper case with its year, checked. Raises Invalid."""
    parse(expression)
    return str(parts(expression))


def check(expression: str, now: datetime, zone: ZoneInfo) -> None:
    """Raises Invalid for what is no expression and for what never happens again."""
    if next_after(expression, now, zone) is None:
        raise Invalid(NEVER)


@dataclass(frozen=True, slots=True)
class Days:
    """Which days of a month are meant: a set of numbers, or a rule (`kind`) with its numbers."""

    kind: str
    numbers: frozenset[int] = frozenset()
    nth: int = 0
    nearest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quartz:
    """An expression that was read; times of day sorted."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: frozenset[int]
    years: frozenset[int] | None


@lru_cache(maxsize=4096)
def parse(expression: str) -> Quartz:
    """Read an expression. Raises Invalid with the text that clients know; its `detail` says what is wrong."""
    fields = parts(expression)
    if (fields.dayofmonth == "?") == (fields.weekday == "?"):
        _wrong("exactly one of day of month and day of week is ?")
    return Quartz(
        seconds=tuple(sorted(_numbers(fields.seconds, 0, 59))),
        minutes=tuple(sorted(_numbers(fields.minute, 0, 59))),
        hours=tuple(sorted(_numbers(fields.hour, 0, 23))),
        days=_weekdays(fields.weekday) if fields.dayofmonth == "?" else _days_of_month(fields.dayofmonth),
        months=_numbers(fields.month, 1, 12, _MONTHS),
        years=None if fields.year == "*" else _numbers(fields.year, _FIRST_YEAR, _LAST_YEAR, wraps=False),
    )


def _wrong(detail: str) -> NoReturn:
    raise Invalid(WRONG, detail=detail)


def _numbers(
    field: str, low: int, high: int, names: dict[str, int] | None = None, *, wraps: bool = True
) -> frozenset[int]:
    found: set[int] = set()
    for item in field.split(","):
        found |= _item(item, low, high, names or {}, wraps=wraps)
    return frozenset(found)


def _item(item: str, low: int, high: int, names: dict[str, int], *, wraps: bool) -> set[int]:
    match = _ITEM.fullmatch(item)
    if not match or not item:
        _wrong(f"'{item}'")
    star, first, last, every = match.groups()
    step = int(every) if every else 1
    if not 1 <= step <= max(high, 1):
        _wrong(f"the step of '{item}'")
    if star or not first:
        return set(range(low, high + 1, step))
    begin = _number(first, low, high, names)
    if last is None:
        return set(range(begin, high + 1, step)) if every else {begin}
    end = _number(last, low, high, names)
    if end >= begin:
        return set(range(begin, end + 1, step))
    if not wraps:
        _wrong(f"'{item}' goes backwards")
    size = high - low + 1
    return {low + (number - low) % size for number in range(begin, end + size + 1, step)}


def _number(text: str, low: int, high: int, names: dict[str, int]) -> int:
    number = names.get(text, -1) if text.isalpha() else int(text)
    if not low <= number <= high:
        _wrong(f"'{text}'")
    return number


def _days_of_month(field: str) -> Days:
    if match := _LAST_DAY.fullmatch(field):
        before = int(match[1] or 0)
        if before > 30:
            _wrong(f"'{field}'")
        return Days("last", nth=before, nearest=bool(match[2]))
    if match := _NEAREST.fullmatch(field):
        return Days("day", numbers=frozenset({_number(match[1], 1, 31, {})}), nearest=True)
    return Days("day", numbers=_numbers(field, 1, 31))


def _weekdays(field: str) -> Days:
    if field == "L":
        return Days("weekday", numbers=frozenset({7}))
    if match := _WEEKDAY_LAST.fullmatch(field):
        return Days("last weekday", numbers=frozenset({_number(match[1], 1, 7, _WEEKDAYS)}))
    if match := _WEEKDAY_NTH.fullmatch(field):
        nth = _number(match[2], 1, 5, {})
        return Days("weekday", numbers=frozenset({_number(match[1], 1, 7, _WEEKDAYS)}), nth=nth)
    return Days("weekday", numbers=_numbers(field, 1, 7, _WEEKDAYS))


def _days_in(days: Days, year: int, month: int) -> list[int]:
    first_weekday, length = calendar.monthrange(year, month)  # Monday is 0
    if days.kind == "last":
        numbers = [length - days.nth] if length > days.nth else []
    elif days.kind == "day":
        numbers = [number for number in sorted(days.numbers) if number <= length]
    else:
        numbers = [day for day in range(1, length + 1) if (first_weekday + day) % 7 + 1 in days.numbers]
        if days.kind == "last weekday":
            numbers = numbers[-1:]
        elif days.nth:
            numbers = numbers[days.nth - 1 : days.nth]
    if days.nearest:
        numbers = [_working_day(number, (first_weekday + number - 1) % 7, length) for number in numbers]
    return numbers


def _working_day(day: int, weekday: int, length: int) -> int:
    """The nearest day from Monday to Friday in the same month; `weekday` counts from Monday as 0."""
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


def next_after(expression: str, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """The first instant after `moment` (aware) at which the expression happens in the zone, in UTC; None if never."""
    quartz = parse(expression)
    moment = moment.astimezone(UTC)
    here = moment.astimezone(zone)
    local = here.replace(tzinfo=None, fold=0, microsecond=0)
    if len(quartz.hours) == 24:
        return _by_elapsed_time(quartz, local, here.fold, zone)
    for one in _local_times(quartz, local):
        instant = _instant(one, zone)
        if instant > moment:
            return instant
    return None


def _by_elapsed_time(quartz: Quartz, local: datetime, fold: int, zone: ZoneInfo) -> datetime | None:
    """For every hour: gaps are left out, and both passes of a repeated hour are served."""
    repeated = _shift(local, zone)
    for one in _local_times(quartz, local):
        shift = _shift(one, zone)
        if shift < timedelta():
            continue
        if repeated > timedelta() and not fold and shift == timedelta():
            again = next((time for time in _local_times(quartz, local - repeated) if _shift(time, zone)), None)
            if again is not None and again < one:
                return again.replace(tzinfo=zone, fold=1).astimezone(UTC)
        return one.replace(tzinfo=zone, fold=fold if shift and repeated else 0).astimezone(UTC)
    return None


def _shift(local: datetime, zone: ZoneInfo) -> timedelta:
    """By how much a clock goes back over this local time: positive where it happens twice, negative in a gap."""
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return first - second


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The (first) instant of a local time; for one in a gap the first instant after the gap."""
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    if _shift(local, zone) >= timedelta():
        return instant
    early = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    offset = instant.astimezone(zone).utcoffset()
    while instant - early > _SECOND:
        middle = early + timedelta(seconds=(instant - early) // _SECOND // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            instant = middle
        else:
            early = middle
    return instant


def _local_times(quartz: Quartz, after: datetime) -> Iterator[datetime]:
    """Every local time of the expression later than `after`, in order; for a hundred years."""
    for year in range(after.year, min(after.year + _MOST_YEARS, _LAST_YEAR) + 1):
        if quartz.years is not None and year not in quartz.years:
            continue
        for month in sorted(quartz.months):
            if (year, month) < (after.year, after.month):
                continue
            for day in _days_in(quartz.days, year, month):
                yield from _times_of_day(quartz, datetime(year, month, day), after)  # noqa: DTZ001  # local


def _times_of_day(quartz: Quartz, day: datetime, after: datetime) -> Iterator[datetime]:
    if day.date() < after.date():
        return
    for hour in quartz.hours:
        for minute in quartz.minutes:
            if day.replace(hour=hour, minute=minute, second=59) <= after:
                continue
            for second in quartz.seconds:
                time = day.replace(hour=hour, minute=minute, second=second)
                if time > after:
                    yield time
