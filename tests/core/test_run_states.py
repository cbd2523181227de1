# SPDX-License-Identifier: Apache-2.0
"""What a node's last run is worth at a moment, and what that makes of its values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from quarterdeck.core import compliance, run_states
from quarterdeck.core.compliance import Status
from quarterdeck.core.compliance_trees import DirectiveStatus
from quarterdeck.core.expected_reports import ExpectedComponent, ExpectedDirective, Matching, ReceivedReport, Reporting
from quarterdeck.core.ids import DirectiveId, RuleId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.run_states import Configuration, LastRun, Rhythm, RunState, Standing

START = datetime(2026, 1, 1, tzinfo=UTC)
PRESENT = "present"


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def run(minutes: float, config_id: str = PRESENT, *, known: bool = True) -> LastRun:
    return LastRun(at=at(minutes), config_id=config_id, known=known)


#: (now in minutes, configuration begin or None, last run, interval, heartbeat, reporting, state, valid until)
CASES: list[tuple[float, float | None, LastRun | None, int, int, str, str, float | None]] = [
    (0, None, None, 5, 1, "full-compliance", "new", None),
    (0, None, run(0), 5, 1, "full-compliance", "no-expected-report", None),
    (9.9, 0, None, 5, 1, "full-compliance", "pending", 10),
    (10, 0, None, 5, 1, "full-compliance", "no-report", None),
    (9.9, 0, run(-1, "old"), 5, 1, "full-compliance", "pending", 10),
    (10, 0, run(-1, "old"), 5, 1, "full-compliance", "no-report", None),
    (11, 0, run(8, "old"), 5, 1, "full-compliance", "unexpected-version", 18),
    (11, 0, run(8, ""), 5, 1, "full-compliance", "unknown-version", 18),
    (11, 0, run(8, "other", known=False), 5, 1, "full-compliance", "unknown-version", 18),
    (1, 0, run(1), 5, 1, "full-compliance", "compute", 11),
    (10.9, 0, run(1), 5, 1, "full-compliance", "compute", 11),
    (11, 0, run(1), 5, 1, "full-compliance", "no-report", None),
    (11, 0, run(1), 5, 4, "changes-only", "compute", 26),
    (26, 0, run(1), 5, 4, "changes-only", "no-report", None),
    (11, 0, run(1), 5, 4, "full-compliance", "no-report", None),
    (60, 0, run(1), 60, 1, "full-compliance", "compute", 66),
    (1, 0, run(1), 5, 1, "reports-disabled", "reports-disabled", None),
    (1, 0, None, 5, 1, "reports-disabled", "reports-disabled", None),
]


@pytest.mark.parametrize(("now", "begin", "last", "interval", "heartbeat", "reporting", "state", "until"), CASES)
def test_the_state_of_a_run(
    now: float,
    begin: float | None,
    last: LastRun | None,
    interval: int,
    heartbeat: int,
    reporting: str,
    state: str,
    until: float | None,
) -> None:
    configuration = None if begin is None else Configuration(id=PRESENT, begin=at(begin))
    rhythm = Rhythm(interval_minutes=interval, heartbeat=heartbeat, reporting=Reporting(reporting))

    standing = run_states.decide(at(now), configuration, last, rhythm)

    assert (standing.state, standing.valid_until) == (state, None if until is None else at(until))


def test_a_configuration_without_user_rules_counts_nothing() -> None:
    configuration = Configuration(id=PRESENT, begin=START, has_rules=False)

    standing = run_states.decide(at(1), configuration, run(0), Rhythm())

    assert standing == Standing(RunState.NO_USER_RULES)
    assert run_states.statuses(standing, [], [], matching=Matching()) == ()


def promise(directive: str, value: str = "v") -> ExpectedDirective:
    return ExpectedDirective(
        RuleId("r"), DirectiveId(directive), PolicyMode.AUDIT, (ExpectedComponent("C", value, f"id-{directive}"),)
    )


REPORTS = [ReceivedReport("r", one, f"id-{one}", "C", "v", "audit_compliant", "") for one in ("a", "b", "gone")]


def shown(statuses: tuple[DirectiveStatus, ...]) -> dict[str, Status]:
    return {one.directive: Status(one.counts.index(1)) for one in statuses}


def test_while_pending_what_did_not_change_keeps_its_result() -> None:
    standing = Standing(RunState.PENDING, at(10))

    statuses = run_states.statuses(
        standing,
        [promise("a"), promise("b", "other"), promise("new")],
        REPORTS,
        matching=Matching(),
        before=[promise("a"), promise("b"), promise("gone")],
    )

    assert shown(statuses) == {"a": Status.AUDIT_COMPLIANT, "b": Status.APPLYING, "new": Status.APPLYING}


def test_while_pending_a_run_that_expired_before_does_not_come_back() -> None:
    standing = run_states.decide(at(500), Configuration(id=PRESENT, begin=at(499)), run(0, "old"), Rhythm())

    statuses = run_states.statuses(
        standing, [promise("a"), promise("new")], REPORTS, matching=Matching(), before=[promise("a")]
    )

    assert standing == Standing(RunState.PENDING, at(509), run_expired=True)
    assert shown(statuses) == {"a": Status.NO_REPORT, "new": Status.APPLYING}


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (RunState.NEW, {}),
        (RunState.NO_REPORT, {Status.NO_REPORT: 2}),
        (RunState.REPORTS_DISABLED, {Status.REPORTS_DISABLED: 2}),
        (RunState.COMPUTE, {Status.AUDIT_COMPLIANT: 1, Status.MISSING: 1, Status.UNEXPECTED: 2}),
        (RunState.UNEXPECTED_VERSION, {Status.MISSING: 2, Status.UNEXPECTED: 3}),
        (RunState.UNKNOWN_VERSION, {Status.MISSING: 2, Status.UNEXPECTED: 3}),
        (RunState.NO_EXPECTED_REPORT, {Status.MISSING: 2, Status.UNEXPECTED: 3}),
    ],
)
def test_a_state_decides_what_values_are(state: RunState, counts: dict[Status, int]) -> None:
    statuses = run_states.statuses(Standing(state), [promise("a"), promise("new")], REPORTS, matching=Matching())

    level = compliance.total(one.counts for one in statuses)
    assert {status: level[status] for status in Status if level[status]} == counts
