# SPDX-License-Identifier: Apache-2.0
"""Runs that are asked of agents, and what comes back, put together over ways and relays."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.relaying.listeners import NEAR, NEXT, QUICK, asks, everything, listens, play, waiting

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.core.remote_runs import Form, Order, Wanted
from quarterdeck.relaying import remote_runs
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.remote_runs import Hop, RemoteRuns, Way
from quarterdeck.relaying.waiting_agents import Ended, Times, WaitingAgents

ROOT, RELAY, FAR = (NodeId(name) for name in ("root", "relay", "far"))


def listing() -> Listing:
    """NEAR, NEXT and RELAY are served by the root, FAR by RELAY."""
    servers = {ROOT: ROOT, NEAR: ROOT, NEXT: ROOT, RELAY: ROOT, FAR: RELAY}
    return Listing(topology=Topology(ROOT, {node: ListedNode(f"{node}.test", of) for node, of in servers.items()}))


def runs(agents: WaitingAgents, hop: Hop | None = None, *ways: Way) -> RemoteRuns:
    return RemoteRuns(nodes=NodesList(listing), agents=agents, hop=hop, ways=ways)


def wanted(*nodes: str, **changes: Any) -> Wanted:
    return Wanted(nodes=tuple(NodeId(node) for node in nodes), **{"keep_output": True, **changes})


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


class Crowd:
    """Forty agents; each takes a moment to begin, and `most` is how many were beginning at the same time."""

    def __init__(self) -> None:
        self.nodes = [NodeId(f"n{number}") for number in range(40)]
        self.agents = WaitingAgents(QUICK)
        self.beginning = self.most = 0
        listed = {node: ListedNode(f"{node}.test", ROOT) for node in self.nodes}
        self.remote = RemoteRuns(nodes=NodesList(lambda: Listing(topology=Topology(ROOT, listed))), agents=self.agents)

    async def waits(self) -> list[asyncio.Task[None]]:
        """All of them, when they wait."""
        tasks = [asyncio.create_task(self._listens(node)) for node in self.nodes]
        await waiting(self.agents, len(self.nodes))
        return tasks

    async def _listens(self, node: NodeId) -> None:
        run = self.agents.belongs(node, (await asks(self.agents, node))["run"])
        self.beginning += 1
        self.most = max(self.most, self.beginning)
        await asyncio.sleep(0.01)
        self.beginning -= 1
        await self.agents.put(run, 0, b"", None)
        await self.agents.put(run, 1, f"{node}\n".encode(), 0)


def test_only_some_agents_begin_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_runs, "_BEGIN_SECONDS", 10)
    crowd = Crowd()

    async def story() -> None:
        tasks = await crowd.waits()
        output = await everything(crowd.remote.ask(Wanted(keep_output=True)))

        assert sorted(output.split()) == sorted(crowd.nodes)
        await asyncio.gather(*tasks)

    play(story())
    assert 1 < crowd.most <= 16


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


def test_lines_of_json_tell_of_nodes_that_are_not_below_this_server() -> None:
    async def story() -> None:
        unknown = runs(WaitingAgents(), FakeHop())

        output = await everything(unknown.ask(wanted("stranger", form=Form.JSON)))

        assert json.loads(output) == {"node": "stranger", "hostname": "", "problem": "it is not below this server."}
        assert await everything(unknown.ask(wanted("stranger"))) == ""

    play(story())


def test_one_line_of_the_log_names_the_nodes_that_were_not_reached(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        other = OtherWay(frozenset({RELAY}))
        await everything(runs(WaitingAgents(), FakeHop(), other).ask(Wanted()))

    play(story())

    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "3 of 4 nodes here were not reached for a run: near, next, root"
    ]


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
    crowd = Crowd()

    async def story() -> None:
        tasks = await crowd.waits()
        async with crowd.remote.working():
            problems = await asyncio.to_thread(crowd.remote.start, {node: f"{node}.test" for node in crowd.nodes}, [])

            assert problems == {}
            await asyncio.gather(*tasks)

    play(story())
    assert 1 < crowd.most <= 16


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
