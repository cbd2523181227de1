# SPDX-License-Identifier: Apache-2.0
"""Computing policies in several processes gives the same as in one, and leaves no process behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.common.fleets import TECHNIQUE

from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode, NodePolicy
from quarterdeck.core.rules import Rule
from quarterdeck.engine import generation_pool


def make_fleet(nodes: int) -> Fleet:
    """A rule that writes a line with the node's name everywhere."""
    directive = Directive(
        id=DirectiveId("motd"),
        name="motd",
        technique=TECHNIQUE.id,
        version=TECHNIQUE.version,
        parameters={"TEXT": ("Welcome to ${rudder.node.hostname}",)},
    )
    some = [FleetNode(id=NodeId(f"node-{number}"), hostname=f"host-{number}") for number in range(nodes)]
    rule = Rule(id=RuleId("welcome"), name="welcome", directives=frozenset({directive.id}))
    return Fleet(
        nodes=some,
        rules=[AppliedRule(rule, {node.id for node in some})],
        directives={directive.id: directive},
        techniques={TECHNIQUE.key: TECHNIQUE},
        methods={},
    )


def _policies(fleet: Fleet, processes: int, worth_seconds: float) -> list[NodePolicy]:
    parts = generation_pool.generate(fleet, processes=processes, worth_seconds=worth_seconds)
    return [policy for part in parts for policy in part.policies]


def test_several_processes_make_the_same_policies_as_one() -> None:
    fleet = make_fleet(2300)

    by_two = _policies(fleet, 2, worth_seconds=0)

    assert len(by_two) == 2300
    assert by_two == _policies(fleet, 1, worth_seconds=0)


@pytest.mark.parametrize(("worth_seconds", "expected"), [(60.0, 0), (0.0, 2)])
def test_processes_are_started_when_they_are_worth_it(worth_seconds: float, expected: int) -> None:
    parts = generation_pool.generate(make_fleet(2300), processes=2, worth_seconds=worth_seconds)
    next(parts)
    next(parts)

    assert len(multiprocessing.active_children()) == expected
    assert sum(len(part.policies) for part in parts) == 1300


_PARENT = """
import sys, time
from quarterdeck.engine import generation_pool
from tests.engine.test_generation_pool import make_fleet

if __name__ == "__main__":
    parts = generation_pool.generate(make_fleet(3000), processes=2, worth_seconds=0)
    next(parts), next(parts)
    print("computing", flush=True)
    time.sleep(3600)
"""


def test_no_process_of_the_pool_outlives_a_killed_worker() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", _PARENT], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"computing\n"
        children = _children(process.pid)
        process.kill()

    assert len(children) >= 2
    end = time.monotonic() + 20
    while any(map(_runs, children)):
        assert time.monotonic() < end, "a process of the pool lives on"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
