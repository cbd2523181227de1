# SPDX-License-Identifier: Apache-2.0
"""Workers that lose their database for a while: nothing begins, what runs goes on, and everything is kept in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.engine import proxies
from tests.engine.proxies import Proxy
from tests.engine.worlds import KEY, PROJECT, World, everywhere, made, until

from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.executions import State
from quarterdeck.core.jobs import Dispatch, Exec, Job, Sequence
from quarterdeck.services import activities
from quarterdeck.services.execution_work import LOST
from quarterdeck.storage.database import Database


@dataclass
class Cut:
    """A world, and the same as a worker sees it through a network that breaks."""

    world: World
    distant: World
    proxy: Proxy
    trace: Path

    def start(self, *lines: str, keepgoing: bool = False) -> int:
        """A job on all nodes, one after the other; each line says in the trace that it runs."""
        steps = tuple(
            Exec(f"echo {number}${{node.name}} >>{self.trace}; {line}") for number, line in enumerate(lines, 1)
        )
        dispatch = Dispatch(keepgoing=keepgoing)
        job = Job("job", PROJECT, node_filter=everywhere(), dispatch=dispatch, sequence=Sequence(steps=steps))
        return self.world.run(self.world.save(job))

    def runs(self) -> list[str]:
        """What ran, in this order."""
        return self.trace.read_text().split() if self.trace.exists() else []


@pytest.fixture
def cut(fresh_postgres_url: str, tmp_path: Path) -> Iterator[Cut]:
    with made(fresh_postgres_url) as world, proxies.to(fresh_postgres_url) as proxy:
        database = Database(proxy.url, pool_size=12, secret_key=KEY)
        yield Cut(world, World(database, world.site), proxy, tmp_path / "trace")
        database.close()


def activities_of(world: World, execution: int) -> int:
    found, _ = world.do(lambda ctx: activities.find(ctx, ActivityQuery(project=PROJECT)))
    return [one.execution_id for one in found].count(execution)


def test_while_the_database_is_away_what_runs_goes_on_and_nothing_begins(cut: Cut, tmp_path: Path) -> None:
    world = cut.world
    world.here("a", "b")
    with cut.distant.worker():
        execution = cut.start(
            f"echo before; touch {tmp_path}/begun; sleep 0.5; seq 1 20000; echo meanwhile >&2; touch {tmp_path}/done",
            "echo after",
        )
        until((tmp_path / "begun").exists)
        with cut.proxy.cut():
            until((tmp_path / "done").exists)
            time.sleep(1)
            meanwhile = cut.runs()

        assert world.ended(execution).state is State.SUCCEEDED

    assert meanwhile == ["1a"]
    assert cut.runs() == ["1a", "2a", "1b", "2b"]
    told = world.output(execution)
    assert told.count("a INFO: 20000") == told.count("a ERR: meanwhile") == told.count("a INFO: after") == 1
    assert len(told) == 2 * (20000 + 3)
    assert activities_of(world, execution) == 1


def test_what_another_worker_took_meanwhile_is_left_to_it_at_once(cut: Cut, tmp_path: Path) -> None:
    world = cut.world
    world.here("a", "b")
    with cut.distant.worker() as distant:
        execution = cut.start(
            f"[ ${{node.name}} = b ] || {{ touch {tmp_path}/begun; sleep 600; }}", "true", keepgoing=True
        )
        until((tmp_path / "begun").exists)
        with cut.proxy.cut(), world.worker() as near:
            ended = world.ended(execution)
            assert distant._running
        until(lambda: not distant._running, 6)

    assert ended.state is State.FAILED
    assert ended.owner == near.worker
    assert cut.runs() == ["1a", "1b", "2b"]
    assert world.steps(execution) == {("1", "a"): "abandoned", ("1", "b"): "succeeded", ("2", "b"): "succeeded"}
    assert f" WARN: {LOST}" in world.output(execution)
    assert activities_of(world, execution) == 1


def test_a_commit_of_which_nobody_heard_makes_no_ghost_and_no_double(cut: Cut) -> None:
    world = cut.world
    world.here("a", "b", "c")
    with cut.distant.worker():
        executions = []
        with cut.proxy.swallowing_answers_to_commits():
            for _ in range(3):
                executions.append(cut.start("true", "echo said"))
                time.sleep(0.7)

        states = [world.ended(one).state for one in executions]

    assert cut.proxy.swallowed > 3
    assert states == [State.SUCCEEDED] * 3
    assert sorted(cut.runs()) == sorted(f"{step}{node}" for step in "12" for node in "abc" for _ in executions)
    assert [world.output(one) for one in executions] == [[f"{node} INFO: said" for node in "abc"]] * 3
    assert [activities_of(world, one) for one in executions] == [1, 1, 1]


def test_a_worker_can_end_without_its_database(cut: Cut, tmp_path: Path) -> None:
    cut.world.here("a")
    with cut.distant.worker():
        execution = cut.start(f"touch {tmp_path}/begun; sleep 600")
        until((tmp_path / "begun").exists)
        with cut.proxy.cut():
            began = time.monotonic()
            with cut.distant.worker(registered=False):
                time.sleep(0.5)
            took = time.monotonic() - began

    assert took < 20  # the command itself would take ten minutes
    with cut.world.worker():
        assert cut.world.ended(execution).state is State.FAILED
    assert cut.runs() == ["1a"]


def test_output_is_held_back_while_it_cannot_be_kept(cut: Cut, tmp_path: Path) -> None:
    world = cut.world
    world.here("a")
    with cut.distant.worker():
        execution = cut.start(
            f"touch {tmp_path}/begun; sleep 0.3; yes 0123456789 | head -c 60000000; touch {tmp_path}/end"
        )
        until((tmp_path / "begun").exists)
        with cut.proxy.cut():
            time.sleep(2)
            assert not (tmp_path / "end").exists()
        ended = world.ended(execution, 60)

    assert ended.state is State.SUCCEEDED
    assert world.do(lambda ctx: ctx.store.logs.end(execution))[1] == 60_000_000
