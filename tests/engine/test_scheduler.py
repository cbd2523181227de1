# SPDX-License-Identifier: Apache-2.0
"""The scheduler's loop: in time, woken by notices, once with two of them, silent while its worker drains."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from tests.engine.worlds import KEY, PROJECT, World, until

from quarterdeck.core.errors import Unavailable
from quarterdeck.engine import scheduler
from quarterdeck.services import projects
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database
from quarterdeck.storage.executions import ExecutionQuery

JOB = """
- name: {name}
  project: ops
  schedule: {{crontab: '{crontab}'}}
  multipleExecutions: true
  sequence: {{commands: [{{exec: echo tick}}]}}
"""


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6, secret_key=KEY)
    world = World(database)
    world.do(lambda ctx: projects.create(ctx, PROJECT))
    yield world
    database.close()


class Running:
    """A scheduler in a thread of this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.changed, self.stop = loop, asyncio.Event(), asyncio.Event()

    def notice(self) -> bool:
        """False, as it tells nothing."""
        self.loop.call_soon_threadsafe(self.changed.set)
        return False


Units = Callable[[], AbstractContextManager[Context]]


@contextmanager
def scheduling(
    world: World, *, units: Units | None = None, worker: int = 0, clock: scheduler.Clock | None = None
) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    here = Running(loop)
    more = {"clock": clock} if clock is not None else {}
    work = scheduler.run(units or world.units, here.changed, here.stop, worker=lambda: worker, **more)
    thread = threading.Thread(target=loop.run_until_complete, args=(work,))
    thread.start()
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(here.stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def started(world: World) -> list[datetime]:
    return sorted(one.started for one in world.do(lambda ctx: ctx.store.executions.matching(ExecutionQuery())))


def every_second(name: str = "tick") -> str:
    return JOB.format(name=name, crontab="* * * * * ? *")


def test_runs_begin_when_they_are_due(world: World) -> None:
    world.load(every_second())

    with scheduling(world):
        until(lambda: len(started(world)) >= 3)

    runs = started(world)
    assert max(one.microsecond for one in runs) < 200_000
    assert len({one.replace(microsecond=0) for one in runs}) == len(runs)


def test_a_notice_wakes_a_scheduler_that_sleeps(world: World) -> None:
    with scheduling(world) as here:
        until(lambda: not here.changed.is_set())
        loaded = datetime.now(UTC)
        world.load(every_second())
        here.notice()
        until(lambda: bool(started(world)))

    assert started(world)[0] - loaded < timedelta(seconds=scheduler.LOOK_SECONDS / 2)


def test_two_schedulers_start_a_run_once(world: World) -> None:
    for number in range(5):
        world.load(every_second(f"tick {number}"))
    other = Database(world.database.url, pool_size=3, secret_key=KEY)

    with scheduling(world), scheduling(World(other)):
        until(lambda: len(started(world)) >= 15)
    other.close()

    found = world.do(lambda ctx: ctx.store.executions.matching(ExecutionQuery()))
    times = [(one.job_id, one.started.replace(microsecond=0)) for one in found]
    assert len(times) == len(set(times))


def test_a_worker_that_drains_starts_nothing(world: World) -> None:
    worker = world.do(lambda ctx: ctx.store.workers.add("here", 1))
    world.do(lambda ctx: ctx.store.workers.drain(worker))
    world.load(every_second())
    looked = threading.Event()
    due = world.do(lambda ctx: ctx.store.jobs.next_due()) or datetime.max.replace(tzinfo=UTC)

    @contextmanager
    def units() -> Iterator[Context]:
        with world.units() as ctx:
            yield ctx
        if ctx.now > due:
            looked.set()

    with scheduling(world, units=units, worker=worker) as here:
        until(lambda: here.notice() or looked.is_set())

    assert started(world) == []


def test_a_clock_that_is_simulated_is_obeyed(world: World) -> None:
    world.load(JOB.format(name="new year", crontab="0 0 0 1 1 ? *"))
    due = world.do(lambda ctx: ctx.store.jobs.next_due())
    assert due is not None
    times = [due - timedelta(milliseconds=30)]

    with scheduling(world, clock=lambda: times[0]) as here:
        until(lambda: not here.changed.is_set())
        assert started(world) == []
        times[0] = due
        until(lambda: bool(started(world)))

    assert started(world) == [due]


def test_a_database_that_is_away_is_waited_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.load(every_second())
    away = [True, True]

    @contextmanager
    def units() -> Iterator[Context]:
        if away:
            away.pop()
            raise Unavailable("The database does not answer.")
        with world.units() as ctx:
            yield ctx

    with caplog.at_level(logging.WARNING), scheduling(world, units=units) as here:
        until(lambda: here.notice() or bool(started(world)))

    assert "schedules have to wait: The database does not answer." in caplog.text
