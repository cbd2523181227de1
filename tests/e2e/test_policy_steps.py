# SPDX-License-Identifier: Apache-2.0
"""Jobs whose steps apply policies: real agents that listen at the server and behind a relay, real files, real reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import NATIVE, PATIENCE_SECONDS, Kept, Site, accept, listening, site
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory

pytestmark = [pytest.mark.xdist_group("policy steps"), pytest.mark.timeout(300)]

PROJECT = "rollout"
ALL = "hasPolicyServer-root"
JOB = """
- name: {name}
  project: rollout
  loglevel: INFO
  options: {{look: {{value: 'false'}}}}
  nodefilters: {{dispatch: {{threadcount: 2, keepgoing: true}}, include: {{name: '{nodes}'}}}}
  sequence: {{keepgoing: false, commands: [{steps}]}}
"""
BEFORE = "{exec: echo before}"


def applying(**configuration: str) -> str:
    entries = ", ".join(f"{key.replace('_', '-')}: '{value}'" for key, value in configuration.items())
    return f"{{nodeStep: true, type: quarterdeck-apply-policies, configuration: {{{entries}}}}}"


@dataclass(frozen=True)
class Tree:
    """A server with a machine at it, which takes commands, and one behind a relay, which only runs policies."""

    site: Site
    relay: Relay
    near: RelayedMachine
    far: RelayedMachine

    def run(self, nodes: str, *steps: str, **options: str) -> int:
        """Import a job of these steps and start it; the execution."""
        name = f"job {time.monotonic_ns()}"
        document = JOB.format(name=name, nodes=nodes, steps=", ".join(steps)).encode()
        answer = self.site.client.post(f"{NATIVE}/projects/{PROJECT}/jobs/import?format=yaml", content=document)
        assert answer.is_success, answer.text
        assert answer.json()["failed"] == [], answer.text
        (job,) = answer.json()["succeeded"]
        return int(self.site.native("POST", f"/jobs/{job['id']}/run", {"options": options})["id"])

    def execution(self, number: int) -> Any:
        return self.site.native("GET", f"/executions/{number}")

    def ended(self, number: int) -> str:
        """How an execution ended."""
        assert eventually(lambda: self.execution(number)["ended"] is not None, 90), self.trouble(number)
        return str(self.execution(number)["state"])

    def lines(self, number: int) -> list[str]:
        found = self.site.native("GET", f"/executions/{number}/output?bytes=4194304")["entries"]
        return [line for one in found for line in one["text"].splitlines()]

    def trouble(self, number: int) -> Any:
        """For people who read a failure."""
        return self.execution(number), self.lines(number), self.relay.log.read_text()[-2000:]


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    with ExitStack() as stack:
        served = stack.enter_context(site(stack.enter_context(temporary_directory())))
        token = relays.enrolment_token(served)
        relay = relays.relay(served, "relay1", token)
        stack.callback(relay.end)
        near, far = (RelayedMachine(served, name, relay) for name in ("near1", "far1"))
        accept(near)  # this one at the server itself
        far.enroll_through_relay(token)
        stack.enter_context(listening(near, "--commands"))
        stack.enter_context(listening(far))
        properties = {"project.inventory.source": "all", "project.node-transport": "agent"}
        served.native("PUT", "/projects", {"name": PROJECT, "properties": properties})
        made = Tree(served, relay, near, far)

        def answer() -> bool:
            return made.ended(made.run("(near|far)1.*", applying())) == "succeeded"

        assert eventually(answer, PATIENCE_SECONDS), made.trouble(1)
        yield made


@pytest.fixture
def kept(tree: Tree, request: pytest.FixtureRequest) -> Iterator[tuple[Kept, Path]]:
    """A file that a rule is to keep on the near machine; the test says how."""
    name = request.node.name.removeprefix("test_")[:20]
    yield (story := Kept(tree.site, name)), tree.near.files / name
    story.remove()
    tree.site.settle()


def test_a_job_applies_policies_and_tells_the_compliance(tree: Tree, kept: tuple[Kept, Path]) -> None:
    story, target = kept
    story.set(target, "by a job", "enforce", ALL)
    tree.site.settle()

    number = tree.run("near1.*", BEFORE, applying(compliance="100"))

    assert tree.ended(number) == "succeeded", tree.trouble(number)
    assert target.read_text() == "by a job\n"
    lines = tree.lines(number)
    assert lines[0] == "before"
    assert any("repaired: Keep" in line for line in lines), lines
    assert lines[-1] == "Compliance of near1.example.com: 100 % (repaired 1)"


def test_what_is_not_as_compliant_as_wanted_fails(tree: Tree, kept: tuple[Kept, Path]) -> None:
    story, target = kept
    story.set(target, "never", "audit", ALL)
    tree.site.settle()

    strict = tree.run("near1.*", applying(compliance="100"))
    lenient = tree.run("near1.*", applying()) if tree.ended(strict) else 0

    assert tree.ended(strict) == "failed"
    assert not target.exists()
    assert tree.lines(strict)[-2:] == [
        "Compliance of near1.example.com: 0 % (not compliant 1)",
        "Compliance is 0 %, and should be at least 100 %",
    ]
    assert tree.ended(lenient) == "succeeded", tree.trouble(lenient)


def test_an_option_may_have_the_step_only_look(tree: Tree, kept: tuple[Kept, Path]) -> None:
    story, target = kept
    story.set(target, "later", "enforce", ALL)
    tree.site.settle()

    number = tree.run("near1.*", applying(audit="${option.look}"), look="true")

    assert tree.ended(number) == "succeeded", tree.trouble(number)
    assert not target.exists()
    assert tree.lines(number)[-1] == "Audit only: nothing was changed and no report was sent."


def test_nodes_behind_relays_apply_policies_too_without_taking_commands(tree: Tree) -> None:
    story, target = Kept(tree.site, "far"), tree.far.files / "far"
    story.set(target, "far away", "enforce", f"hasPolicyServer-{tree.relay.node}")
    tree.site.settle()

    number = tree.run("far1.*", applying(compliance="100"))

    assert tree.ended(number) == "succeeded", tree.trouble(number)
    assert target.read_text() == "far away\n"
    assert tree.lines(number)[-1] == "Compliance of far1.example.com: 100 % (repaired 1)"


def test_what_is_no_node_of_the_inventory_has_no_agent(tree: Tree) -> None:
    (server,) = [
        one["name"] for one in tree.site.native("GET", f"/projects/{PROJECT}/nodes") if one["source"] == "server"
    ]

    number = tree.run(server, applying())

    assert tree.ended(number) == "failed"
    assert any("is no node of the inventory" in line for line in tree.lines(number)), tree.trouble(number)
