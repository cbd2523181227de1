# SPDX-License-Identifier: Apache-2.0
"""Jobs' commands over the agent's own connection, over a tree of real processes: nobody has SSH here."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Site, accept, listening, site
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory

pytestmark = [pytest.mark.xdist_group("node commands"), pytest.mark.timeout(300)]

PROJECT = "behind"
SCRIPT = """#!/bin/sh
echo "out of $1"
echo "and more" >&2
exit 3
"""
ALL = "(near|far|closed)1.*"


@dataclass(frozen=True)
class Tree:
    """A server, a relay below it, and one below that.

    A machine that takes commands is at the server, another behind both relays; at the first relay is one that takes
    none.
    """

    site: Site
    relay: Relay
    near: RelayedMachine
    far: RelayedMachine
    closed: RelayedMachine

    def run(self, nodes: str, **what: Any) -> int:
        """Start a command or a script on nodes by a pattern of their names; the execution."""
        asked = {"filter": {"name": nodes}, "keepgoing": True, "threadcount": 3, **what}
        return int(self.site.native("POST", f"/projects/{PROJECT}/executions", asked)["id"])

    def answers(self) -> bool:
        """Whether the server is there, and the agents behind it are again."""
        try:
            return self.ended(self.run("(near|far)1.*", command="true")) == "succeeded"
        except httpx.TransportError:
            return False

    def execution(self, number: int) -> Any:
        return self.site.native("GET", f"/executions/{number}")

    def ended(self, number: int) -> str:
        """How an execution ended."""
        assert eventually(lambda: self.execution(number)["ended"] is not None, 90), self.trouble(number)
        return str(self.execution(number)["state"])

    def lines(self, number: int, level: str = "") -> list[str]:
        """What its log has, of a level if one is given."""
        found = self.site.native("GET", f"/executions/{number}/output?bytes=4194304")["entries"]
        return [line for one in found if level in ("", one["level"]) for line in one["text"].splitlines()]

    def states(self, number: int) -> dict[str, tuple[str, int | None]]:
        """State and exit status of each node, by the first word of its name."""
        found = self.execution(number)["nodeStates"]
        return {one["node"].partition(".")[0]: (one["state"], one["exitStatus"]) for one in found}

    def trouble(self, number: int) -> Any:
        """For people who read a failure."""
        logs = [(one.state / "listener.log").read_text() for one in (self.near, self.far, self.closed)]
        return self.execution(number), self.lines(number), logs, self.relay.log.read_text()[-2000:]


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with ExitStack() as stack:
        served = stack.enter_context(site(stack.enter_context(temporary_directory())))
        token = relays.enrolment_token(served)
        relay = relays.relay(served, "relay1", token)
        stack.callback(relay.end)
        below = relays.relay(served, "relay2", token, above=relay)
        stack.callback(below.end)
        near, closed = (RelayedMachine(served, name, relay) for name in ("near1", "closed1"))
        far = RelayedMachine(served, "far1", below)
        accept(near)  # this one at the server itself
        for machine in (far, closed):
            machine.enroll_through_relay(token)
        for machine in (near, far):
            stack.enter_context(listening(machine, "--commands"))
        stack.enter_context(listening(closed))
        properties = {"project.inventory.source": "all", "project.node-transport": "agent"}
        served.native("PUT", "/projects", {"name": PROJECT, "properties": properties})
        made = Tree(served, relay, near, far, closed)
        assert eventually(made.answers, PATIENCE_SECONDS), made.trouble(1)
        yield made


def marker() -> str:
    """Seconds that nobody else sleeps."""
    return f"{86_000 + secrets.randbelow(10**9) / 10**9:.9f}"


def sleeping(marker: str) -> list[int]:
    """The processes on this machine that were started with such an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if marker.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_nodes_at_the_server_and_behind_two_relays_carry_out_a_script(tree: Tree) -> None:
    number = tree.run("(near|far)1.*", script=SCRIPT, args="order")

    assert tree.ended(number) == "failed"
    assert tree.states(number) == {"near1": ("failed", 3), "far1": ("failed", 3)}, tree.trouble(number)
    assert tree.lines(number, "INFO") == ["out of order"] * 2
    assert tree.lines(number, "WARN") == []
    assert [line for line in tree.lines(number, "ERR") if line == "and more"] == ["and more"] * 2


def test_a_node_that_does_not_allow_commands_carries_none_out(tree: Tree) -> None:
    number = tree.run("closed1.*", command=f"touch {tree.closed.files}/made")

    assert tree.ended(number) == "failed"
    assert any("takes no commands (quarterdeck-agent listen --commands)" in line for line in tree.lines(number, "ERR"))
    assert list(tree.closed.files.iterdir()) == []


def test_an_abort_ends_a_silent_command_behind_relays_and_what_it_started_elsewhere(tree: Tree) -> None:
    mine = marker()
    number = tree.run("far1.*", command=f"setsid sleep {mine} & trap '' TERM; sleep {mine}; sleep {mine}")
    assert eventually(lambda: len(sleeping(mine)) == 2, 30), tree.trouble(number)
    began = time.monotonic()

    tree.site.native("POST", f"/executions/{number}/abort")

    assert tree.ended(number) == "aborted"
    assert time.monotonic() - began < 10
    assert eventually(lambda: not sleeping(mine), 5)
    assert tree.states(number)["far1"][0] == "failed", tree.trouble(number)


def test_no_output_is_left_out_however_much_there_is(tree: Tree) -> None:
    number = tree.run("far1.*", command="seq 1 400000 | sed 's/^/a line of many bytes /'; echo end >&2")

    assert tree.ended(number) == "succeeded", tree.trouble(number)
    found = tree.site.client.get(f"/quarterdeck/api/1/executions/{number}/follow").text
    printed = [json.loads(line) for line in found.splitlines()]
    text = "".join(one["text"] for one in printed if one["type"] == "output" and one["level"] == "INFO")
    assert text == "".join(f"a line of many bytes {number}\n" for number in range(1, 400_001))


def test_commands_and_runs_do_not_wait_for_each_other(tree: Tree) -> None:
    mine = marker()
    number = tree.run("far1.*", command=f"sleep {mine}")
    assert eventually(lambda: bool(sleeping(mine)), 30)

    try:
        asked = {"keep_output": "true", "nodes": tree.far.node}
        run = tree.site.client.post("/rudder/relay-api/1/remote-run/nodes", data=asked).text
        other = tree.run("far1.*", command="echo beside")

        assert "component(s)" in run
        assert tree.ended(other) == "succeeded"
    finally:
        tree.site.native("POST", f"/executions/{number}/abort")
    assert tree.ended(number) == "aborted"


def test_a_command_whose_worker_is_gone_is_stopped(tree: Tree) -> None:
    mine = marker()
    number = tree.run("far1.*", command=f"sleep {mine}")
    assert eventually(lambda: bool(sleeping(mine)), 30)

    os.kill(tree.site.server.one("worker-process").pid, signal.SIGKILL)

    assert eventually(lambda: not sleeping(mine), 15), tree.trouble(number)
    assert tree.ended(number) == "failed"


def test_a_command_is_stopped_and_lost_with_the_server_process_that_knows_of_it(tree: Tree) -> None:
    mine = marker()
    number = tree.run("far1.*", command=f"sleep {mine}")
    assert eventually(lambda: bool(sleeping(mine)), 30)

    os.kill(tree.site.server.one("api-process").pid, signal.SIGKILL)

    assert eventually(lambda: not sleeping(mine), 15)
    assert eventually(tree.answers, PATIENCE_SECONDS)
    assert tree.ended(number) == "failed"
    assert any("What became of the command is not known" in line for line in tree.lines(number, "ERR"))


def test_the_way_to_a_node_is_shown(tree: Tree) -> None:
    shown = tree.site.native("GET", f"/projects/{PROJECT}/nodes")

    assert {one["transport"] for one in shown if one["source"] == "inventory"} == {"agent"}
    assert {one["transport"] for one in shown if one["source"] == "server"} == {"local"}


def test_where_ssh_does_not_get_there_the_agent_does(tree: Tree) -> None:
    path = f"/projects/{PROJECT}"
    ways = {"project.node-transport": "ssh,agent", "project.ssh-user": "root", "project.ssh-key-secret": "none"}
    tree.site.native("PUT", "/secrets/none", {"value": "no key"})
    try:
        tree.site.native("POST", path, {"properties": {**ways, "project.ssh-port": "1"}})
        number = tree.run("far1.*", command="echo there")

        assert tree.ended(number) == "succeeded", tree.trouble(number)
        assert tree.lines(number, "INFO") == ["there"]
        assert any(line.startswith("Reached over its agent, after SSH: ") for line in tree.lines(number, "WARN"))
    finally:
        tree.site.native("POST", path, {"properties": {**dict.fromkeys(ways), "project.node-transport": "agent"}})
