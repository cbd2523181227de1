# SPDX-License-Identifier: Apache-2.0
"""A step that applies policies on one node, against a server that tells what tests say: verdicts, waiting, stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.engine import worlds
from tests.engine.worlds import World

from quarterdeck.core import compliance as arithmetic
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.executions import State
from quarterdeck.core.ids import NodeId
from quarterdeck.core.jobs import ApplyPolicies, Job, Option, Sequence, Step
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.core.nodes import Node
from quarterdeck.core.policy_steps import Wanted
from quarterdeck.core.projects import Project
from quarterdeck.core.remote_runs import Order, Printed, RunEnd
from quarterdeck.engine.policy_runs import PolicyRun
from quarterdeck.engine.transports import NodeResult, Stream
from quarterdeck.services import executions
from quarterdeck.services.compliance import LatestRun, NodeCompliance

NODE = NodeId("n1")
NOW = datetime(2027, 1, 10, 12, 0, 0, 500_000, tzinfo=UTC)
GOOD = arithmetic.units(Status.SUCCESS_REPAIRED, 4)
HALF = arithmetic.total((arithmetic.units(Status.SUCCESS_ALREADY_OK), arithmetic.units(Status.ERROR)))
DONE = RunEnd(status=0, via="agent")


def seconds(count: float) -> datetime:
    """So long after the step began."""
    return NOW + timedelta(seconds=count)


@dataclass
class Server:
    """Tells these events of a run, and knows these runs of the node, one at each look; the last stays."""

    events: tuple[Printed | RunEnd, ...] = (Printed("a line"), DONE)
    runs: tuple[datetime | None, ...] = (None, seconds(1))
    counts: Counts = GOOD
    reports: bool = True
    holds: bool = False
    orders: list[tuple[NodeId, Order]] = field(default_factory=list)
    looks: int = 0
    said: list[str] = field(default_factory=list)
    written: bytes = b""
    waits: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, node: NodeId, order: Order) -> AsyncGenerator[Printed | RunEnd, None]:
        self.orders.append((node, order))
        self.begun.set()
        if self.holds:
            await asyncio.Event().wait()
        for event in self.events:
            yield event

    async def latest_run(self, node: NodeId) -> LatestRun:
        assert node == NODE
        found = self.runs[min(self.looks, len(self.runs) - 1)]
        self.looks += 1
        return LatestRun(found, NOW)

    async def compliance(self, node: NodeId) -> NodeCompliance:
        assert node == NODE
        return NodeCompliance(self.reports, self.counts)

    def write(self, stream: Stream, data: bytes) -> bool:
        """As a sink that is full after each piece."""
        assert stream == "stdout"
        self.written += data
        return False

    async def ready(self) -> None:
        self.waits += 1


def step(server: Server, wanted: Wanted, settle_seconds: float = 5.0) -> PolicyRun:
    return PolicyRun(
        node=NODE,
        name="web1",
        wanted=wanted,
        runs=server,
        known=server,
        say=lambda text, level: server.said.append(f"{level} {text}"),
        settle_seconds=settle_seconds,
    )


def play(story: Coroutine[Any, Any, NodeResult]) -> NodeResult:
    return asyncio.run(asyncio.wait_for(story, 20))


def applied(server: Server, settle_seconds: float = 5.0, **wanted: Any) -> NodeResult:
    return play(step(server, Wanted(**wanted), settle_seconds).carry_out(server, asyncio.Event()))


SAID = "INFO Compliance of web1: 100 % (repaired 4)"
SAID_HALF = "INFO Compliance of web1: 50 % (error 1, already ok 1)"


def test_the_agent_is_asked_and_what_it_prints_is_written_down() -> None:
    server = Server((Printed("first"), Printed("second ✓"), DONE))

    result = applied(server, conditions=("a", "b"))

    assert result == NodeResult(ending="ended", exit_status=0)
    assert server.orders == [(NODE, Order(conditions=("a", "b")))]
    assert (server.written.decode(), server.waits) == ("first\nsecond ✓\n", 2)
    assert server.said == [SAID]


def test_a_run_that_only_looks_is_not_waited_for() -> None:
    server = Server(runs=(None,))

    result = applied(server, audit=True)

    assert result.succeeded
    assert (server.orders[0][1].audit, server.looks, server.said) == (True, 1, [])


@pytest.mark.parametrize(
    ("status", "least", "counts", "expected"),
    [
        (0, None, HALF, (0, "")),
        (2, None, HALF, (2, "Some component is in error")),
        (2, 50.0, HALF, (0, "")),
        (2, 50.1, HALF, (2, "Compliance is 50 %, and should be at least 50.1 %")),
        (0, 100.0, HALF, (3, "Compliance is 50 %, and should be at least 100 %")),
        (0, 100.0, GOOD, (0, "")),
    ],
)
def test_the_verdict_is_the_agents_or_that_of_compliance(
    status: int, least: float | None, counts: Counts, expected: tuple[int, str]
) -> None:
    server = Server((RunEnd(status=status, via="agent"),), counts=counts)

    result = applied(server, compliance=least)

    assert (result.exit_status, result.reason) == expected
    assert server.said == [SAID_HALF if counts == HALF else SAID]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (1, "The agent could not apply the policies"),
        (4, "Another run of the agent is under way"),
        (-9, "The agent ended with status -9"),
    ],
)
def test_a_run_that_failed_is_not_waited_for(status: int, reason: str) -> None:
    server = Server((RunEnd(status=status, via="agent"),), runs=(None,))

    result = applied(server, compliance=0.0)

    assert result == NodeResult(ending="ended", exit_status=status, reason=reason)
    assert server.looks == 1


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        ((RunEnd(problem="it sleeps."),), "unreachable"),
        ((RunEnd(problem="it sleeps.", via="agent"),), "lost"),
        ((Printed("a"), RunEnd(problem="it sleeps.")), "lost"),
        ((Printed("a"),), "lost"),
        ((), "unreachable"),
    ],
)
def test_what_kept_a_run_from_its_end_is_told(events: tuple[Any, ...], ending: str) -> None:
    result = applied(Server(events))

    assert result.ending == ending
    assert result.reason.endswith(("it sleeps.", "its end was not told."))


# -- the report -------------------------------------------------------------------------------


def test_a_run_that_began_before_the_step_is_not_the_one() -> None:
    server = Server(runs=(seconds(-600), seconds(-600), seconds(-600), seconds(0.2)))

    assert applied(server).succeeded
    assert server.looks == 4


def test_agents_may_tell_whole_seconds() -> None:
    server = Server(runs=(None, NOW.replace(microsecond=0)))

    assert applied(server).succeeded
    assert server.looks == 2


def test_a_node_whose_clock_is_behind_is_believed_when_nothing_newer_comes() -> None:
    settled = Server(runs=(seconds(-600), seconds(-30)))
    late = Server(runs=(seconds(-600), seconds(-30), seconds(-30), seconds(1)))

    assert applied(settled, settle_seconds=0.5).succeeded
    assert applied(late).succeeded
    assert settled.looks > 3
    assert late.looks == 4


def test_a_report_that_does_not_come_is_told_and_only_matters_where_compliance_does() -> None:
    without, wanted = Server(runs=(None,)), Server(runs=(None,))

    assert applied(without, wait_seconds=1).succeeded
    result = applied(wanted, wait_seconds=1, compliance=0.0)

    assert without.said == ["WARN No report of the run came within 1 s."]
    assert result.ending == "timeout"
    assert result.reason == "No report of the run came within 1 s, so that the compliance is not known"


def test_where_no_reports_are_expected_none_is_waited_for() -> None:
    without, wanted = Server(runs=(None,), reports=False), Server(runs=(None,), reports=False)

    assert applied(without).succeeded
    result = applied(wanted, compliance=0.0)

    assert (without.looks, without.said) == (1, [])
    assert (result.exit_status, result.reason) == (
        3,
        "No reports are expected of web1, so that its compliance is not known",
    )


# -- stops ------------------------------------------------------------------------------------


def test_a_stop_ends_the_step_at_once_and_says_that_the_run_goes_on() -> None:
    async def story() -> NodeResult:
        server, stop = Server(holds=True), asyncio.Event()
        running = asyncio.create_task(step(server, Wanted()).carry_out(server, stop))
        await server.begun.wait()
        stop.set()
        return await asyncio.wait_for(running, 2)

    reason = "Stopped: a run of policies is not cut, the one on web1 goes on."
    assert play(story()) == NodeResult(ending="aborted", reason=reason)


def test_a_stop_while_the_report_is_waited_for_says_that_the_policies_were_applied() -> None:
    async def story() -> NodeResult:
        server, stop = Server(runs=(None,)), asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, stop.set)
        return await step(server, Wanted()).carry_out(server, stop)

    result = play(story())
    assert result.ending == "aborted"
    assert result.reason == "Stopped: the policies of web1 were applied, its report is not waited for."


def test_a_stop_before_it_began_asks_for_nothing() -> None:
    async def story() -> NodeResult:
        server, stop = Server(), asyncio.Event()
        stop.set()
        result = await step(server, Wanted()).carry_out(server, stop)
        assert server.orders == []
        return result

    assert play(story()) == NodeResult(ending="aborted", reason="Stopped before it began.")


# -- as a step of a job -----------------------------------------------------------------------


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    """A project with a node of the inventory, which has a policy, and one of its document."""
    with worlds.made(fresh_postgres_url) as made:
        made.do(lambda ctx: ctx.store.nodes.add(Node(id=NODE, hostname="web1")))
        properties = {"project.inventory.source": "all"}
        made.do(lambda ctx: ctx.store.projects.replace(Project(worlds.PROJECT, properties=properties)))
        made.here("documented")
        yield made


def job(name: str, *steps: Step) -> Job:
    only = NodeFilter(include=Side(name=name))
    option = Option(name="look", value="false")
    return Job("job", worlds.PROJECT, node_filter=only, options=(option,), sequence=Sequence(steps=steps))


def test_a_job_applies_policies_on_the_nodes_that_have_an_agent(world: World) -> None:
    world.policy_runs = server = Server((Printed("a line"), RunEnd(status=0, via="agent")))
    step = ApplyPolicies(audit="${option.look}", conditions="on_${node.hostname}")

    with world.worker():
        execution = world.run(world.save(job("web1", step)), "-look true")
        other = world.run(world.save(job("documented", step)))
        assert world.ended(execution).state is State.SUCCEEDED, world.output(execution)
        assert world.ended(other).state is State.FAILED

    assert server.orders == [(NODE, Order(conditions=("on_web1",), audit=True))]
    assert world.output(execution) == ["web1 INFO: a line"]
    assert world.output(other) == [
        "documented ERR: 'documented' is no node of the inventory, so that it has no agent that applies policies"
    ]


def test_an_abort_leaves_the_run_to_itself(world: World) -> None:
    world.policy_runs = server = Server(holds=True)

    with world.worker():
        execution = world.run(world.save(job("web1", ApplyPolicies())))
        worlds.until(lambda: bool(server.orders))
        world.do(lambda ctx: executions.abort(ctx, str(execution)))
        assert world.ended(execution, 5).state is State.ABORTED

    assert world.output(execution)[-1] == ("web1 ERR: Stopped: a run of policies is not cut, the one on web1 goes on.")


def test_without_a_way_to_agents_the_step_fails(world: World) -> None:
    with world.worker():
        execution = world.run(world.save(job("web1", ApplyPolicies())))
        assert world.ended(execution).state is State.FAILED

    assert world.output(execution) == ["web1 ERR: This worker reaches no agents."]
