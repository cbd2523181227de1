# SPDX-License-Identifier: Apache-2.0
"""Which step begins where and when, and what a run reads in the end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import executions
from quarterdeck.core.executions import AbortAnswer, Execution, NodeCounts, Outcome, Plan, State, StepState, Unit
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Strategy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def played(plan: Plan, failing: set[str], *, most: int = 10_000) -> list[str]:
    """What begins, in order, as NODE/STEP; the oldest unit ends first; steps in `failing` fail."""
    order: list[str] = []
    queue = plan.next()
    while queue and len(order) < most:
        unit = queue.pop(0)
        name = f"{unit.node}{unit.step}"
        order.append(name)
        queue += plan.next([Outcome(unit, StepState.FAILED if name in failing else StepState.SUCCEEDED)])
    return order


def made(nodes: str = "ab", steps: int = 2, **how: Any) -> Plan:
    return executions.plan(nodes, steps, **how)


@pytest.mark.parametrize(
    ("how", "failing", "begun", "verdict"),
    [
        ({}, "", "a1 a2 b1 b2", State.SUCCEEDED),
        ({"strategy": "step-first"}, "", "a1 b1 a2 b2", State.SUCCEEDED),
        # a failing step ends the node's sequence, a failing node the run
        ({}, "a1", "a1", State.FAILED),
        ({"keepgoing": True}, "a1", "a1 b1 b2", State.FAILED),
        ({"step_keepgoing": True}, "a1", "a1 a2", State.FAILED),
        ({"keepgoing": True, "step_keepgoing": True}, "a1", "a1 a2 b1 b2", State.FAILED),
        # a failing step ends the run unless the sequence goes on
        ({"strategy": "step-first"}, "a1", "a1", State.FAILED),
        ({"strategy": "step-first", "keepgoing": True}, "a1", "a1 b1", State.FAILED),
        ({"strategy": "step-first", "step_keepgoing": True}, "a1", "a1 a2 b2", State.FAILED),
        ({"strategy": "step-first", "keepgoing": True, "step_keepgoing": True}, "a1", "a1 b1 a2 b2", State.FAILED),
        ({"strategy": "step-first", "keepgoing": True}, "b2", "a1 b1 a2 b2", State.FAILED),
    ],
)
def test_what_begins_and_what_it_reads(how: dict[str, Any], failing: str, begun: str, verdict: State) -> None:
    plan = made(**how)

    assert " ".join(played(plan, set(failing.split()))) == begun
    assert plan.verdict() is verdict


def test_as_many_nodes_as_threads_begin_together() -> None:
    plan = made("abcd", 1, threadcount=3)

    first = plan.next()

    assert [unit.node for unit in first] == ["a", "b", "c"]
    assert plan.next() == []
    assert plan.next([Outcome(first[1], StepState.SUCCEEDED)]) == [Unit(1, "d")]


def test_after_a_failure_what_runs_may_end_but_nothing_new_starts() -> None:
    plan = made("abcd", 2, threadcount=2)
    a, b = plan.next()

    assert plan.next([Outcome(a, StepState.FAILED)]) == []
    assert plan.next([Outcome(b, StepState.SUCCEEDED)]) == [Unit(2, "b")]
    assert plan.next([Outcome(Unit(2, "b"), StepState.SUCCEEDED)]) == []
    assert plan.verdict() is State.FAILED
    assert plan.counts == NodeCounts(total=4, failed=1, succeeded=1)
    assert plan.never_begun == [Unit(1, "c"), Unit(1, "d"), Unit(2, "a"), Unit(2, "c"), Unit(2, "d")]


def test_step_first_waits_for_all_nodes_before_the_next_step() -> None:
    plan = made("ab", 2, strategy="step-first", threadcount=5)
    a, b = plan.next()

    assert plan.next([Outcome(b, StepState.SUCCEEDED)]) == []
    assert plan.next([Outcome(a, StepState.SUCCEEDED)]) == [Unit(2, "a"), Unit(2, "b")]


def test_an_abort_begins_nothing_and_waits_for_what_has_begun() -> None:
    plan = made("ab", 2)
    [unit] = plan.next()

    plan.abort()

    assert plan.verdict() is State.RUNNING
    assert plan.next([Outcome(unit, StepState.FAILED)]) == []
    assert plan.verdict() is State.ABORTED


def test_an_abort_that_came_too_late_reads_succeeded() -> None:
    plan = made("a", 1)
    [unit] = plan.next()

    plan.abort()
    plan.next([Outcome(unit, StepState.SUCCEEDED)])

    assert plan.verdict() is State.SUCCEEDED


@pytest.mark.parametrize(("nodes", "steps"), [("", 1), ("a", 0)])
def test_a_run_without_nodes_or_steps_fails(nodes: str, steps: int) -> None:
    plan = made(nodes, steps)

    assert plan.next() == []
    assert plan.verdict() is State.FAILED


@pytest.mark.parametrize(
    ("how", "next_units"),
    [
        ({"keepgoing": True}, "c1"),
        ({}, ""),
        ({"keepgoing": True, "step_keepgoing": True}, "b2"),
        ({"strategy": "step-first", "keepgoing": True}, "c1"),
    ],
)
def test_a_new_owner_goes_on_where_the_rules_allow_and_repeats_nothing(how: dict[str, Any], next_units: str) -> None:
    plan = made("abc", 2, **how)
    known = [Outcome(Unit(1, "a"), StepState.SUCCEEDED), Outcome(Unit(1, "b"), StepState.ABANDONED)]
    if how.get("strategy") != "step-first":
        known.append(Outcome(Unit(2, "a"), StepState.SUCCEEDED))

    assert " ".join(f"{unit.node}{unit.step}" for unit in plan.next(known)) == next_units


@given(
    nodes=st.integers(0, 6),
    steps=st.integers(0, 4),
    strategy=st.sampled_from(["node-first", "step-first"]),
    threads=st.integers(0, 7),
    keepgoing=st.booleans(),
    step_keepgoing=st.booleans(),
    data=st.data(),
)
def test_nothing_begins_twice_and_threads_are_never_exceeded(
    nodes: int,
    steps: int,
    strategy: Strategy,
    threads: int,
    keepgoing: bool,
    step_keepgoing: bool,
    data: st.DataObject,
) -> None:
    plan = executions.plan(
        "abcdef"[:nodes],
        steps,
        strategy=strategy,
        threadcount=threads,
        keepgoing=keepgoing,
        step_keepgoing=step_keepgoing,
    )
    begun: list[Unit] = plan.next()
    failed = False
    while plan.running:
        assert len(plan.running) <= max(threads, 1)
        unit = data.draw(st.sampled_from(sorted(plan.running)))
        state = data.draw(st.sampled_from([StepState.SUCCEEDED, StepState.FAILED]))
        failed |= state is StepState.FAILED
        begun += plan.next([Outcome(unit, state)])

    assert len(begun) == len(set(begun))
    assert plan.next() == []
    assert plan.verdict() is (State.SUCCEEDED if not failed and nodes and steps else State.FAILED)
    assert len(begun) + len(plan.never_begun) == nodes * steps
    if keepgoing and step_keepgoing:
        assert not plan.never_begun


@pytest.mark.parametrize(
    ("ended", "succeeded", "cancelled", "state"),
    [
        (None, False, True, State.RUNNING),
        (NOW, True, False, State.SUCCEEDED),
        (NOW, True, True, State.SUCCEEDED),
        (NOW, False, True, State.ABORTED),
        (NOW, False, False, State.FAILED),
    ],
)
def test_what_an_execution_reads(ended: datetime | None, succeeded: bool, cancelled: bool, state: State) -> None:
    one = Execution(
        id=1,
        project="p",
        user="u",
        account_id=AccountId("a"),
        started=NOW,
        ended=ended,
        succeeded=succeeded,
        cancelled=cancelled,
    )

    assert one.state is state


@pytest.mark.parametrize(
    ("ended", "alive", "interruptible", "answer"),
    [
        (None, True, True, AbortAnswer("running", "pending", State.RUNNING)),
        (None, True, False, AbortAnswer("running", "failed", State.RUNNING, "Unable to interrupt the running job")),
        (None, False, True, AbortAnswer("aborted", "aborted", State.ABORTED)),
        (NOW, False, True, AbortAnswer("previously failed", "failed", State.FAILED, "Job is not running")),
    ],
)
def test_what_an_abort_is_told(ended: datetime | None, alive: bool, interruptible: bool, answer: AbortAnswer) -> None:
    one = Execution(id=1, project="p", user="u", account_id=AccountId("a"), started=NOW, ended=ended)

    assert executions.abort_answer(one, alive=alive, interruptible=interruptible) == answer
