# SPDX-License-Identifier: Apache-2.0
"""Times on the wire, and what lies so many months back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies

from quarterdeck.core.errors import Invalid
from quarterdeck.dialects.rundeck import dates, history


def test_times_are_written_in_utc_without_a_fraction() -> None:
    when = datetime(2011, 3, 13, 1, 30, 59, 999_999, tzinfo=timezone(timedelta(hours=-8)))

    assert dates.written(when) == "2011-03-13T09:30:59Z"
    assert dates.milliseconds(when) == 1_300_008_659_999


@given(strategies.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001  # UTC below
def test_both_forms_are_read_back(naive: datetime) -> None:
    when = naive.replace(tzinfo=UTC)

    assert dates.read(dates.written(when)) == when.replace(microsecond=0)
    assert dates.read(str(dates.milliseconds(when))) == when.replace(microsecond=when.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "1.5", "yesterday", "2011-13-01T00:00:00Z", "2011-02-30T00:00:00Z", "2011-01-01T24:00:00Z"),
        *("2011-01-01T00:00:00", "2011-01-01T00:00:00+01:00", "2011-01-01T00:00:00Zx", "2011-01-01", "999999999999999"),
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(Invalid):
        dates.read(text)


@pytest.mark.parametrize(
    ("count", "unit", "expected"),
    [
        (5, "h", datetime(2026, 3, 31, 7, tzinfo=UTC)),
        (1, "d", datetime(2026, 3, 30, 12, tzinfo=UTC)),
        (2, "w", datetime(2026, 3, 17, 12, tzinfo=UTC)),
        (1, "m", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        (25, "m", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (3, "m", datetime(2025, 12, 31, 12, tzinfo=UTC)),
        (2, "y", datetime(2024, 3, 31, 12, tzinfo=UTC)),
        (999_999, "y", None),
        (999_999, "w", None),
    ],
)
def test_recent_is_counted_by_the_calendar(count: int, unit: str, expected: datetime | None) -> None:
    assert history._before(datetime(2026, 3, 31, 12, tzinfo=UTC), count, unit) == expected
