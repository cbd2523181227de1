# SPDX-License-Identifier: Apache-2.0
"""Runs that the Rudder API asks for, of agents that wait at the server. Without any: `cases/nodes.yaml`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.agents import Agent
from tests.served import Served

from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.parts import Parts
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.waiting_agents import Times, WaitingAgents

ONE = Agent(node="1a000000-0000-4000-8000-000000000001", hostname="one.example.com")
ALL = "/rudder/api/latest/nodes/applyPolicy"
SINGLE = f"/rudder/api/latest/nodes/{ONE.node}/applyPolicy"


@pytest.fixture
def agents() -> WaitingAgents:
    return WaitingAgents(Times(hold=20, back=0.2, look=0.05))


@pytest.fixture
def client(served: Served, agents: WaitingAgents) -> Iterator[httpx.Client]:
    """A server whose agents may wait, with ONE beside the root."""
    with served.unit_of_work() as ctx:
        ctx.store.nodes.add(ONE.as_node())
    nodes = {ROOT: ListedNode("server.example.com", ROOT), NodeId(ONE.node): ListedNode(ONE.hostname, ROOT)}
    runs = RemoteRuns(nodes=NodesList(lambda: Listing(topology=Topology(ROOT, nodes))), agents=agents)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with runs.working():
            yield

    app = mount({"/rudder/api": RudderDialect(parts=Parts(agents=runs))}, served.database, threads=4, lifespan=lifespan)
    headers = {"X-API-Token": served.tokens["admin"]}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as made:
        yield made


class Waiting(threading.Thread):
    """An agent that waits, prints two lines when it is woken, and ends."""

    def __init__(self, agents: WaitingAgents) -> None:
        super().__init__(daemon=True)
        self.agents = agents
        self.order: dict[str, Any] = {}
        self.start()
        while not agents.count:
            time.sleep(0.005)

    def run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        async for told in self.agents.hold(NodeId(ONE.node)):
            self.order = json.loads(told)
        if "run" not in self.order:
            return  # let go without one
        run = self.agents.belongs(NodeId(ONE.node), self.order["run"])
        for number, (text, status) in enumerate(((b"", None), (b"first\n", None), (b"second\n", 0))):
            await self.agents.put(run, number, text, status)


def test_one_node_runs_and_its_output_is_the_answer(client: httpx.Client, agents: WaitingAgents) -> None:
    agent = Waiting(agents)

    answer = client.post(SINGLE, json={"classes": ["a", "b"]})

    assert (answer.status_code, answer.text) == (200, "first\nsecond\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert agent.order["conditions"] == ["a", "b"]


def test_classes_in_a_form_count_as_well(client: httpx.Client, agents: WaitingAgents) -> None:
    agent = Waiting(agents)

    assert client.post(SINGLE, data={"classes": "a"}).text == "first\nsecond\n"
    assert agent.order["conditions"] == ["a"]


def test_one_node_that_does_not_wait_is_said_so_at_once(client: httpx.Client) -> None:
    answer = client.post(SINGLE)

    assert answer.status_code == 503
    assert answer.json()["errorDetails"] == (
        f"Node '{ONE.node}' can not be asked to run: its agent does not wait here for orders"
        " (quarterdeck-agent listen). It runs by itself at its next interval."
    )


def test_of_all_nodes_those_that_wait_start_and_the_others_say_why_not(
    client: httpx.Client, agents: WaitingAgents
) -> None:
    agent = Waiting(agents)

    answer = client.post(ALL)
    agent.join(10)

    results = {one["id"]: one["result"] for one in answer.json()["data"]}
    assert results.keys() == {"root", ONE.node}
    assert results[ONE.node] == "Started"
    assert results["root"].startswith(
        "An error occurred when applying policy on Node 'root', cause is: there is no way"
    )
    assert agent.order["output"] is False


@pytest.mark.parametrize("path", [ALL, SINGLE])
def test_a_class_that_is_none_is_refused_and_nothing_runs(
    path: str, client: httpx.Client, agents: WaitingAgents
) -> None:
    agent = Waiting(agents)

    answer = client.post(path, json={"classes": ["class~1"]})

    assert answer.status_code == 500
    assert "invalid condition: class~1, should match ^[a-zA-Z0-9][a-zA-Z0-9_]*$" in answer.json()["errorDetails"]
    assert agent.order == {}
