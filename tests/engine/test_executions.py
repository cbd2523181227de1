# SPDX-License-Identifier: Apache-2.0
"""Executions from the request to the history, on this machine."""

from __future__ import annotations

import os
import time

import pytest
import sqlalchemy
from tests.engine import worlds
from tests.engine.worlds import PROJECT, World, until

from quarterdeck.core.accounts import Account
from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.executions import State
from quarterdeck.core.ids import AccountId
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_commands_on_the_server_run_as_the_user_that_the_operator_chose(fresh_postgres_url: str) -> None:
    with worlds.made(fresh_postgres_url, local_user="nobody") as world, world.worker():
        execution = world.command("id -un; echo $HOME; cat /proc/1/environ")

        assert world.ended(execution).state is State.FAILED
        told = world.output(execution)

    assert told[0] == "here INFO: nobody"
    assert any("Permission denied" in line for line in told)


def test_a_run_that_its_starter_may_not_do_any_more_fails_and_says_why(world: World) -> None:
    olga = Account(id=AccountId("u-1"), name="olga", kind="user", roles=frozenset({"admin"}))
    execution = world.command("true", account=olga)

    with world.worker():
        ended = world.ended(execution)

    assert ended.state is State.FAILED
    assert world.output(execution) == [" ERR: 'olga', who started it, has not the right adhoc.run any more."]


def test_what_this_server_s_key_cannot_open_fails_and_stops_nothing_else(world: World) -> None:
    sealed = world.command("true")
    other = world.command("true")
    world.do(lambda ctx: ctx.store.run(sqlalchemy.text(f"UPDATE executions SET options = '\\x00' WHERE id = {sealed}")))

    with world.worker(most=1):
        states = [world.ended(sealed).state, world.ended(other).state]

    assert states == [State.FAILED, State.SUCCEEDED]
    assert len(world.output(sealed)) == 1


def test_more_than_a_worker_runs_at_a_time_wait_without_delay(world: World) -> None:
    with world.worker(most=2):
        began = time.monotonic()
        executions = [world.command("true") for _ in range(20)]
        states = {world.ended(one).state for one in executions}
        took = time.monotonic() - began

    assert states == {State.SUCCEEDED}
    assert took < 8  # a look each second would make ten of it
