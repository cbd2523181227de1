# SPDX-License-Identifier: Apache-2.0
"""Executions from the request to the history, on this machine."""

from __future__ import annotations

from tests.engine.worlds import PROJECT, World, until

from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.executions import State
from quarterdeck.services import activities, executions


def test_a_command_runs_and_its_output_and_its_end_are_kept(world: World) -> None:
    with world.worker():
        execution = world.command("echo hello; echo oh >&2")

        ended = world.ended(execution)

    assert ended.state is State.SUCCEEDED
    assert sorted(world.output(execution)) == ["here ERR: oh", "here INFO: hello"]
    assert world.steps(execution) == {("1", "here"): "succeeded"}
    found, total = world.do(lambda ctx: activities.find(ctx, ActivityQuery(project=PROJECT)))
    assert (total, found[0].title, found[0].status, found[0].nodes_succeeded) == (1, "adhoc", "succeeded", 1)


def test_a_command_that_fails_makes_the_execution_fail(world: World) -> None:
    with world.worker():
        execution = world.command("exit 3")

        ended = world.ended(execution)

    assert ended.state is State.FAILED
    assert world.output(execution) == ["here ERR: Command failed with exit status 3"]


def test_an_abort_ends_a_command_that_takes_long(world: World) -> None:
    with world.worker():
        execution = world.command("echo begun; sleep 600")
        until(lambda: world.output(execution) == ["here INFO: begun"])

        answer = world.do(lambda ctx: executions.abort(ctx, str(execution)))
        ended = world.ended(execution, 10)

    assert (answer.abort, answer.state) == ("pending", State.RUNNING)
    assert (ended.state, ended.aborted_by) == (State.ABORTED, "quarterdeck")
