# SPDX-License-Identifier: Apache-2.0
"""The server, two relays below each other and a machine, each on a network of its own; and a cable that is out."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from tests import agents
from tests.agents import Agent
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Machine, Site, keep, listening, statuses
from tests.e2e.networks import Network, network
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory

from quarterdeck.formats import agent
from quarterdeck.storage import embedded

pytestmark = [pytest.mark.xdist_group("relay networks"), pytest.mark.timeout(300)]

ROOT, OUTER, INNER, NODE = "root", "outer", "inner", "node"
ROW = (ROOT, OUTER, INNER, NODE)


class Placed(Relay):
    """A relay on a host of its own, between two others."""

    def __init__(self, site: Site, hosts: Network, name: str, *, above: Relay | None = None) -> None:
        super().__init__(site, name, above=above)
        self.hosts = hosts
        self.url = f"https://{hosts.address(name, towards=ROW[ROW.index(name) + 1])}:{self.port}"

    def enroll(self, token: str) -> subprocess.CompletedProcess[str]:
        with self.hosts.inside(self.name):
            return super().enroll(token)

    def start(self, *prefix: str) -> None:
        with self.hosts.inside(self.name):
            super().start(*prefix)

    def _command(self, *arguments: str) -> list[str]:
        command = super()._command(*arguments)
        if "--listen" not in command:
            return command
        command[command.index("--listen") + 1] = f"0.0.0.0:{self.port}"
        above = f"https://{self.hosts.address(self.name, towards=ROW[ROW.index(self.name) - 1])}:{self.port}"
        return [*command, "--public-url", above]


@dataclass(frozen=True)
class Tree:
    """All of it. The thread of the tests is on the server's host."""

    hosts: Network
    site: Site
    outer: Placed
    inner: Placed
    machine: RelayedMachine
    token: str

    def runs(self, node: str) -> list[datetime]:
        """When the node's stored runs began."""
        query = "SELECT start FROM runs JOIN node_status s ON s.number = runs.node WHERE s.node_id = %s"
        with embedded.running(self.site.data) as url, psycopg.connect(url) as connection:
            return [row[0] for row in connection.execute(query, [node])]

    def asked_to_run(self) -> str:
        """What a run on demand of the machine prints."""
        form = {"nodes": self.machine.node, "keep_output": "true"}
        return self.site.client.post("/rudder/relay-api/remote-run/nodes", data=form).text


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with ExitStack() as stack:
        hosts = stack.enter_context(network(*ROW))
        directory = stack.enter_context(temporary_directory())
        stack.enter_context(hosts.inside(ROOT))
        site = Site(directory, host="0.0.0.0")
        stack.callback(site.close)
        site.url = f"https://{hosts.address(ROOT, towards=OUTER)}:{site.port}"
        token = relays.enrolment_token(site)
        outer = placed(stack, site, hosts, OUTER, token)
        inner = placed(stack, site, hosts, INNER, token, above=outer)
        machine = RelayedMachine(site, NODE, inner)
        with hosts.inside(NODE):
            assert machine.enroll_through_relay(token)["status"] == "accepted"
        site.settle()
        yield Tree(hosts, site, outer, inner, machine, token)


def placed(
    stack: ExitStack, site: Site, hosts: Network, name: str, token: str, *, above: Relay | None = None
) -> Placed:
    """A relay that is enrolled, promoted and serves."""
    made = Placed(site, hosts, name, above=above)
    stack.callback(made.end)
    done = made.enroll(token)
    assert done.returncode == 0, done
    site.ask("POST", f"/scaleoutrelay/promote/{made.node}")
    made.start()
    return made


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_a_machine_that_reaches_the_lowest_relay_only_has_everything_of_the_servers(tree: Tree) -> None:
    site, hosts, machine = tree.site, tree.hosts, tree.machine
    (site.data / "shared-folder").mkdir(exist_ok=True)
    (site.data / "shared-folder" / "banner").write_bytes(b"for everybody\n")
    copy = machine.files / "banner"
    keep(site, "look", machine.node, "file_from_shared_folder", source="banner", path=str(copy))
    site.settle()
    mirrored = tree.inner.data / "mirror" / "folder"
    assert eventually(lambda: list(mirrored.glob("trees/*/banner")) != [], PATIENCE_SECONDS), tree.inner.log.read_text()

    with hosts.inside(NODE):
        reached = [
            reaches(hosts.address(ROOT, towards=OUTER), site.port),
            reaches(hosts.address(OUTER, towards=INNER), tree.outer.port),
            reaches(hosts.address(INNER, towards=NODE), tree.inner.port),
        ]
        run = machine.run()
        with listening(machine):
            assert eventually(lambda: "component(s)" in from_root(tree), PATIENCE_SECONDS), from_root(tree)

    assert reached == [False, False, True]
    assert statuses(run)["look"] == "result_repaired"
    assert copy.read_bytes() == b"for everybody\n"
    assert relays.policy_server(site, machine.node) == tree.inner.node
    assert eventually(lambda: len(tree.runs(machine.node)) == 2, PATIENCE_SECONDS), site.trouble()


def from_root(tree: Tree) -> str:
    with tree.hosts.inside(ROOT):
        return tree.asked_to_run()


def test_while_a_cable_is_out_nodes_are_served_and_their_reports_pile_up_and_then_go_up_once(tree: Tree) -> None:
    site, hosts, machine = tree.site, tree.hosts, tree.machine
    story, target = Kept(site, "cable"), machine.files / "cable"
    story.set(target, "whatever happens", "enforce", f"hasPolicyServer-{tree.inner.node}")
    site.settle()
    with hosts.inside(NODE):
        machine.run()
    reporter = Agent(hostname="reporter.example.com", key_number=1)
    acknowledged: list[datetime] = []
    with hosts.inside(NODE), httpx.Client(base_url=tree.inner.url, verify=False, timeout=60, trust_env=False) as http:
        assert enrolled(http, reporter, tree.token).json()["status"] == "accepted"
        assert eventually(lambda: reported(http, reporter, acknowledged), PATIENCE_SECONDS)

        with hosts.cut(ROOT, OUTER):
            target.write_text("damaged\n")
            began = time.monotonic()
            run = machine.run()
            took = time.monotonic() - began
            refused = enrolled(http, Agent(hostname="late.example.com", key_number=2), tree.token)
            answers = [reported(http, reporter, acknowledged) for _ in range(60)]
            problem = from_root(tree)
            assert eventually(lambda: tree.inner.waiting() == [], 10), tree.inner.log.read_text()
            piled_up = tree.outer.waiting()

    assert run["counts"]["result_repaired"] == 1
    assert target.read_text() == "whatever happens\n"
    assert took < 25, "ten seconds are the wait for a server that does not answer"
    assert refused.status_code == 503
    assert all(answers)
    assert "component(s)" not in problem
    assert piled_up != []
    assert eventually(lambda: not set(acknowledged) - set(tree.runs(reporter.node)), PATIENCE_SECONDS), (
        tree.outer.log.read_text()
    )
    assert sorted(tree.runs(reporter.node)) == acknowledged
    assert eventually(lambda: details(story, machine).get("successRepaired") == 100.0, PATIENCE_SECONDS), site.trouble()
    assert tree.outer.waiting() == []
    assert [list((one.data / "spool" / "failed").glob("*.parcel")) for one in (tree.outer, tree.inner)] == [[], []]


def details(story: Kept, machine: Machine) -> dict[str, float]:
    """What compliance says of the rule on one machine."""
    (found,) = [one for one in story.compliance()["nodes"] if one["id"] == machine.node]
    return dict(found["complianceDetails"])


def enrolled(http: httpx.Client, one: Agent, token: str) -> httpx.Response:
    body = agent.canonical(one.enrolment(token))
    return http.post(agent.PATH_ENROLL, content=body, headers=one.headers("POST", agent.PATH_ENROLL, body))


def reported(http: httpx.Client, one: Agent, acknowledged: list[datetime]) -> bool:
    """Deliver a run that begins now; whether it was acknowledged."""
    start = datetime.now(UTC)
    start -= timedelta(microseconds=start.microsecond % 1000)
    parcel = one.parcel("report", one.run([agents.report(message=os.urandom(4).hex())], start=start))
    answer = http.post(agent.PATH_REPORTS, content=parcel, headers=one.headers("POST", agent.PATH_REPORTS, parcel))
    if answer.status_code == 202:
        acknowledged.append(start)
    return answer.status_code == 202
