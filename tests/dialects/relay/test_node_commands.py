# SPDX-License-Identifier: Apache-2.0
"""Who may order commands: the server above by its signature, on the root its own workers; nobody else at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.agents import Agent
from tests.dialects.relay.conftest import LOOPBACK, NEAR, OUTSIDE, STRANGER, Make, Relay

from quarterdeck.core.ids import ROOT
from quarterdeck.core.node_commands import End
from quarterdeck.core.relays import Topology
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.formats import node_commands as lines
from quarterdeck.relaying.node_commands import NodeCommands
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands

WORKER = Agent(node="root", key_number=6)
FORGER = Agent(node="root", key_number=7)
PATH = f"commands/{NEAR.node}/6f1b4b0e-0000-4000-8000-000000000001"


@pytest.fixture
def ordered(make: Make) -> Relay:
    """The root, as its workers ask it."""
    relay = make(authorize=lambda token, right: None)
    parts = relay.edge.parts
    own = Listing(topology=Topology(ROOT, {}), keys={ROOT: (WORKER.certificate,)}, server=ROOT)
    commands = NodeCommands(nodes=parts.nodes, agents=WaitingCommands(), others=WaitingAgents())
    door = Door(nodes=parts.nodes, authorize=parts.door.authorize, own=NodesList(lambda: own))
    relay.edge.parts = replace(parts, door=door, commands=commands)
    return relay


def test_a_worker_of_the_server_may_order_from_anywhere(ordered: Relay) -> None:
    answer = ordered.signed(WORKER, "POST", PATH, b"sealed", at=OUTSIDE)

    (end,) = [lines.decode(line) for line in answer.content.splitlines()]
    assert (answer.status_code, isinstance(end, End) and end.ending) == (200, "unreachable")
    assert answer.headers["content-type"].startswith("application/x-ndjson")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("one", [FORGER, NEAR, STRANGER], ids=["forger", "node", "stranger"])
def test_nobody_else_may_by_a_signature(ordered: Relay, one: Agent, method: str) -> None:
    assert ordered.signed(one, method, PATH, b"sealed", at=LOOPBACK).status_code in (401, 403)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_neither_a_token_nor_the_machine_itself_is_enough(ordered: Relay, method: str) -> None:
    for headers in ({}, {"X-API-Token": "any"}):
        assert ordered.ask(method, PATH, at=LOOPBACK, headers=headers).status_code == 403


def test_an_order_that_comes_again_is_refused(ordered: Relay) -> None:
    headers = WORKER.headers("POST", f"/rudder/relay-api/1/{PATH}", b"sealed")

    codes = [ordered.ask("POST", PATH, content=b"sealed", headers=headers).status_code for _ in range(2)]

    assert codes == [200, 401]


def test_the_key_that_orders_commands_opens_remote_runs_and_nothing_else(ordered: Relay) -> None:
    # 404: remote runs are switched off in this relay.
    assert ordered.signed(WORKER, "POST", "remote-run/all", at=OUTSIDE).status_code == 404
    assert ordered.signed(FORGER, "POST", "remote-run/all", at=OUTSIDE).status_code == 401
    assert ordered.signed(WORKER, "GET", "system/info", at=OUTSIDE).status_code in (401, 403)


def test_a_command_that_is_not_here_cannot_be_stopped(ordered: Relay) -> None:
    assert ordered.signed(WORKER, "DELETE", PATH).status_code == 404
