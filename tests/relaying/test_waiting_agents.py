# SPDX-License-Identifier: Apache-2.0
"""Agents that wait to be told to run, and what they print while they do."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress

import pytest
from tests.relaying.listeners import NEAR, NEXT, QUICK, asks, everything, listens, play, waiting

from quarterdeck.core.errors import Conflict, NotFound, Unavailable
from quarterdeck.core.remote_runs import Order
from quarterdeck.relaying import waiting_agents
from quarterdeck.relaying.waiting_agents import Ended, Run, Times, WaitingAgents


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
