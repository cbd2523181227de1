# SPDX-License-Identifier: Apache-2.0
"""Runs on demand over a tree of real processes: agents that listen at the server, and behind a relay."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Machine, Site, accept, listening, site
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory

pytestmark = [pytest.mark.xdist_group("remote runs"), pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Tree:
    """A server, a relay below it, a machine at each, both listening."""

    site: Site
    relay: Relay
    near: Machine
    far: RelayedMachine

    def ask(self, path: str, **form: str) -> httpx.Response:
        """The relay API of the root, from its own machine."""
        return self.site.client.post(f"/rudder/relay-api/1/remote-run/{path}", data={"keep_output": "true", **form})

    def listens(self) -> bool:
        """Whether both agents run when they are asked to."""
        return all("component(s)" in self.ask(f"nodes/{one.node}").text for one in (self.near, self.far))


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with ExitStack() as stack:
        served = stack.enter_context(site(stack.enter_context(temporary_directory())))
        token = relays.enrolment_token(served)
        relay = relays.relay(served, "relay1", token)
        stack.callback(relay.end)
        near, far = Machine(served, "near1"), RelayedMachine(served, "far1", relay)
        accept(near)
        far.enroll_through_relay(token)
        served.settle()
        for machine in (near, far):
            stack.enter_context(listening(machine))
        made = Tree(served, relay, near, far)
        assert eventually(made.listens, PATIENCE_SECONDS), (made.ask("all").text, relay.log.read_text())
        yield made


def test_nodes_at_the_server_and_behind_a_relay_run_and_their_output_comes_back(tree: Tree) -> None:
    answer = tree.ask("nodes", nodes=f"{tree.near.node},{tree.far.node}", format="json")

    told: dict[str, list[dict[str, object]]] = {}
    for line in answer.text.splitlines():
        document = json.loads(line)
        told.setdefault(document["node"], []).append(document)
    assert told.keys() == {tree.near.node, tree.far.node}
    for lines in told.values():
        assert lines[-1]["status"] == 0
        assert any("component(s)" in str(line.get("text")) for line in lines)


def test_all_reaches_every_machine_once(tree: Tree) -> None:
    answer = tree.ask("all", format="json")

    ends = [line for line in map(json.loads, answer.text.splitlines()) if line.get("status") == 0]
    assert sorted(line["node"] for line in ends) == sorted([tree.near.node, tree.far.node])


def test_the_rudder_api_streams_the_run_of_a_node_behind_a_relay(tree: Tree) -> None:
    began = time.monotonic()

    answer = tree.site.client.post(f"/rudder/api/latest/nodes/{tree.far.node}/applyPolicy")

    assert answer.status_code == 200
    assert "component(s)" in answer.text
    assert time.monotonic() - began < 30


def test_a_changed_policy_is_there_after_a_run_on_demand(tree: Tree) -> None:
    story, target = Kept(tree.site, "demand"), tree.near.files / "demand"
    story.set(target, "on demand", "enforce", "hasPolicyServer-root")
    tree.site.settle()

    text = tree.ask(f"nodes/{tree.near.node}").text

    assert "repaired" in text
    assert target.read_text() == "on demand\n"


def test_a_relay_that_is_away_adds_nothing(tree: Tree) -> None:
    tree.relay.kill()
    try:
        answer = tree.ask("nodes", nodes=f"{tree.near.node},{tree.far.node}")
        assert answer.status_code == 200
        assert "component(s)" in answer.text
        problem = json.loads(tree.ask(f"nodes/{tree.far.node}", format="json").text)
        assert (problem["node"], "cannot be reached" in problem["problem"]) == (tree.relay.node, True)
    finally:
        tree.relay.start()
    assert eventually(lambda: "component(s)" in tree.ask(f"nodes/{tree.far.node}").text, PATIENCE_SECONDS)
