# SPDX-License-Identifier: Apache-2.0
"""Quartz expressions: golden tables, days of the clock's change, and a slow reading to compare with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.core import schedules
from quarterdeck.core.errors import Invalid

NIL = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Naive moments from the beginning of a year to the end of another."""
    return st.datetimes(datetime(first, 1, 1), datetime(last, 12, 31))  # noqa: DTZ001  # the strategy wants naive ones


def times(expression: str, after: str, count: int, zone: ZoneInfo = NIL) -> list[str]:
    """The next local times, with their offset where the zone is not UTC."""
    moment = datetime.fromisoformat(after)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    found = []
    for _ in range(count):
        following = schedules.next_after(expression, moment, zone)
        if following is None:
            break
        moment = following
        local = moment.astimezone(zone)
        found.append(local.strftime("%Y-%m-%d %H:%M:%S") if zone is NIL else local.isoformat(" ", "minutes"))
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 12 * * ?", "2026-01-01 12:00:00", ["2026-01-02 12:00:00"]),
        ("0 15 10 ? * *", "2026-01-01", ["2026-01-01 10:15:00", "2026-01-02 10:15:00"]),
        ("0 15 10 * * ? 2027", "2026-01-01", ["2027-01-01 10:15:00"]),
        ("0 15 10 * * ? 2025", "2026-01-01", []),
        ("0 0/5 14,18 * * ?", "2026-01-01 14:54:59", ["2026-01-01 14:55:00", "2026-01-01 18:00:00"]),
        ("0 0-5 14 * * ?", "2026-01-01 14:05:00", ["2026-01-02 14:00:00"]),
        ("0 10,44 14 ? 3 WED", "2026-01-01", ["2026-03-04 14:10:00", "2026-03-04 14:44:00"]),
        ("0 15 10 ? * MON-FRI", "2026-01-02 11:00:00", ["2026-01-05 10:15:00"]),
        ("0 0 0 ? * 1", "2026-01-01", ["2026-01-04 00:00:00"]),  # 1 is Sunday
        ("0 0 0 ? * 1-5", "2026-01-01 01:00:00", ["2026-01-04 00:00:00", "2026-01-05 00:00:00"]),
        ("0 0 0 ? * FRI-MON", "2026-01-05 01:00:00", ["2026-01-09 00:00:00", "2026-01-10 00:00:00"]),
        ("0 0 0 ? * 6-2", "2026-01-05 01:00:00", ["2026-01-09 00:00:00", "2026-01-10 00:00:00"]),
        ("0 0 0 ? * */2", "2026-01-04 01:00:00", ["2026-01-06 00:00:00", "2026-01-08 00:00:00"]),
        ("0 15 10 15 * ?", "2026-01-15 10:15:00", ["2026-02-15 10:15:00"]),
        ("0 15 10 L * ?", "2026-01-31 10:15:00", ["2026-02-28 10:15:00", "2026-03-31 10:15:00"]),
        ("0 0 0 L 2 ?", "2026-03-01", ["2027-02-28 00:00:00", "2028-02-29 00:00:00"]),
        ("0 0 0 L-3 * ?", "2026-02-01", ["2026-02-25 00:00:00", "2026-03-28 00:00:00"]),
        ("0 0 0 LW * ?", "2026-01-01", ["2026-01-30 00:00:00", "2026-02-27 00:00:00", "2026-03-31 00:00:00"]),
        ("0 0 0 15W * ?", "2026-01-01", ["2026-01-15 00:00:00", "2026-02-16 00:00:00", "2026-03-16 00:00:00"]),
        ("0 0 0 1W * ?", "2026-01-02", ["2026-02-02 00:00:00", "2026-03-02 00:00:00", "2026-04-01 00:00:00"]),
        ("0 0 0 1W 8 ?", "2026-01-02", ["2026-08-03 00:00:00"]),  # the 1st is a Saturday
        ("0 0 0 31W 5 ?", "2026-01-02", ["2026-05-29 00:00:00"]),  # the 31st is a Sunday
        ("0 0 0 31W * ?", "2026-03-31 01:00:00", ["2026-05-29 00:00:00"]),
        ("0 15 10 ? * 6L", "2026-01-01", ["2026-01-30 10:15:00", "2026-02-27 10:15:00"]),
        ("0 15 10 ? * FRIL", "2026-01-01", ["2026-01-30 10:15:00"]),
        ("0 15 10 ? * 6L 2027-2028", "2026-01-01", ["2027-01-29 10:15:00"]),
        ("0 15 10 ? * 6#3", "2026-01-01", ["2026-01-16 10:15:00", "2026-02-20 10:15:00"]),
        ("0 0 0 ? * 2#5", "2026-01-01", ["2026-03-30 00:00:00", "2026-06-29 00:00:00"]),  # months without are left out
        ("0 0 0 ? * L", "2026-01-01", ["2026-01-03 00:00:00", "2026-01-10 00:00:00"]),  # Saturday
        ("0 0 12 1/5 * ?", "2026-01-30", ["2026-01-31 12:00:00", "2026-02-01 12:00:00"]),
        ("0 11 11 11 11 ?", "2026-11-11 11:11:00", ["2027-11-11 11:11:00"]),
        ("0 0 0 31 * ?", "2026-02-01", ["2026-03-31 00:00:00", "2026-05-31 00:00:00"]),
        ("0 0 0 29 2 ?", "2026-01-01", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 0 30 2 ?", "2026-01-01", []),
        (
            "0 0 22-2 * * ?",
            "2026-01-01 01:30:00",
            ["2026-01-01 02:00:00", "2026-01-01 22:00:00", "2026-01-01 23:00:00"],
        ),
        ("0 0 0 1 NOV-FEB ?", "2026-02-02", ["2026-11-01 00:00:00", "2026-12-01 00:00:00", "2027-01-01 00:00:00"]),
        ("0 50-10/10 0 * * ?", "2026-01-01", ["2026-01-01 00:10:00", "2026-01-01 00:50:00", "2026-01-02 00:00:00"]),
        ("*/20 * * * * ?", "2026-01-01 00:00:50", ["2026-01-01 00:01:00", "2026-01-01 00:01:20"]),
        ("/30 0 0 * * ?", "2026-01-01", ["2026-01-01 00:00:30"]),
        ("0 0 0 ? jan mon", "2026-01-01", ["2026-01-05 00:00:00"]),
        ("0 0 0 1 1 ? 2026/2", "2026-01-01", ["2028-01-01 00:00:00"]),
    ],
)
def test_the_next_moments(expression: str, after: str, expected: list[str]) -> None:
    assert times(expression, after, max(len(expected), 1)) == expected


@pytest.mark.parametrize(
    "expression",
    [
        *("", "0", "0 0 0 * *", "0 0 0 * * ? * *", "a b c d e f", "0 0 0 0 * ?", "0 0 0 32 * ?", "60 0 0 * * ?"),
        *("0 60 0 * * ?", "0 0 24 * * ?", "0 0 0 * 13 ?", "0 0 0 * 0 ?", "0 0 0 ? * 8", "0 0 0 ? * 0", "-1 0 0 * * ?"),
        *(
            "0 0 0 ? * ?",
            "0 0 0 * * *",
            "0 0 0 1 * MON",
            "? 0 0 * * ?",
            "0 0 0 ? * 6#6",
            "0 0 0 ? * 6#0",
            "0 0 0 W * ?",
        ),
        *("0 0 0 L,5 * ?", "0 0 0 1W,5 * ?", "0 0 0 ? * 6#3,2", "0 0 0 L-31 * ?", "0 0 0 ? XXX MON", "0 0 0 ? * MOND"),
        *(
            "0 */60 * * * ?",
            "0 */0 * * * ?",
            "0 1-2-3 * * * ?",
            "0 1, * * * ?",
            "0 , * * * ?",
            "0 / * * * ?",
            "0 *-5 * * * ?",
        ),
        *(
            "0 0 0 * * ? 1969",
            "0 0 0 * * ? 2200",
            "0 0 0 * * ? 2030-2020",
            "0 0 0 MON * ?",
            "0 0 0 ? * JAN",
            "0 0 ٣ * * ?",
        ),
    ],
)
def test_what_is_no_expression_is_told_in_the_words_clients_know(expression: str) -> None:
    with pytest.raises(Invalid) as told:
        schedules.parse(expression)

    assert told.value.message == "Crontab string format was invalid"


def test_an_expression_that_never_happens_again_is_told() -> None:
    for expression in ("0 0 0 30 2 ?", "0 0 0 1 1 ? 2026"):
        with pytest.raises(Invalid, match=r"^The Cron expression will never be triggered in the future$"):
            schedules.check(expression, datetime(2026, 1, 1, tzinfo=UTC), NIL)
    schedules.check("0 0 0 1 1 ? 2027", datetime(2026, 1, 1, tzinfo=UTC), NIL)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00
        ("0 30 2 * * ?", "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
        ("0 0,15,30 2 * * ?", "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:00+02:00"]),
        ("0 30 2,3 * * ?", "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00"]),
        ("0 30 * * * ?", "2026-03-29 00:45", ["2026-03-29 01:30+01:00", "2026-03-29 03:30+02:00"]),
        # 2026-10-25: 03:00 becomes 02:00
        ("0 30 2 * * ?", "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
        ("0 30 2 * * ?", "2026-10-25T02:10:00+01:00", ["2026-10-26 02:30+01:00"]),
        (
            "0 */30 2 * * ?",
            "2026-10-25 01:00",
            ["2026-10-25 02:00+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:00+01:00"],
        ),
        (
            "0 */30 * * * ?",
            "2026-10-25 01:45",
            [
                *("2026-10-25 02:00+02:00", "2026-10-25 02:30+02:00"),
                *("2026-10-25 02:00+01:00", "2026-10-25 02:30+01:00", "2026-10-25 03:00+01:00"),
            ],
        ),
    ],
)
def test_days_of_the_clocks_change(expression: str, after: str, expected: list[str]) -> None:
    assert times(expression, after, len(expected), BERLIN) == expected


def test_a_day_that_a_zone_left_out_is_made_up_for_at_its_end() -> None:
    assert times("0 0 12 30 12 ?", "2011-12-01", 1, ZoneInfo("Pacific/Apia")) == ["2011-12-31 00:00+14:00"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
@settings(max_examples=40, deadline=None)
@given(
    minute=st.sampled_from(["0", "*/7", "30", "5-50/15"]),
    hour=st.sampled_from(["*", "2", "1-3", "*/4", "22-3"]),
    start=moments(2026, 2027),
)
def test_moments_only_go_forward_and_none_is_served_twice(zone: str, minute: str, hour: str, start: datetime) -> None:
    here = ZoneInfo(zone)
    moment = start.replace(tzinfo=UTC)
    for _ in range(20):
        following = schedules.next_after(f"0 {minute} {hour} * * ?", moment, here)
        assert following is not None
        assert moment < following <= moment + timedelta(hours=26)
        # Asking from any time in between gives the same answer.
        assert schedules.next_after(f"0 {minute} {hour} * * ?", moment + (following - moment) / 2, here) == following
        moment = following


FIELD = st.one_of(
    st.just(("*", frozenset(range(60)))),
    st.integers(0, 59).map(lambda number: (str(number), frozenset({number}))),
    st.tuples(st.integers(0, 59), st.integers(1, 59)).map(
        lambda pair: (f"{pair[0]}/{pair[1]}", frozenset(range(pair[0], 60, pair[1]))),
    ),
    st.tuples(st.integers(0, 59), st.integers(0, 59)).map(
        lambda pair: (
            f"{pair[0]}-{pair[1]}",
            frozenset(range(pair[0], pair[1] + 1))
            if pair[0] <= pair[1]
            else frozenset(range(pair[0], 60)) | frozenset(range(pair[1] + 1)),
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(second=FIELD, minute=FIELD, start=moments(2026, 2027))
def test_no_moment_is_left_out(
    second: tuple[str, frozenset[int]],
    minute: tuple[str, frozenset[int]],
    start: datetime,
) -> None:
    slow = start.replace(microsecond=0, tzinfo=UTC) + timedelta(seconds=1)
    while slow.second not in second[1] or slow.minute not in minute[1]:
        slow += timedelta(seconds=1)

    assert schedules.next_after(f"{second[0]} {minute[0]} * * * ?", start.replace(tzinfo=UTC), NIL) == slow


@settings(max_examples=60, deadline=None)
@given(
    weekday=st.integers(1, 7),
    nth=st.integers(1, 5),
    start=moments(2026, 2030),
)
def test_the_nth_weekday_is_the_one_that_the_calendar_says(weekday: int, nth: int, start: datetime) -> None:
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while not (day > start and day.isoweekday() % 7 + 1 == weekday and (day.day - 1) // 7 + 1 == nth):
        day += timedelta(days=1)

    found = schedules.next_after(f"0 0 0 ? * {weekday}#{nth}", start.replace(tzinfo=UTC), NIL)

    assert found == day.replace(tzinfo=UTC)


def test_parts_become_an_expression_and_come_back() -> None:
    assert schedules.from_parts() == "0 0 0 ? * * *"
    assert schedules.from_parts(hour="06", minute="30", weekday="mon-fri") == "0 30 06 ? * MON-FRI *"
    assert schedules.from_parts(dayofmonth="15", weekday="MON") == "0 0 0 15 * ? *"
    assert schedules.normalised("0 0 0 l * ?") == "0 0 0 L * ? *"
    found = schedules.parts("1 2 3 ? jan sun 2030")
    assert (found.seconds, found.minute, found.hour, found.dayofmonth) == ("1", "2", "3", "?")
    assert (found.month, found.weekday, found.year) == ("JAN", "SUN", "2030")
    assert str(found) == "1 2 3 ? JAN SUN 2030"
