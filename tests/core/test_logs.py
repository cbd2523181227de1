# SPDX-License-Identifier: Apache-2.0
"""Entries of output: which are kept, and their lines."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from quarterdeck.core import logs
from quarterdeck.core.logs import LogEntry


def entry(text: bytes) -> LogEntry:
    return LogEntry(datetime(2026, 11, 27, tzinfo=UTC), "INFO", "web1", "1", "alice", text)


@pytest.mark.parametrize(
    ("level", "loglevel", "expected"),
    [
        ("INFO", "INFO", True),
        ("INFO", "DEBUG", True),
        ("INFO", "WARN", False),
        ("VERBOSE", "INFO", False),
        ("WARN", "ERR", False),
        ("ERR", "ERR", True),
    ],
)
def test_what_is_below_the_level_of_the_execution_is_not_kept(level: str, loglevel: str, expected: bool) -> None:
    assert logs.kept(level, loglevel) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"one\n", [b"one\n"]),
        (b"one\ntwo\n", [b"one\n", b"two\n"]),
        (b"one\ntwo", [b"one\n", b"two"]),
        (b"one", [b"one"]),
        (b"\n\n", [b"\n", b"\n"]),
        (b"a\r\nb\rc\n", [b"a\r\n", b"b\rc\n"]),
        (b"\x85\x0c\x1c\n\xff\x00", [b"\x85\x0c\x1c\n", b"\xff\x00"]),
    ],
)
def test_only_line_feeds_end_lines(text: bytes, expected: list[bytes]) -> None:
    found = list(logs.lines(entry(text)))

    assert [one.text for one in found] == expected
    assert {(one.time, one.level, one.node, one.step, one.user) for one in found} == {
        (datetime(2026, 11, 27, tzinfo=UTC), "INFO", "web1", "1", "alice")
    }
    assert logs.count_lines(text) == len(expected)


def test_an_empty_text_has_no_lines_to_count() -> None:
    assert logs.count_lines(b"") == 0


def test_a_border_lies_behind_the_last_line_that_fits() -> None:
    text = b"one\ntwo\nthree\n"

    assert [logs.line_border(text, most) for most in (3, 4, 7, 8, 100)] == [0, 4, 4, 8, 14]
