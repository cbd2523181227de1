# SPDX-License-Identifier: Apache-2.0
"""Aborts in every state of an execution: it ends within ten seconds, and what ran is gone or told to be left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.engine import worlds
from tests.engine.test_takeovers import is_gone, silent_host
from tests.engine.worlds import PROJECT, World, local, remote, until
from tests.postgres import database_from
from tests.sshd import Sshd

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.errors import NotFound
from quarterdeck.core.executions import AbortAnswer, Execution, State
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Exec, Job, JobRef, ScriptUrl, Sequence, Step
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.services import activities, executions

IGNORANT = "trap '' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def shared(postgres_server: str, postgres_template: str) -> Iterator[World]:
    with database_from(postgres_server, postgres_template, "aborts") as url, worlds.made(url) as world, world.worker():
        yield world


@pytest.fixture
def world(shared: World) -> World:
    shared.nodes(local("a"), local("b"))
    return shared


def start(world: World, *steps: Step, nodes: str = "a") -> int:
    made = Job("job", PROJECT, node_filter=NodeFilter(include=Side(name=nodes)), sequence=Sequence(steps=steps))
    return world.run(world.save(made))


def abort(world: World, execution: int, account: Account | None = None) -> AbortAnswer:
    return world.do(lambda ctx: executions.abort(ctx, str(execution)), account)


def aborted(world: World, execution: int) -> tuple[AbortAnswer, Execution]:
    """Abort it, and wait for its end, which comes in time."""
    began = time.monotonic()
    answer = abort(world, execution)
    ended = world.ended(execution, 15)
    assert time.monotonic() - began < 10
    assert ended.state is State.ABORTED
    found, _ = world.do(lambda ctx: activities.find(ctx, ActivityQuery(project=PROJECT, most=1000)))
    assert [(one.status, one.aborted_by) for one in found if one.execution_id == execution] == [
        ("aborted", "quarterdeck")
    ]
    return answer, ended


RUNNING = AbortAnswer("running", "pending", State.RUNNING)
ENDED = AbortAnswer("aborted", "aborted", State.ABORTED)


def test_what_waits_ends_at_once_without_any_worker(fresh_postgres_url: str, tmp_path: Path) -> None:
    with worlds.made(fresh_postgres_url) as world:
        execution = world.command(f"touch {tmp_path}/ran")

        answer, ended = aborted(world, execution)

        assert (answer, ended.nodes) == (ENDED, None)
        with world.worker():
            time.sleep(0.5)
    assert not (tmp_path / "ran").exists()


def test_what_waits_for_a_worker_that_lives_ends_without_it(fresh_postgres_url: str) -> None:
    with worlds.made(fresh_postgres_url) as world, world.worker(most=1):
        first = world.command("sleep 600")
        until(lambda: world.steps(first) != {})
        second = world.command("true")

        answer, ended = aborted(world, second)
        aborted(world, first)

    assert (answer, ended.owner) == (RUNNING, None)


def test_what_a_worker_that_is_gone_ran_ends_at_once(fresh_postgres_url: str, tmp_path: Path) -> None:
    with worlds.made(fresh_postgres_url) as world:
        with world.worker():
            execution = world.command(f"touch {tmp_path}/begun; sleep 600")
            until((tmp_path / "begun").exists)

        answer, ended = aborted(world, execution)

        assert answer == ENDED
        assert world.steps(execution) == {("1", "here"): "abandoned"}
    assert (ended.nodes_failed, ended.nodes_succeeded) == (1, 0)


def test_a_local_command_is_ended(world: World, tmp_path: Path) -> None:
    execution = start(world, Exec(f"echo $$ >{tmp_path}/pid; sleep 600"), Exec("echo never"))
    until((tmp_path / "pid").exists)

    answer, _ = aborted(world, execution)

    assert answer == RUNNING
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert world.steps(execution) == {("1", "a"): "failed"}
    assert world.output(execution) == [" WARN: Aborted by quarterdeck", "a ERR: It was aborted."]


def test_a_local_command_that_ignores_the_first_request_is_killed(world: World, tmp_path: Path) -> None:
    execution = start(world, Exec(f"echo $$ >{tmp_path}/pid; {IGNORANT}"))
    until((tmp_path / "pid").exists)

    aborted(world, execution)

    until(lambda: is_gone(int((tmp_path / "pid").read_text())), 2)
    assert world.steps(execution) == {("1", "a"): "failed"}


def test_a_remote_command_is_ended(world: World, sshd: Sshd, tmp_path: Path) -> None:
    world.nodes(remote(sshd, "far", "127.0.5.1"))
    execution = start(world, Exec(f"echo $$ >{tmp_path}/pid; exec sleep 600"), nodes="far")
    until((tmp_path / "pid").exists)

    answer, _ = aborted(world, execution)

    assert answer == RUNNING
    until(lambda: is_gone(int((tmp_path / "pid").read_text())), 2)


def test_an_execution_ends_although_a_remote_command_cannot_be_ended(
    world: World, sshds: Callable[..., Sshd], tmp_path: Path
) -> None:
    # A node that does not take our mark and no second command, and a command that ignores the end of its terminal.
    server = sshds("127.0.5.2", extra="AcceptEnv NOTHING\nMaxSessions 1")
    world.nodes(remote(server, "far"))
    line = f"echo $$ >{tmp_path}/pid; trap '' TERM HUP PIPE; while :; do sleep 0.1; done"
    execution = start(world, Exec(line), nodes="far")
    until((tmp_path / "pid").exists)

    _, ended = aborted(world, execution)

    assert world.steps(execution) == {("1", "far"): "abandoned"}
    assert not is_gone(int((tmp_path / "pid").read_text()))
    assert ended.nodes_failed == 1
    worlds.end(int((tmp_path / "pid").read_text()))


def test_a_connection_that_is_being_opened_is_given_up(world: World, sshd: Sshd) -> None:
    with silent_host() as silent:
        world.nodes(replace(remote(sshd, "far", **{"ssh-connect-timeout": "60"}), hostname=silent))
        execution = start(world, Exec("true"), nodes="far")
        until(lambda: world.steps(execution) != {})
        time.sleep(0.2)

        aborted(world, execution)

    assert world.steps(execution) == {("1", "far"): "failed"}


def test_a_script_that_is_being_fetched_is_not_waited_for(world: World) -> None:
    with silent_web() as address:
        execution = start(world, ScriptUrl(address))
        until(lambda: world.steps(execution) != {})
        began = time.monotonic()

        aborted(world, execution)

        assert time.monotonic() - began < 4
    assert world.steps(execution) == {("1", "a"): "failed"}


def test_nothing_begins_after_an_abort_between_steps(world: World, tmp_path: Path) -> None:
    line = f"echo ${{node.name}} >>{tmp_path}/trace"
    execution = start(world, *(Exec(line) for _ in range(300)), nodes="[ab]")
    until((tmp_path / "trace").exists)

    aborted(world, execution)

    ran = (tmp_path / "trace").read_text().split()
    time.sleep(0.2)
    assert (tmp_path / "trace").read_text().split() == ran
    assert len(ran) < 300


def test_a_referenced_job_is_ended_with_its_caller(world: World, tmp_path: Path) -> None:
    inner = Job("inner", PROJECT, sequence=Sequence(steps=(Exec(f"echo $$ >{tmp_path}/pid; sleep 600"), Exec("true"))))
    world.save(inner)
    execution = start(world, JobRef("inner"), Exec("echo never"))
    until((tmp_path / "pid").exists)

    aborted(world, execution)

    assert is_gone(int((tmp_path / "pid").read_text()))
    assert world.steps(execution) == {("1", "a"): "failed", ("1[a]/1", "here"): "failed"}


def test_what_has_ended_is_told_so(world: World) -> None:
    execution = start(world, Exec("true"))
    world.ended(execution)

    assert abort(world, execution) == AbortAnswer(
        "previously succeeded", "failed", State.SUCCEEDED, "Job is not running"
    )
    assert world.execution(execution).aborted_by == ""


def test_of_two_aborts_the_first_counts(world: World) -> None:
    execution = start(world, Exec(IGNORANT))
    until(lambda: world.steps(execution) != {})
    somebody = Account(id=AccountId("u-1"), name="somebody", kind="user", roles=frozenset({"admin"}))

    answers = [abort(world, execution), abort(world, execution, somebody)]
    ended = world.ended(execution, 10)

    assert answers == [RUNNING, RUNNING]
    assert ended.aborted_by == SYSTEM.name
    assert world.output(execution).count(" WARN: Aborted by quarterdeck") == 1


def test_an_abort_of_nothing_is_told_so(world: World) -> None:
    with pytest.raises(NotFound, match="Execution ID does not exist: 987654"):
        abort(world, 987654)


@contextmanager
def silent_web() -> Iterator[str]:
    """An address that answers after a while."""
    over = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(30)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/script"
        finally:
            over.set()
            server.shutdown()
            thread.join()
