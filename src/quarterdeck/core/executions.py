# SPDX-License-Identifier: Apache-2.0
"""Executions: one run of a job or of an ad-hoc command, its states, and which step begins where and when.

The plan is pure: it is told what came of the steps that it handed out, and says what to begin next. Who owns an
execution and how steps really run is the engine's.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quarterdeck.core.errors import Conflict
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Strategy

Kind = Literal["job", "adhoc"]


class State(enum.StrEnum):
    """What clients see of an execution."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


class StepState(enum.StrEnum):
    """What became of one step on one node."""

    WAITING = "waiting"
    BEGUN = "begun"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"  #: begun by a worker that is gone, or left behind by an abort; never run again
    SKIPPED = "skipped"  #: never begun: an earlier step or node failed, or the run was aborted

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the step."""
        return self not in (StepState.WAITING, StepState.BEGUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A run. Times are aware; `ended` is None while it runs. `description` is the summary of its steps."""

    id: int
    project: str
    user: str
    started: datetime
    account_id: AccountId  #: whose rights the run has
    kind: Kind = "job"
    job_id: int | None = None  #: None for ad-hoc runs and when the job was deleted
    ended: datetime | None = None
    succeeded: bool = False
    cancelled: bool = False
    aborted_by: str = ""
    description: str = ""
    argstring: str = ""
    loglevel: str = "INFO"
    abort_at: datetime | None = None  #: when somebody asked it to end
    nodes: tuple[str, ...] | None = None  #: in order of dispatch; None until they are known
    nodes_succeeded: int = 0
    nodes_failed: int = 0
    owner: int | None = None  #: the worker that runs it; None while it waits for one
    epoch: int = 0  #: raised by every change of owner

    @property
    def state(self) -> State:
        """A cancelled run that nevertheless succeeded reads succeeded."""
        if self.ended is None:
            return State.RUNNING
        if self.succeeded:
            return State.SUCCEEDED
        return State.ABORTED if self.cancelled else State.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStep:
    """One step on one node, as it is kept. `step` is a number, or a way through referenced jobs: `2[web1]/1`."""

    step: str
    node: str
    state: StepState
    begun: datetime
    ended: datetime | None = None
    exit_status: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AbortAnswer:
    """What a client hears of its abort: a sentence's end, how the abort stands, how the run stands, why it failed."""

    text: str
    abort: Literal["pending", "failed", "aborted"]
    state: State
    reason: str = ""


def abort_answer(execution: Execution, *, alive: bool = True, interruptible: bool = True) -> AbortAnswer:
    """The answer to an abort. `alive`: somebody really runs it; the end itself always comes later."""
    state = execution.state
    if state is not State.RUNNING:
        return AbortAnswer(f"previously {state}", "failed", state, "Job is not running")
    if not alive:
        return AbortAnswer("aborted", "aborted", State.ABORTED)
    if not interruptible:
        return AbortAnswer("running", "failed", state, "Unable to interrupt the running job")
    return AbortAnswer("running", "pending", state)


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One step (counted from 1) on one node (by name)."""

    step: int
    node: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a unit; a final state."""

    unit: Unit
    state: StepState


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """Over the whole run: matched nodes, those on which a step failed, those on which every step succeeded."""

    total: int
    failed: int
    succeeded: int


def counts_of(nodes: Sequence[str], steps: Iterable[NodeStep], count: int) -> NodeCounts:
    """The counts that the kept steps tell, of `count` steps: a node on which some never began is neither."""
    states: dict[str, list[StepState]] = {}
    for one in steps:
        if "/" not in one.step:
            states.setdefault(one.node, []).append(one.state)
    done = sum(1 for found in states.values() if found == [StepState.SUCCEEDED] * count)
    failed = sum(1 for found in states.values() if set(found) - {StepState.SUCCEEDED})
    return NodeCounts(len(nodes), failed, done)


def of_failed_nodes(before: Execution, steps: Iterable[NodeStep], count: int) -> Execution:
    """A run like an ended one, on those of its nodes on which not all `count` steps succeeded. Raises Conflict."""
    if before.ended is None:
        raise Conflict(f"Execution {before.id} has not ended.")
    done = Counter(one.node for one in steps if "/" not in one.step and one.state is StepState.SUCCEEDED)
    again = tuple(node for node in before.nodes or () if done[node] < count)
    if not again:
        raise Conflict(f"Execution {before.id} has no node on which it did not succeed.")
    return Execution(
        id=0,
        project=before.project,
        user=before.user,
        account_id=before.account_id,
        started=before.started,
        kind=before.kind,
        job_id=before.job_id,
        argstring=before.argstring,
        loglevel=before.loglevel,
        nodes=again,
    )


def plan(
    nodes: Iterable[str],
    steps: int,
    *,
    strategy: Strategy = "node-first",
    threadcount: int = 1,
    keepgoing: bool = False,
    step_keepgoing: bool = False,
) -> Plan:
    """A plan for nodes in dispatch order. `keepgoing` is about nodes, `step_keepgoing` about steps."""
    return Plan(tuple(nodes), steps, strategy, max(threadcount, 1), keepgoing, step_keepgoing)


class Plan:
    """Which units begin when. Feed each outcome once to `next`; what it returns counts as begun.

    A track is what runs in a row without asking: in node-first order a node with all its steps, in step-first order
    one step on one node. Tracks of a phase run up to `threadcount` at a time; step-first has a phase per step.
    """

    def __init__(
        self,
        nodes: tuple[str, ...],
        steps: int,
        strategy: Strategy,
        threadcount: int,
        keepgoing: bool,
        step_keepgoing: bool,
    ) -> None:
        self._nodes, self._steps, self._threadcount = nodes, steps, threadcount
        self._keepgoing, self._step_keepgoing = keepgoing, step_keepgoing
        self._phases = deque(_phases(strategy, steps))
        self._steps_now: range = range(0)
        self._waiting: deque[str] = deque()
        self._begun: set[Unit] = set()
        self._states: dict[Unit, StepState] = {}
        self._failed_nodes: set[str] = set()
        self._successes: Counter[str] = Counter()
        self._phase_failed = False
        self._aborted = False

    def next(self, outcomes: Iterable[Outcome] = ()) -> list[Unit]:
        """The units to begin now, after these outcomes; none while all threads are taken, or when it is over."""
        ready: list[Unit] = []
        for one in outcomes:
            self._states[one.unit] = one.state
            self._begun.discard(one.unit)
            ready += self._after(one)
        while not self._aborted:
            while self._waiting and len(self._begun) + len(ready) < self._threadcount and self._may_start():
                ready += self._first_of(self._waiting.popleft())
            if ready or self._begun or not self._next_phase():
                break
        self._begun.update(ready)
        return ready

    @property
    def is_running(self) -> bool:
        """Whether any unit has begun and has no outcome yet."""
        return bool(self._begun)

    def abort(self) -> None:
        """Begin nothing more. What has begun is still waited for."""
        self._aborted = True

    @property
    def running(self) -> frozenset[Unit]:
        """The units that have begun and have no outcome yet."""
        return frozenset(self._begun)

    @property
    def never_begun(self) -> list[Unit]:
        """The units without any outcome that are not running; skipped, once the run is over."""
        units = (Unit(step, node) for step in range(1, self._steps + 1) for node in self._nodes)
        return [unit for unit in units if unit not in self._states and unit not in self._begun]

    @property
    def counts(self) -> NodeCounts:
        """Matched, failed and other nodes so far."""
        done = sum(1 for count in self._successes.values() if count == self._steps)
        return NodeCounts(len(self._nodes), len(self._failed_nodes), done)

    def verdict(self) -> State:
        """What the run reads once `next` returns nothing and nothing runs. Success only if everything succeeded."""
        expected = len(self._nodes) * self._steps
        if self._begun:
            return State.RUNNING
        if expected and len(self._states) == expected and not self._failed_nodes:
            return State.SUCCEEDED
        return State.ABORTED if self._aborted else State.FAILED

    def _after(self, one: Outcome) -> list[Unit]:
        node = one.unit.node
        failed = one.state is not StepState.SUCCEEDED
        if failed:
            self._failed_nodes.add(node)
            self._phase_failed = True
        else:
            self._successes[node] += 1
        if self._aborted or (failed and not self._step_keepgoing):
            return []
        return self._unless_known(range(one.unit.step + 1, self._steps_now.stop), node)

    def _first_of(self, node: str) -> list[Unit]:
        return self._unless_known(self._steps_now, node)

    def _unless_known(self, steps: range, node: str) -> list[Unit]:
        """The first of these steps on the node that has no outcome yet, unless an earlier failure ends the row."""
        for step in steps:
            state = self._states.get(Unit(step, node))
            if state is None:
                return [Unit(step, node)]
            if state is not StepState.SUCCEEDED and not self._step_keepgoing:
                return []
        return []

    def _may_start(self) -> bool:
        return self._keepgoing or not self._phase_failed

    def _next_phase(self) -> bool:
        if not self._phases or (self._phase_failed and not (self._step_keepgoing or not self._steps_now)):
            return False
        self._steps_now = self._phases.popleft()
        self._waiting = deque(self._nodes)
        self._phase_failed = any(
            self._states.get(Unit(step, node), StepState.SUCCEEDED) is not StepState.SUCCEEDED
            for step in self._steps_now
            for node in self._nodes
        )
        return True


def _phases(strategy: Strategy, steps: int) -> list[range]:
    if strategy == "step-first":
        return [range(step, step + 1) for step in range(1, steps + 1)]
    return [range(1, steps + 1)] if steps else []
