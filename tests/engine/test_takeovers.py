# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed or stopped: each execution reaches its true end, and nothing that had begun runs again."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy
from tests.engine.worlds import PROJECT, World, local, remote, until
from tests.sshd import Sshd

from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.executions import State
from quarterdeck.core.jobs import Dispatch, Exec, Job, Notification, Sequence
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.services import activities, executions
from quarterdeck.services.execution_work import LOST


@dataclass
class Story:
    """Executions whose commands count how often they run."""

    world: World
    directory: Path
    known: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, line: str, *more: str, nodes: str, keepgoing: bool = False, threadcount: int = 1) -> int:
        """A job of this name whose first step counts; on nodes that fit."""
        counted = f"echo ${{node.name}} >>{self.directory}/{name}; {line}"
        job = Job(
            name,
            PROJECT,
            node_filter=NodeFilter(include=Side(name=nodes)),
            dispatch=Dispatch(keepgoing=keepgoing, threadcount=threadcount),
            sequence=Sequence(steps=(Exec(counted), *(Exec(one) for one in more))),
            notification=Notification(
                on_failure_urls=("http://127.0.0.1:9/",), on_success_urls=("http://127.0.0.1:9/",)
            ),
        )
        self.known[name] = self.world.run(self.world.save(job))
        return self.known[name]

    def runs(self, name: str) -> list[str]:
        """The nodes on which the first step ran."""
        path = self.directory / name
        return path.read_text().split() if path.exists() else []

    def ended(self, name: str) -> State:
        """Wait for the end; everything that follows from one has followed once."""
        execution = self.known[name]
        state = self.world.ended(execution).state
        found, _ = self.world.do(lambda ctx: activities.find(ctx, ActivityQuery(project=PROJECT, most=1000)))
        assert [one.execution_id for one in found].count(execution) == 1
        assert len(self.world.do(lambda ctx: ctx.store.notifications.of(execution))) == 1
        assert "begun" not in self.world.steps(execution).values()
        return state

    def steps(self, name: str) -> dict[str, str]:
        """State by `step node`."""
        return {f"{step} {node}": state for (step, node), state in self.world.steps(self.known[name]).items()}

    def told(self, name: str) -> list[str]:
        return self.world.output(self.known[name])


@pytest.fixture
def story(world: World, tmp_path: Path) -> Story:
    return Story(world, tmp_path)


@contextmanager
def silent_host() -> Iterator[str]:
    """An address at which somebody takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def locked(world: World, statement: str) -> Iterator[None]:
    """Meanwhile a transaction holds a lock."""
    with world.database.engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement))
        yield
        connection.rollback()


def waits(world: World) -> bool:
    """Whether somebody waits for a lock."""
    query = sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory'")
    return bool(world.do(lambda ctx: ctx.store.run(query).scalar_one()))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_a_killed_worker_ran_reaches_its_true_end_and_runs_no_second_time(
    story: Story, sshd: Sshd, tmp_path: Path
) -> None:
    world = story.world
    with silent_host() as silent:
        silence = remote(sshd, "silent", **{"ssh-connect-timeout": "60"})
        far = remote(sshd, "far", "127.0.4.1")
        world.nodes(*(local(name) for name in "abcd"), far, replace(silence, hostname=silent))
        with world.process(most=9) as worker:
            wait = "sleep 600"
            story.start("here", f"echo $$ >{tmp_path}/pid; exec {wait}", "echo never", nodes="a")
            story.start("there", wait, nodes="far")
            story.start("connecting", wait, nodes="silent")
            story.start("talking", "while :; do echo word; sleep 0.01; done", nodes="a")
            story.start("going-on", f"[ ${{node.name}} != b ] || {wait}", nodes="[abcd]", keepgoing=True)
            story.start("not-going-on", f"[ ${{node.name}} != b ] || {wait}", nodes="[abcd]")
            story.start(
                "ending", f"until [ -e {tmp_path}/end ]; do sleep 0.02; done; touch {tmp_path}/ended", nodes="a"
            )
            with locked(world, "LOCK TABLE activities IN SHARE MODE"):
                story.start("finishing", "true", nodes="a")
                for name in ("here", "there", "talking", "ending", "finishing"):
                    until(lambda name=name: bool(story.runs(name)), 30)  # type: ignore[misc]  # the loop's
                for name in ("going-on", "not-going-on"):
                    until(lambda name=name: story.runs(name) == ["a", "b"], 30)  # type: ignore[misc]  # the loop's
                until(lambda: story.steps("connecting") == {"1 silent": "begun"}, 30)
                until(lambda: len(story.told("talking")) > 20, 30)
                until(lambda: story.steps("finishing") == {"1 a": "succeeded"} and waits(world), 30)
                with locked(world, f"SELECT 1 FROM executions WHERE id = {story.known['ending']} FOR UPDATE"):
                    (tmp_path / "end").touch()
                    until((tmp_path / "ended").exists, 30)
                    story.start("claimed", "true", nodes="a")
                    until(lambda: world.execution(story.known["claimed"]).owner is not None, 30)
                    story.start("waiting", "true", nodes="a")
                    time.sleep(0.3)
                    worker.kill()
                    worker.wait()
        pid = int((tmp_path / "pid").read_text())
        until(lambda: is_gone(pid), 5)
        assert story.runs("waiting") == story.runs("claimed") == []

        with world.worker():
            ends = {name: story.ended(name) for name in story.known}

    for name in ("here", "there", "connecting", "talking", "ending", "going-on", "not-going-on"):
        assert ends[name] is State.FAILED, name
        assert any(LOST in line for line in story.told(name)), name
    for name in ("finishing", "claimed", "waiting"):
        assert ends[name] is State.SUCCEEDED, name
        assert story.runs(name) == ["a"], name
    for name in ("here", "talking", "ending"):
        assert story.runs(name) == ["a"], name
        assert story.steps(name) == {"1 a": "abandoned"}, name
    assert story.runs("there") == ["far"]
    assert story.runs("connecting") == []
    assert story.steps("connecting") == {"1 silent": "abandoned"}
    assert story.runs("going-on") == ["a", "b", "c", "d"]
    assert story.steps("going-on") == {"1 a": "succeeded", "1 b": "abandoned", "1 c": "succeeded", "1 d": "succeeded"}
    assert story.runs("not-going-on") == ["a", "b"]
    assert story.steps("not-going-on") == {"1 a": "succeeded", "1 b": "abandoned"}
    assert not any("echo never" in line for line in story.told("here"))


def test_a_worker_that_is_stopped_for_a_while_goes_on_where_it_was(story: Story, tmp_path: Path) -> None:
    world = story.world
    world.here("a", "b")
    with world.process() as worker, world.worker() as other:
        world.do(lambda ctx: ctx.store.workers.drain(other.worker))
        story.start("job", "sleep 0.3", f"echo ${{node.name}} >>{tmp_path}/second; sleep 0.3", nodes="[ab]")
        until(lambda: bool(story.runs("job")))
        worker.send_signal(signal.SIGSTOP)
        world.do(lambda ctx: ctx.store.workers.drain(other.worker, draining=False))
        time.sleep(2)
        seen = story.runs("job")
        worker.send_signal(signal.SIGCONT)

        assert story.ended("job") is State.SUCCEEDED

    assert seen == ["a"]
    assert story.runs("job") == ["a", "b"]
    assert (tmp_path / "second").read_text().split() == ["a", "b"]


def test_an_abort_ends_what_a_stopped_worker_runs_and_it_obeys_when_it_wakes(story: Story, tmp_path: Path) -> None:
    world = story.world
    world.here("a")
    with world.process() as worker:
        story.start("job", f"echo $$ >{tmp_path}/pid; sleep 600; true", f"touch {tmp_path}/never", nodes="a")
        until((tmp_path / "pid").exists)
        worker.send_signal(signal.SIGSTOP)
        with world.worker():
            began = time.monotonic()
            answer = world.do(lambda ctx: executions.abort(ctx, str(story.known["job"])))
            state = story.ended("job")
            took = time.monotonic() - began
            worker.send_signal(signal.SIGCONT)
            until(lambda: is_gone(int((tmp_path / "pid").read_text())))

    assert (answer.abort, state) == ("pending", State.ABORTED)
    assert took < 10
    assert story.steps("job") == {"1 a": "abandoned"}
    assert not (tmp_path / "never").exists()


def test_two_workers_share_many_executions_and_run_each_once(story: Story) -> None:
    world = story.world
    world.here("a")
    with world.worker(most=3) as one, world.worker(most=3) as other:
        names = [f"job-{number}" for number in range(24)]
        for name in names:
            story.start(name, "sleep 0.1", nodes="a")

        states = [story.ended(name) for name in names]

        owners = {world.execution(story.known[name]).owner for name in names}
        assert owners == {one.worker, other.worker}
    assert states == [State.SUCCEEDED] * 24
    assert all(story.runs(name) == ["a"] for name in names)


def test_a_draining_worker_takes_nothing_and_finishes_what_it_has(story: Story, tmp_path: Path) -> None:
    world = story.world
    world.here("a")
    with world.worker() as first:
        story.start("before", f"until [ -e {tmp_path}/end ]; do sleep 0.02; done", nodes="a")
        until(lambda: bool(story.runs("before")))
        world.do(lambda ctx: ctx.store.workers.drain(first.worker))
        story.start("after", "true", nodes="a")
        time.sleep(1.5)
        assert story.runs("after") == []
        (tmp_path / "end").touch()
        assert story.ended("before") is State.SUCCEEDED

        with world.worker() as second:
            assert story.ended("after") is State.SUCCEEDED
            assert world.execution(story.known["after"]).owner == second.worker


def test_a_worker_that_is_asked_to_end_keeps_what_was_written_and_leaves_the_rest(story: Story) -> None:
    world = story.world
    world.nodes(local("a"), local("b"))
    with world.worker():
        story.start("job", "echo said; [ ${node.name} = b ] || sleep 600", nodes="[ab]", keepgoing=True)
        until(lambda: bool(story.runs("job")))
        time.sleep(0.05)

    with world.worker():
        assert story.ended("job") is State.FAILED

    assert story.told("job") == ["a INFO: said", f" WARN: {LOST}", "b INFO: said"]
    assert story.runs("job") == ["a", "b"]


def test_a_worker_that_was_forgotten_while_it_lived_registers_again(world: World) -> None:
    with world.worker() as worker:
        world.do(lambda ctx: ctx.store.run(sqlalchemy.text("DELETE FROM workers")))

        until(lambda: [one.id for one in world.workers()] == [worker.worker])


def test_workers_that_are_gone_are_forgotten_unless_they_left_something(story: Story) -> None:
    world = story.world
    world.here("a")
    with world.worker():
        story.start("done", "true", nodes="a")
        story.ended("done")
    with world.worker():
        story.start("left", "sleep 600", nodes="a")
        until(lambda: bool(story.runs("left")))
    with world.worker() as living:
        world.do(lambda ctx: ctx.store.workers.drain(living.worker))
        left = world.execution(story.known["left"]).owner
        world.do(lambda ctx: ctx.store.workers.forget(ctx.now))

        assert [one.id for one in world.workers()] == [left, living.worker]
