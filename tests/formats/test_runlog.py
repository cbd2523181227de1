# SPDX-License-Identifier: Apache-2.0
"""Run logs: their grammar by example, and that whatever stands in one costs no more than its own line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.common import run_logs

from quarterdeck.formats import runlog
from quarterdeck.formats.runlog import Event

T = [f"2026-01-01T00:00:0{second}+00:00" for second in range(10)]
WORKED = f"""{T[1]} R: @@Common@@control@@rudder@@run@@0@@start@@20260101-000000-abcdef01@@2026-01-01 00:00:00+00:00##n1@#Start execution
{T[2]} rudder     info: wrote file
{T[2]} second line of the info
{T[3]} R: @@Ntp@@result_repaired@@rule-1@@dir-1@@@@Package@@@@2026-01-01 00:00:00+00:00##n1@#Installed
{T[3]} with details
{T[4]} R: @@Common@@control@@rudder@@run@@0@@end@@20260101-000000-abcdef01@@2026-01-01 00:00:00+00:00##n1@#End execution
{T[5]}    error: too late
"""
GOOD = run_logs.report(node="n1", message="good")


def table(text: str) -> list[tuple[str, ...]]:
    """What the golden tables of the format show of each event."""
    return [
        (
            one.at.isoformat(),
            one.kind,
            f"{one.policy}/{one.rule}/{one.directive}",
            one.report_id,
            one.component,
            one.key,
            one.message,
        )
        for one in runlog.parse(text).events
    ]


def messages(text: str) -> list[str]:
    return [one.message for one in runlog.parse(text).events]


def test_the_worked_example_gives_its_table() -> None:
    config, installed = "20260101-000000-abcdef01", ("Ntp/rule-1/dir-1", "0", "Package", "None")

    assert table(WORKED) == [
        (T[1], "control", "Common/rudder/run", "0", "start", config, "Start execution"),
        (T[2], "log_info", *installed, "wrote file\nsecond line of the info"),
        (T[3], "result_repaired", *installed, "Installed\nwith details"),
        (T[4], "control", "Common/rudder/run", "0", "end", config, "End execution"),
    ]
    found = runlog.parse(WORKED)
    assert found.nodes == {"n1"}
    assert {one.start.isoformat() for one in found.events} == {T[0]}
    assert (found.config_id, found.complete, found.skipped) == (config, True, 0)


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_statement_45_every_line_end_reads_alike(line_end: str) -> None:
    assert table(WORKED.replace("\n", line_end)) == table(WORKED)


def test_statement_45_bytes_that_are_not_text_survive_as_a_sign_that_something_was_there() -> None:
    data = GOOD.encode().replace(b"good", b"go\xe9\xff\0d")

    [event] = runlog.decode(data).events

    assert event.message == "go\ufffd\ufffd\ufffdd"


def test_statement_44_a_usual_log_of_74_lines_has_72_reports() -> None:
    text = run_logs.usual("n1")

    found = runlog.parse(text)

    assert (text.count("\n"), len(found.events), found.skipped) == (74, 72, 0)
    assert [one.kind for one in found.events if one.kind.startswith("log_")] == ["log_info", "log_warn"]


@pytest.mark.parametrize(
    ("change", "complete", "config_id"),
    [
        ((), True, run_logs.CONFIG_ID),
        (("start",), False, run_logs.CONFIG_ID),
        (("end",), True, run_logs.CONFIG_ID),
        (("start", "end"), False, None),
    ],
)
def test_statement_49_marks_decide_whether_a_run_is_whole(
    change: tuple[str, ...], *, complete: bool, config_id: str | None
) -> None:
    lines = run_logs.run(GOOD, node="n1").splitlines(keepends=True)
    text = "".join(line for line in lines if not any(f"@@{mark}@@" in line for mark in change))

    found = runlog.parse(text)

    assert (found.complete, found.config_id) == (complete, config_id)


def test_statement_50_component_key_and_message_may_have_several_lines() -> None:
    head = f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@"
    tail = "2026-01-01 00:00:00 +0000##n1@#not there"
    text = f"{head}two\n{T[1]} lines@@a\n\n{T[2]} b@ c\n{T[2]} d@@{tail}\n{T[2]}\n{T[2]} \nmore\n\n{GOOD}"

    first, second = runlog.parse(text).events

    assert (first.component, first.key, first.start.isoformat()) == ("two\nlines", "a\n\nb@ c\nd", T[0])
    assert first.message == f"not there\n{T[2]}\n\nmore\n"
    assert second.message == "good"


def test_statement_50_what_is_empty_has_a_name() -> None:
    [event] = runlog.parse(run_logs.report(node="n1", key="", report_id="")).events

    assert (event.key, event.report_id) == ("None", "0")


@pytest.mark.parametrize(
    ("start", "read"),
    [
        ("2026-01-01 00:00:00+00:00", T[0]),
        ("2026-01-01 00:00:00+0000", T[0]),
        ("2026-01-01 00:00:00 +00:00", T[0]),
        ("2026-01-01 02:00:00+02:00", T[0]),
        ("2025-12-31 18:30:00 -0530", T[0]),
    ],
)
def test_starts_are_read_in_every_spelling(start: str, read: str) -> None:
    line = f"{T[1]} R: @@P@@result_na@@r@@d@@0@@c@@k@@{start}##n1@#m"

    [event] = runlog.parse(line).events

    assert event.start.isoformat() == read


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        *((tag, "log_warn") for tag in ("CRITICAL", "   error", " warning", "rudder CRITICAL", "rudder    error")),
        *((tag, "log_warn") for tag in ("rudder  warning", "R: [FATAL]", "R: [ERROR]", "R: WARNING", "R: DEBUG")),
        *((tag, "log_info") for tag in ("  notice", "    info", "rudder   notice", "rudder     info", "R: [INFO]")),
        ("R:", "log_info"),
        *((tag, "log_debug") for tag in (" verbose", "   debug", "R: [DEBUG]")),
    ],
)
@pytest.mark.parametrize("colon", [":", ": ", " ", ":  \t"])
def test_statement_51_log_entries_take_the_place_of_the_report_after_them(tag: str, kind: str, colon: str) -> None:
    first, second = runlog.parse(f"{T[1]} {tag}{colon}told\n{GOOD}").events

    assert (first.kind, first.message, first.at.isoformat()) == (kind, "told", T[1])
    assert first == second._replace(at=first.at, kind=kind, message="told")


@pytest.mark.parametrize("tag", ["  error", "    error", "error", "warning", "info", "verbose", "rudder info", "R;"])
def test_statement_51_only_exact_levels_are_levels(tag: str) -> None:
    found = runlog.parse(f"{T[1]} {tag}: told\n{GOOD}")

    assert (len(found.events), found.skipped) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        "no time at all",
        "2026-13-45T00:00:00+00:00 R: @@a month that is none",
        f"{T[1]} stray",
        f"{T[1]} R: @@",
        f"{T[1]} R: @@too@@few",
        f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key",
        f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key@@2026-01-01 00:00:00+00:00 n1 no marks",
        f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key@@2026-99-01 00:00:00+00:00##n1@#m",
        f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key@@##n1@#m",
        f"{GOOD.split()[0]}",
        "R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key@@2026-01-01 00:00:00+00:00##n1@#no time",
    ],
)
def test_statement_52_a_bad_line_costs_itself_only(bad: str) -> None:
    found = runlog.parse(f"{bad}\n{GOOD}{bad}\n{T[3]} R: [INFO] told\n{GOOD}")

    kept = [one.message.partition("\n")[0] for one in found.events]
    assert kept == ["good", "told", "good"]
    assert found.skipped >= 1


def test_statement_52_the_mark_of_a_run_is_not_swallowed_by_a_stray_line_before_it() -> None:
    found = runlog.parse(f"{T[0]} stray\n{WORKED}")

    assert found.complete
    assert len(found.events) == 4


def test_lines_after_a_bad_report_are_not_swallowed_with_it() -> None:
    bad = f"{T[1]} R: @@Files@@result_error@@rule-1@@dir-1@@id@@component@@key\n"

    assert messages(f"{bad}{T[2]} R: [INFO] kept\n{GOOD}") == ["kept", "good"]


def test_log_entries_wait_for_the_next_good_report() -> None:
    assert messages(f"{T[1]} R: [INFO] kept\n{T[1]} R: @@bad\n{GOOD}") == ["kept", "good"]


# -- whatever comes ---------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        T[1],
        " ",
        "R: @@",
        "@@",
        "##",
        "@#",
        "\n",
        "\r",
        "\r\n",
        "   error: ",
        "R: ",
        "rudder     info",
        "control",
        "é",
        "2026-01-01 00:00:00+00:00##n1@#",
        f"\n{T[2]} R: @@P@@t@@r@@d@@i@@c@@k@@",
        "\x00",
        "start",
        "x",
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
def test_no_text_is_too_odd(text: str) -> None:
    found = runlog.parse(text)

    assert found.skipped <= text.count("\n") + text.count("\r") + 1


@given(st.binary())
def test_no_bytes_are_too_odd(data: bytes) -> None:
    runlog.decode(data)


@given(st.lists(_PIECES).map("".join))
def test_what_stands_before_and_behind_odd_text_is_kept(odd: str) -> None:
    found = runlog.parse(f"{GOOD}{odd}\n{GOOD}")

    assert isinstance(found.events[0], Event)
    assert found.events[0].message.startswith("good")
    assert found.events[-1].message == "good"


_HEAD = f"{T[1]} R: @@P@@result_na@@r@@d@@i@@"


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        "\n",
        f"{T[1]}\n",
        f"{T[1]} stray\n",
        f"{T[1]} R: [INFO] a\n",
        f"{_HEAD}c@@key\n",
        f"{_HEAD}c@@k@@2026-01-01 00:00:00+00:00##n1@\n",
        f"{T[1]} @@\n",
    ],
)
@pytest.mark.parametrize("before", ["", GOOD, f"{_HEAD}c", f"{T[1]} R: [INFO] a\n"])
def test_time_grows_as_the_text_does(before: str, line: str) -> None:
    def seconds(times: int) -> float:
        text = before + line * times
        begin = time.process_time()
        runlog.parse(text)
        return time.process_time() - begin

    seconds(100)

    assert seconds(40_000) < 40 * max(seconds(4_000), 0.005)
