# SPDX-License-Identifier: Apache-2.0
"""Agents that wait at a real server: who may wait and deliver, and what they are told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.agents import Agent
from tests.dialects.native.conftest import Native

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.core.remote_runs import Order
from quarterdeck.formats import agent
from quarterdeck.relaying.waiting_agents import Ended, Times, WaitingAgents

ONE = Agent(node="1a000000-0000-4000-8000-000000000001", hostname="one.example.com", key_number=1)
OTHER = Agent(node="1a000000-0000-4000-8000-000000000002", hostname="other.example.com", key_number=2)


@pytest.fixture
def agents(native: Native) -> WaitingAgents:
    made = WaitingAgents(Times(hold=0.3, back=5, room=0.2))
    native.parts.waiting_agents = made
    for one in (ONE, OTHER):
        native.add(one)
    return made


def asks(native: Native, one: Agent) -> httpx.Response:
    return native.post(one, agent.PATH_WAKE, b"")


def delivers(native: Native, one: Agent, run: str, number: int, text: bytes = b"", status: int | None = None) -> Any:
    return native.post(one, agent.output_path(run, number, status), text)


def woken(native: Native, agents: WaitingAgents, one: Agent, order: Order | None = None) -> dict[str, Any]:
    """What a waiting agent is told when somebody wants it to run."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(asks(native, one)))
    thread.start()
    _until(lambda: agents.count == 1)
    agents.wake(NodeId(one.node), order or Order())
    thread.join(10)
    document: dict[str, Any] = answers[0].json()
    return document


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    assert holds()


def test_an_agent_is_told_what_to_do_while_it_waits(native: Native, agents: WaitingAgents) -> None:
    told = woken(native, agents, ONE, Order(conditions=("a",), audit=True, output=False))

    run = told.pop("run")
    assert told == {"status": "run", "conditions": ["a"], "audit": True, "output": False}
    assert agents.belongs(NodeId(ONE.node), run).id == run


def test_an_agent_that_nobody_wants_is_told_to_ask_again(native: Native, agents: WaitingAgents) -> None:
    answer = asks(native, ONE)

    assert (answer.status_code, answer.json()) == (200, {"status": "idle"})


def test_output_is_taken_piece_by_piece_to_the_exit_status(native: Native, agents: WaitingAgents) -> None:
    told = woken(native, agents, ONE)
    run = agents.belongs(NodeId(ONE.node), told["run"])

    for number, text, status in ((0, b"", None), (1, b"line\xff\n", None), (2, b"", 2)):
        answer = delivers(native, ONE, run.id, number, text, status)
        assert (answer.status_code, answer.json()) == (200, {"status": "received"})

    assert b"".join(run.text) == b"line\xff\n"
    assert run.end == Ended(status=2)


def test_a_run_takes_output_of_its_own_node_only(native: Native, agents: WaitingAgents) -> None:
    run = woken(native, agents, ONE)["run"]

    assert delivers(native, OTHER, run, 0).status_code == 404
    assert delivers(native, ONE, "another", 0).status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("number=-1", 400),
        ("number=x", 400),
        ("number=0&status=x", 400),
        ("number=0&status=256", 400),
        ("number=1", 409),
    ],
)
def test_pieces_that_cannot_be_meant_so_are_refused(
    query: str, status: int, native: Native, agents: WaitingAgents
) -> None:
    run = woken(native, agents, ONE)["run"]

    answer = native.post(ONE, f"{agent.PATH_REMOTE_RUNS}/{run}/output?{query}", b"")

    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "server_time"}


def test_a_piece_that_is_too_long_is_refused(native: Native, agents: WaitingAgents) -> None:
    run = woken(native, agents, ONE)["run"]

    assert delivers(native, ONE, run, 0, b"x" * (agent.MAX_PIECE_BYTES + 1)).status_code == 413


def test_who_is_not_accepted_or_not_known_or_does_not_sign_may_not_wait(native: Native, agents: WaitingAgents) -> None:
    pending = Agent(node="1a000000-0000-4000-8000-000000000003", hostname="p.example.com", key_number=3)
    native.add(pending, status=NodeStatus.PENDING)

    assert asks(native, pending).json()["code"] == "not_accepted"
    assert asks(native, Agent(key_number=4)).json()["code"] == "unknown_node"
    forged = {**ONE.headers("POST", agent.PATH_WAKE), agent.HEADER_NODE: OTHER.node}
    assert native.post(ONE, agent.PATH_WAKE, b"", forged).json()["code"] == "bad_signature"
    assert native.client.post(agent.PATH_WAKE).status_code == 401
    assert agents.count == 0


def test_a_request_counts_once(native: Native, agents: WaitingAgents) -> None:
    headers = ONE.headers("POST", agent.PATH_WAKE)

    assert native.post(ONE, agent.PATH_WAKE, b"", headers).status_code == 200
    assert native.post(ONE, agent.PATH_WAKE, b"", headers).json()["code"] == "bad_signature"


def test_agents_that_wait_leave_threads_and_connections_to_others(native: Native, agents: WaitingAgents) -> None:
    native.parts.waiting_agents = many = WaitingAgents(Times(hold=3))
    waiting = [Agent(node=f"1b000000-0000-4000-8000-{number:012}", key_number=1) for number in range(12)]
    for one in waiting:
        native.add(one)
    threads = [threading.Thread(target=asks, args=(native, one)) for one in waiting]
    for thread in threads:
        thread.start()
    _until(lambda: many.count == len(waiting))

    began = time.monotonic()
    assert native.ask("GET", "/server", "read").status_code == 200

    assert time.monotonic() - began < 2
    assert many.count == len(waiting)
    for thread in threads:
        thread.join(20)


def test_a_server_without_remote_runs_says_so(native: Native) -> None:
    native.add(ONE)

    assert asks(native, ONE).status_code == 404
    assert json.loads(asks(native, ONE).content)["code"] == "invalid"
