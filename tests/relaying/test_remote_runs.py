# SPDX-License-Identifier: Apache-2.0
"""Agents that wait, runs that are asked of them, and what comes back, put together over ways and relays."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from quarterdeck.core.errors import Conflict, Invalid, NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.core.remote_runs import Form, Order, Wanted
from quarterdeck.relaying import remote_runs, waiting_agents
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.remote_runs import Hop, RemoteRuns, Way
from quarterdeck.relaying.waiting_agents import Ended, Run, Times, WaitingAgents

ROOT, NEAR, NEXT, RELAY, FAR = (NodeId(name) for name in ("root", "near", "next", "relay", "far"))
QUICK = Times(hold=5, back=0.05, room=0.1, silence=0.3, run=5, look=0.02)


def listing() -> Listing:
    """NEAR, NEXT and RELAY are served by the root, FAR by RELAY."""
    servers = {ROOT: ROOT, NEAR: ROOT, NEXT: ROOT, RELAY: ROOT, FAR: RELAY}
    return Listing(topology=Topology(ROOT, {node: ListedNode(f"{node}.test", of) for node, of in servers.items()}))


def runs(agents: WaitingAgents, hop: Hop | None = None, *ways: Way) -> RemoteRuns:
    return RemoteRuns(nodes=NodesList(listing), agents=agents, hop=hop, ways=ways)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


async def asks(agents: WaitingAgents, node: NodeId) -> dict[str, Any]:
    """One request of an agent that waits, and its answer."""
    found = [json.loads(piece) async for piece in agents.hold(node)]
    assert len(found) == 1
    return dict(found[0])


async def listens(agents: WaitingAgents, node: NodeId, *lines: str, status: int = 0, rests: float = 0.0) -> Any:
    """An agent that carries out one order: it begins, prints, and ends. The order."""
    order = await asks(agents, node)
    run = agents.belongs(node, order["run"])
    assert await agents.put(run, 0, b"", None) in ("received", "unwanted")
    for number, line in enumerate(lines, 1):
        await agents.put(run, number, f"{line}\n".encode(), None)
        await asyncio.sleep(rests)
    await agents.put(run, len(lines) + 1, b"", status)
    return order


async def waiting(agents: WaitingAgents, count: int) -> None:
    """Until so many agents wait."""
    while agents.count < count:  # noqa: ASYNC110  # nobody tells when an agent has come
        await asyncio.sleep(0.005)


async def everything(pieces: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in pieces]).decode()


def wanted(*nodes: str, **changes: Any) -> Wanted:
    return Wanted(nodes=tuple(NodeId(node) for node in nodes), **{"keep_output": True, **changes})


# -- agents that wait ---------------------------------------------------------------------


def test_an_agent_that_waits_is_told_to_run_and_its_output_comes_back() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(listens(agents, NEAR, "one", "two", status=2))
        await waiting(agents, 1)

        run = agents.wake(NEAR, Order(conditions=("a", "b"), audit=True))
        output = await everything(agents.follow(run))

        assert output == "one\ntwo\n"
        assert run.end == Ended(status=2)
        order = await agent
        assert {key: order[key] for key in ("status", "conditions", "audit", "output")} == {
            "status": "run",
            "conditions": ["a", "b"],
            "audit": True,
            "output": True,
        }

    play(story())


def test_an_agent_that_waited_long_enough_is_told_to_ask_again() -> None:
    async def story() -> None:
        assert await asks(WaitingAgents(Times(hold=0.02)), NEAR) == {"status": "idle"}

    play(story())


def test_a_server_that_ends_lets_all_who_wait_go() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)

        agents.let_go()

        assert await agent == {"status": "idle"}
        assert await asks(agents, NEXT) == {"status": "idle"}

    play(story())


def test_a_node_that_asks_twice_replaces_its_first_request() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        first = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)
        second = asyncio.create_task(listens(agents, NEAR, "second"))

        assert await first == {"status": "replaced"}
        assert await everything(agents.follow(agents.wake(NEAR, Order()))) == "second\n"
        await second

    play(story())


def test_an_agent_that_is_not_there_is_not_woken() -> None:
    with pytest.raises(Unavailable, match="does not wait here"):
        WaitingAgents().wake(NEAR, Order())


def test_an_agent_that_hung_up_is_not_there_any_more() -> None:
    async def story() -> None:
        agents = WaitingAgents(Times(hold=5, back=60))
        agent = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)
        agent.cancel()
        with suppress(asyncio.CancelledError):
            await agent

        assert not agents.reaches(NEAR)

    play(story())


def test_an_agent_between_two_requests_gets_its_order_with_the_next() -> None:
    async def story() -> None:
        agents = WaitingAgents(Times(hold=0.01, back=5))
        assert await asks(agents, NEAR) == {"status": "idle"}

        run = agents.wake(NEAR, Order())
        agent = asyncio.create_task(listens(agents, NEAR, "here"))

        assert await everything(agents.follow(run)) == "here\n"
        await agent

    play(story())


def test_an_agent_that_does_not_come_back_ends_the_run() -> None:
    async def story() -> None:
        agents = WaitingAgents(Times(hold=0.01, back=0.05, look=0.02))
        await asks(agents, NEAR)
        run = agents.wake(NEAR, Order())

        assert await everything(agents.follow(run)) == ""
        assert run.end is not None
        assert "went away before it began" in run.end.problem

    play(story())


def test_an_order_that_did_not_arrive_is_given_again_and_one_that_began_is_not() -> None:
    async def story() -> None:
        agents = WaitingAgents(Times(hold=5, back=5))
        lost = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)
        run = agents.wake(NEAR, Order())
        await lost

        again = await asks(agents, NEAR)
        assert again["run"] == run.id
        await agents.put(run, 0, b"", None)
        third = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)

        assert run.end is not None
        assert "started anew" in run.end.problem
        assert not third.done()
        third.cancel()

    play(story())


def test_an_agent_at_work_that_falls_silent_is_given_up() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(asks(agents, NEAR))
        await waiting(agents, 1)
        run = agents.wake(NEAR, Order())
        await agent
        await agents.put(run, 0, b"", None)

        assert await everything(agents.follow(run)) == ""
        assert run.end is not None
        assert "said nothing" in run.end.problem
        with pytest.raises(NotFound):
            agents.check(run, 1)

    play(story())


def test_a_piece_that_comes_again_is_taken_once_and_one_too_many_is_refused() -> None:
    async def story() -> None:
        agents, run = await _begun()
        for _ in range(2):
            assert await agents.put(run, 1, b"once\n", None) == "received"
        with pytest.raises(Conflict):
            agents.check(run, 3)
        for _ in range(2):
            await agents.put(run, 2, b"", 0)

        assert await everything(agents.follow(run)) == "once\n"

    play(story())


def test_output_that_nobody_reads_yet_is_bounded_and_the_agent_sends_it_again() -> None:
    async def story() -> None:
        agents, run = await _begun()
        piece = b"x" * (waiting_agents.BUFFER_BYTES // 4 - 1) + b"\n"
        for number in range(1, 5):
            assert await agents.put(run, number, piece, None) == "received"

        assert await agents.put(run, 5, piece, None) == "again"
        async with aclosing(agents.follow(run)) as pieces:
            assert len(await anext(pieces)) == 4 * len(piece)
            assert await agents.put(run, 5, piece, None) == "received"

    play(story())


def test_who_stops_reading_lets_the_run_go_on() -> None:
    async def story() -> None:
        agents, run = await _begun()
        await agents.put(run, 1, b"a\n", None)
        async with aclosing(agents.follow(run)) as pieces:
            assert await anext(pieces) == b"a\n"

        assert await agents.put(run, 2, b"b\n", None) == "unwanted"
        assert await agents.put(run, 3, b"", 0) == "unwanted"
        assert run.end == Ended(status=0)

    play(story())


def test_a_run_belongs_to_one_node_only() -> None:
    async def story() -> None:
        agents, run = await _begun()

        assert agents.belongs(NEAR, run.id) is run
        for node, run_id in ((NEXT, run.id), (NEAR, "another")):
            with pytest.raises(NotFound):
                agents.belongs(node, run_id)

    play(story())


def test_orders_for_a_busy_node_wait_in_a_short_line() -> None:
    async def story() -> None:
        agents, first = await _begun()
        second = agents.wake(NEAR, Order())
        for _ in range(waiting_agents.MOST_ORDERS - 1):
            agents.wake(NEAR, Order(output=False))

        with pytest.raises(Unavailable, match="wait for its agent already"):
            agents.wake(NEAR, Order())
        await agents.put(first, 1, b"", 0)
        assert (await asks(agents, NEAR))["run"] == second.id

    play(story())


def test_agents_wait_on_one_loop_and_are_woken_from_other_threads() -> None:
    agents, found = WaitingAgents(QUICK), []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(listens(agents, NEAR, "elsewhere"))))
    thread.start()

    async def story() -> None:
        await waiting(agents, 1)
        assert await everything(agents.follow(agents.wake(NEAR, Order()))) == "elsewhere\n"

    play(story())
    thread.join(10)
    assert found


async def _begun() -> tuple[WaitingAgents, Run]:
    """NEAR at work."""
    agents = WaitingAgents(Times(hold=5, back=5, room=0.05))
    agent = asyncio.create_task(asks(agents, NEAR))
    await waiting(agents, 1)
    run = agents.wake(NEAR, Order())
    await agent
    await agents.put(run, 0, b"", None)
    return agents, run


# -- ways and relays ----------------------------------------------------------------------


@dataclass
class OtherWay:
    """Reaches the nodes it is told to."""

    reached: frozenset[NodeId]
    name: str = "other"
    orders: list[tuple[NodeId, Order]] = field(default_factory=list)

    async def run(self, node: NodeId, hostname: str, order: Order) -> AsyncGenerator[bytes | Ended, None]:
        if node not in self.reached:
            raise Unavailable("its port is closed.")
        self.orders.append((node, order))
        yield b"over another way\nand no line feed"
        yield Ended(status=0)

    async def close(self) -> None:
        """Nothing of it goes on."""


@dataclass
class FakeHop:
    """Relays that answer with these pieces, or do not answer."""

    pieces: tuple[bytes, ...] = ()
    problem: str = ""
    calls: list[tuple[NodeId, str, dict[str, str]]] = field(default_factory=list)

    async def __call__(
        self, relay: NodeId, listed: ListedNode, where: str, form: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        self.calls.append((relay, where, dict(form)))
        if self.problem:
            raise Unavailable(self.problem)
        for piece in self.pieces:
            yield piece


def test_another_way_is_tried_when_the_agent_does_not_wait() -> None:
    async def story() -> None:
        way = OtherWay(frozenset({NEAR}))

        output = await everything(runs(WaitingAgents(), None, way).ask(wanted("near", conditions=("a",))))

        assert output == "over another way\nand no line feed\n"
        assert way.orders == [(NEAR, Order(conditions=("a",)))]

    play(story())


def test_another_way_is_not_tried_when_the_agent_waits() -> None:
    async def story() -> None:
        agents, way = WaitingAgents(QUICK), OtherWay(frozenset({NEAR}))
        agent = asyncio.create_task(listens(agents, NEAR, "by itself"))
        await waiting(agents, 1)

        assert await everything(runs(agents, None, way).ask(wanted("near"))) == "by itself\n"
        assert way.orders == []
        await agent

    play(story())


def test_a_node_that_nothing_reaches_says_why_for_each_way() -> None:
    async def story() -> None:
        output = await everything(runs(WaitingAgents(), None, OtherWay(frozenset())).ask(wanted("near")))

        assert output == (
            "near.test: there is no way to reach it: its agent does not wait here for orders"
            " (quarterdeck-agent listen). By other: its port is closed.\n"
        )

    play(story())


def test_statement_37_a_node_behind_a_relay_is_one_call_to_that_relay() -> None:
    async def story() -> None:
        hop, way = FakeHop((b"from afar\n",)), OtherWay(frozenset({NEAR, FAR}))

        output = await everything(
            runs(WaitingAgents(), hop, way).ask(wanted("far", "ghost", "near", conditions=("a", "b")))
        )

        form = {"keep_output": "true", "asynchronous": "false", "classes": "a,b", "nodes": "far"}
        assert hop.calls == [(RELAY, "nodes", form)]
        assert [node for node, _ in way.orders] == [NEAR]
        assert sorted(output.splitlines()) == ["and no line feed", "from afar", "over another way"]

    play(story())


def test_statement_38_all_is_every_neighbour_and_each_populated_relay_once() -> None:
    async def story() -> None:
        hop, way = FakeHop(), OtherWay(frozenset({ROOT, NEAR, NEXT, RELAY, FAR}))

        await everything(runs(WaitingAgents(), hop, way).ask(Wanted(keep_output=True)))

        assert [(relay, where, "nodes" in form) for relay, where, form in hop.calls] == [(RELAY, "all", False)]
        assert sorted(node for node, _ in way.orders) == sorted([ROOT, NEAR, NEXT, RELAY])

    play(story())


def test_statement_39_a_relay_that_fails_adds_nothing_and_takes_nothing_away() -> None:
    async def story() -> None:
        hop, way = FakeHop(problem="its certificate is wrong."), OtherWay(frozenset({NEAR}))

        assert (
            await everything(runs(WaitingAgents(), hop, way).ask(wanted("near", "far")))
            == "over another way\nand no line feed\n"
        )

    play(story())


def test_statement_40_a_loop_in_the_list_ends() -> None:
    async def story() -> None:
        nodes = {NEAR: ListedNode("near.test", FAR), FAR: ListedNode("far.test", NEAR)}
        remote = RemoteRuns(
            nodes=NodesList(lambda: Listing(topology=Topology(ROOT, nodes))), agents=WaitingAgents(), hop=FakeHop()
        )

        assert await everything(remote.ask(wanted("near", "far"))) == ""
        assert await everything(remote.ask(Wanted(keep_output=True))) == ""

    play(story())


def test_all_nodes_run_at_the_same_time_and_lines_never_mix() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        tasks = [
            asyncio.create_task(listens(agents, node, *[f"{node} line {n}" for n in range(20)], rests=0.001))
            for node in (NEAR, NEXT)
        ]
        await waiting(agents, 2)

        lines = (
            await everything(
                runs(agents, FakeHop((b"fa", b"r line 0\nfar", b" line 1\n"))).ask(wanted("near", "next", "far"))
            )
        ).splitlines()

        assert sorted(lines) == sorted(
            [f"{node} line {n}" for node in (NEAR, NEXT) for n in range(20)] + ["far line 0", "far line 1"]
        )
        first = {line.split()[0]: at for at, line in reversed(list(enumerate(lines)))}
        last = {line.split()[0]: at for at, line in enumerate(lines)}
        assert first["next"] < last["near"]
        assert first["near"] < last["next"]
        await asyncio.gather(*tasks)

    play(story())


def test_only_some_agents_begin_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_runs, "_BEGIN_SECONDS", 10)
    nodes = [NodeId(f"n{number}") for number in range(40)]
    listed = {node: ListedNode(f"{node}.test", ROOT) for node in nodes}
    agents, beginning, most = WaitingAgents(QUICK), 0, 0

    async def listens_slowly(node: NodeId) -> None:
        nonlocal beginning, most
        run = agents.belongs(node, (await asks(agents, node))["run"])
        beginning += 1
        most = max(most, beginning)
        await asyncio.sleep(0.01)
        beginning -= 1
        await agents.put(run, 0, b"", None)
        await agents.put(run, 1, f"{node}\n".encode(), 0)

    async def story() -> None:
        tasks = [asyncio.create_task(listens_slowly(node)) for node in nodes]
        await waiting(agents, len(nodes))
        remote = RemoteRuns(nodes=NodesList(lambda: Listing(topology=Topology(ROOT, listed))), agents=agents)

        assert sorted((await everything(remote.ask(Wanted(keep_output=True)))).split()) == sorted(nodes)
        await asyncio.gather(*tasks)

    play(story())
    assert 1 < most <= 16


def test_agents_that_do_not_begin_let_others_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_runs, "_BEGINNING", 1)
    monkeypatch.setattr(remote_runs, "_BEGIN_SECONDS", 0.02)

    async def story() -> None:
        agents = WaitingAgents(Times(hold=5, back=2, look=0.05))
        stuck = asyncio.create_task(asks(agents, NEAR))
        agent = asyncio.create_task(listens(agents, NEXT, "next"))
        await waiting(agents, 2)

        output = await everything(runs(agents).ask(wanted("near", "next")))

        assert output.splitlines() == ["next", "near.test: its agent went away before it began."]
        await asyncio.gather(stuck, agent)

    play(story())


def test_lines_of_json_name_the_node_and_tell_how_it_ended() -> None:
    async def story() -> None:
        agents, hop = WaitingAgents(QUICK), FakeHop(problem="it hangs.")
        agent = asyncio.create_task(listens(agents, NEAR, "one\xff", status=3))
        await waiting(agents, 1)

        output = await everything(runs(agents, hop).ask(wanted("near", "next", "far", form=Form.JSON)))

        told = {(one["node"], key): one[key] for one in map(json.loads, output.splitlines()) for key in one}
        assert told[NEAR, "hostname"] == "near.test"
        assert (told[NEAR, "text"], told[NEAR, "status"]) == ("one\xff", 3)
        assert "no way to reach it" in told[NEXT, "problem"]
        assert told[RELAY, "problem"] == "it hangs."
        assert hop.calls[0][2]["format"] == "json"
        await agent

    play(story())


def test_lines_of_json_tell_over_which_way_a_run_went_and_what_was_tried_before() -> None:
    async def story() -> None:
        agents, other, last = WaitingAgents(QUICK), OtherWay(frozenset()), OtherWay(frozenset({NEXT}), "last")
        agent = asyncio.create_task(listens(agents, NEAR))
        await waiting(agents, 1)

        output = await everything(runs(agents, None, other, last).ask(wanted("near", "next", "relay", form=Form.JSON)))

        ends = {line["node"]: line for line in map(json.loads, output.splitlines()) if "text" not in line}
        agents_refusal = {
            "way": "agent",
            "problem": "its agent does not wait here for orders (quarterdeck-agent listen).",
        }
        assert ends[NEAR] == {"node": NEAR, "hostname": "near.test", "status": 0, "via": "agent"}
        assert ends[NEXT] == {
            "node": NEXT,
            "hostname": "next.test",
            "status": 0,
            "via": "last",
            "tried": [agents_refusal, {"way": "other", "problem": "its port is closed."}],
        }
        assert [one["way"] for one in ends[RELAY]["tried"]] == ["agent", "other", "last"]
        assert "via" not in ends[RELAY]
        await agent

    play(story())


def test_the_ways_are_told_in_their_order_with_how_many_agents_wait() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(listens(agents, NEAR))
        await waiting(agents, 1)
        remote = runs(agents, None, OtherWay(frozenset(), "b"), OtherWay(frozenset(), "a"))

        assert remote.told() == {"ways": ["agent", "b", "a"], "waitingAgents": 1}
        agents.let_go()
        await asyncio.gather(agent, return_exceptions=True)

    play(story())


def test_who_does_not_wait_is_answered_at_once_and_the_agents_run() -> None:
    async def story() -> None:
        agents, hop = WaitingAgents(QUICK), FakeHop()
        agent = asyncio.create_task(listens(agents, NEAR, rests=0.1))
        await waiting(agents, 1)

        output = await everything(runs(agents, hop).ask(wanted("near", "far", keep_output=False, asynchronous=True)))

        assert output == ""
        assert not agent.done()
        assert (await agent)["output"] is False
        assert hop.calls[0][2] == {"keep_output": "false", "asynchronous": "true", "classes": "", "nodes": "far"}

    play(story())


def test_who_waits_without_output_gets_nothing_after_the_end() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(listens(agents, NEAR, "not wanted"))
        await waiting(agents, 1)

        assert await everything(runs(agents).ask(wanted("near", keep_output=False))) == ""
        assert agent.done()

    play(story())


# -- what the Rudder API asks for ---------------------------------------------------------


def test_starting_many_tells_who_does_not_start_and_why() -> None:
    async def story() -> None:
        agents, hop = WaitingAgents(QUICK), FakeHop()
        agent = asyncio.create_task(listens(agents, NEAR))
        await waiting(agents, 1)
        remote = runs(agents, hop)
        async with remote.working():
            names = {node: f"{node}.test" for node in (NEAR, NEXT, FAR)}
            problems = await asyncio.to_thread(remote.start, names, ["a"])
            order = await agent

        assert list(problems) == [NEXT]
        assert "does not wait here" in problems[NEXT]
        assert (order["conditions"], order["output"]) == (["a"], False)
        assert [(relay, form["nodes"]) for relay, _, form in hop.calls] == [(RELAY, FAR)]

    play(story())


def test_of_many_that_are_started_only_some_begin_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_runs, "_BEGIN_SECONDS", 10)
    nodes = [NodeId(f"n{number}") for number in range(40)]
    listed = {node: ListedNode(f"{node}.test", ROOT) for node in nodes}
    agents, beginning, most = WaitingAgents(QUICK), 0, 0

    async def listens_slowly(node: NodeId) -> None:
        nonlocal beginning, most
        run = agents.belongs(node, (await asks(agents, node))["run"])
        beginning += 1
        most = max(most, beginning)
        await asyncio.sleep(0.01)
        beginning -= 1
        await agents.put(run, 0, b"", None)
        await agents.put(run, 1, b"", 0)

    async def story() -> None:
        tasks = [asyncio.create_task(listens_slowly(node)) for node in nodes]
        await waiting(agents, len(nodes))
        remote = RemoteRuns(nodes=NodesList(lambda: Listing(topology=Topology(ROOT, listed))), agents=agents)
        async with remote.working():
            assert await asyncio.to_thread(remote.start, {node: f"{node}.test" for node in nodes}, []) == {}
            await asyncio.gather(*tasks)

    play(story())
    assert 1 < most <= 16


def test_nodes_behind_relays_that_are_not_reached_do_not_start() -> None:
    problems = runs(WaitingAgents()).start({FAR: "far.test"}, [])

    assert f"behind relay {RELAY}" in problems[FAR]


def test_following_one_node_that_nothing_reaches_is_refused_at_once() -> None:
    remote = runs(WaitingAgents())

    for node, why in ((NEAR, "does not wait here"), (FAR, "behind relay relay")):
        with pytest.raises(Unavailable, match=why):
            remote.follow(node, f"{node}.test", [])
    with pytest.raises(Invalid, match="invalid condition: a b"):
        remote.follow(NEAR, "near.test", ["a b"])


def test_where_remote_runs_are_switched_off_nothing_starts() -> None:
    off = RemoteRuns(nodes=NodesList(listing), agents=WaitingAgents(), enabled=False)

    assert "switched off" in off.start({NEAR: "near.test"}, [])[NEAR]
    with pytest.raises(Unavailable, match="switched off"):
        off.follow(NEAR, "near.test", [])


def test_the_nodes_list_is_read_before_anything_is_awaited() -> None:
    loaded: list[str] = []

    def load() -> Listing:
        loaded.append(threading.current_thread().name)
        return listing()

    async def story() -> None:
        remote = RemoteRuns(nodes=NodesList(load, fresh_seconds=0), agents=WaitingAgents(), hop=FakeHop(problem="no."))
        answer = await asyncio.to_thread(remote.ask, Wanted(keep_output=True, form=Form.JSON))
        before = len(loaded)
        await everything(answer)
        assert len(loaded) == before

    play(story())
    assert loaded
    assert threading.current_thread().name not in loaded


def test_following_one_node_gives_what_its_agent_prints() -> None:
    async def story() -> None:
        agents = WaitingAgents(QUICK)
        agent = asyncio.create_task(listens(agents, NEAR, "line"))
        await waiting(agents, 1)

        assert await everything(runs(agents).follow(NEAR, "near.test", [])) == "line\n"
        assert await everything(runs(agents, FakeHop((b"far line\n",))).follow(FAR, "far.test", [])) == "far line\n"
        await agent

    play(story())
