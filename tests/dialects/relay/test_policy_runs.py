# SPDX-License-Identifier: Apache-2.0
"""Runs of policies as a server's own worker asks for them: over a real socket, from a relay's edge to its agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives import serialization
from tests.agents import Agent, private_key
from tests.dialects.relay.conftest import KEYLESS, NEAR, OUTSIDE, Make, Relay
from tests.dialects.relay.test_remote_runs import served, waiting, with_runs

from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import Topology
from quarterdeck.core.remote_runs import Order, Printed, RunEnd
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import policy_runs
from quarterdeck.relaying.links import Signer
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.policy_runs import PolicyRuns
from quarterdeck.relaying.waiting_agents import Times, WaitingAgents

WORKER_KEY, OTHER_KEY = 6, 7
WORKER = Agent(node="root", key_number=WORKER_KEY)


@dataclass
class Bench:
    """The root on a real socket, and what its workers ask it with."""

    root: Relay
    url: str
    agents: WaitingAgents

    def runs(self, key_number: int = WORKER_KEY) -> PolicyRuns:
        key = private_key(key_number).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return policy_runs.own(self.url, "", Signer(node=ROOT, key=SigningKey(key)))

    def run(self, node: str, order: Order | None = None, key_number: int = WORKER_KEY) -> list[Printed | RunEnd]:
        """All that is told of a run."""

        async def story() -> list[Printed | RunEnd]:
            async with aclosing(self.runs(key_number).run(NodeId(node), order or Order())) as events:
                return [event async for event in events]

        return asyncio.run(asyncio.wait_for(story(), 20))


@pytest.fixture
def bench(make: Make) -> Iterator[Bench]:
    agents = WaitingAgents(Times(hold=20, back=0.2, look=0.05))
    root = with_runs(make(), agents)
    own = Listing(topology=Topology(ROOT, {}), keys={ROOT: (WORKER.certificate,)}, server=ROOT)
    parts = root.edge.parts
    root.edge.parts = replace(parts, door=Door(nodes=parts.nodes, own=NodesList(lambda: own)))
    with served(root) as client:
        yield Bench(root, f"http://{client.base_url.host}:{client.base_url.port}", agents)


def test_what_the_agent_prints_comes_with_its_end(bench: Bench) -> None:
    agent = waiting(bench.agents, "one", "zwei ✓")

    told = bench.run(NEAR.node, Order(conditions=("a", "b")))

    assert told == [Printed("one"), Printed("zwei ✓"), RunEnd(status=0, via="agent")]
    assert (agent.order["conditions"], agent.order["audit"]) == (["a", "b"], False)


def test_a_run_that_is_only_to_look_is_one_for_the_agent(bench: Bench) -> None:
    agent = waiting(bench.agents)

    bench.run(NEAR.node, Order(audit=True))

    assert agent.order["audit"] is True


def test_a_node_that_nothing_reaches_and_one_that_is_not_known_are_told_apart(bench: Bench) -> None:
    (away,), (unknown,) = bench.run(KEYLESS.node), bench.run("ghost")

    assert isinstance(away, RunEnd)
    assert isinstance(unknown, RunEnd)
    assert away.problem.startswith("there is no way to reach it: its agent does not wait here")
    assert unknown.problem == "it is not below this server."


def test_a_server_that_refuses_or_is_away_is_told(bench: Bench) -> None:
    (forged,) = bench.run(NEAR.node, key_number=OTHER_KEY)
    with_runs(bench.root, bench.agents, enabled=False)
    (off,) = bench.run(NEAR.node)
    bench.url = "http://127.0.0.1:1"
    (away,) = bench.run(NEAR.node)

    assert "answers with status 401" in getattr(forged, "problem", "")
    assert "answers with status 404" in getattr(off, "problem", "")
    assert "cannot be reached" in getattr(away, "problem", "")


def test_a_worker_may_come_from_anywhere(bench: Bench) -> None:
    body = b"keep_output=true&format=json&nodes=ghost"

    assert bench.root.signed(WORKER, "POST", "remote-run/nodes", body, at=OUTSIDE).status_code == 200
    assert bench.root.ask("POST", "remote-run/nodes", content=body, at=OUTSIDE).status_code == 403
