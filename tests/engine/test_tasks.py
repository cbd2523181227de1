# SPDX-License-Identifier: Apache-2.0
"""The worker: tasks as units of work, tried again after temporary errors, begun soon after they were asked for."""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from tests.common.fleets import World

from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.core.events import SettingsChanged
from quarterdeck.engine import tasks
from quarterdeck.engine.tasks import TASKS, TaskKind, Worker
from quarterdeck.services import executions, group_refresh, notifications, policies
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6)
    yield World(database)
    database.close()


@contextmanager
def _worker(world: World, kinds: Mapping[str, TaskKind]) -> Iterator[None]:
    """A worker in a thread of this process, with these tasks only."""
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()
    work = tasks.run_worker(world.database, cpu=1, threads=2, stop=stop, kinds=kinds)
    running = threading.Thread(target=loop.run_until_complete, args=(work,))
    running.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        running.join()
        loop.close()


def _until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def _defer(world: World, name: str, payload: Any = None) -> None:
    world.do(lambda ctx: queue.defer(ctx.store, name, payload))


def test_what_a_task_changes_is_committed_with_what_follows(world: World) -> None:
    def run(worker: Worker, payload: Any) -> None:
        with worker.unit_of_work("a task") as ctx:
            ctx.store.settings.set("run_frequency", payload)
            ctx.emit(SettingsChanged())

    with _worker(world, {"set": TaskKind(run=run)}):
        _defer(world, "set", 15)
        _until(lambda: world.do(lambda ctx: ctx.store.settings.get()).run_frequency == 15)

    assert [one.state for one in world.do(policies.generations)] == ["asked"]
    assert [one.actor for one in world.do(lambda ctx: ctx.store.history.latest(limit=1))] == ["quarterdeck"]


def test_a_failing_task_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def run(worker: Worker, _: Any) -> None:
        with worker.unit_of_work("a task") as ctx:
            ctx.store.settings.set("run_frequency", 15)
            seen.append("tried")
            raise RuntimeError("as planned")

    with caplog.at_level(logging.ERROR), _worker(world, {"set": TaskKind(run=run)}):
        _defer(world, "set")
        _until(lambda: world.do(lambda ctx: queue.waiting(ctx.store)) == {})

    assert seen == ["tried"]
    assert world.do(lambda ctx: ctx.store.settings.get()).run_frequency == 5
    assert "(set) failed" in caplog.text


@pytest.mark.parametrize("error", [Conflict("two at once"), Unavailable("no answer")])
def test_a_temporary_error_is_tried_again(world: World, error: Exception) -> None:
    seen: list[float] = []

    def run(_: Worker, __: Any) -> None:
        seen.append(time.monotonic())
        if len(seen) < 3:
            raise error

    with _worker(world, {"flaky": TaskKind(run=run)}):
        _defer(world, "flaky")
        _until(lambda: len(seen) == 3)

    assert seen[1] - seen[0] >= 0.2
    assert seen[2] - seen[1] >= 0.4


def test_a_worker_ends_after_what_it_runs(world: World) -> None:
    begun, ended = threading.Event(), threading.Event()

    def run(_: Worker, __: Any) -> None:
        begun.set()
        time.sleep(0.5)
        ended.set()

    with _worker(world, {"slow": TaskKind(run=run)}):
        _defer(world, "slow")
        assert begun.wait(10)

    assert ended.is_set()
    assert world.do(lambda ctx: queue.waiting(ctx.store)) == {}


def test_tasks_begin_as_soon_as_they_are_asked_for(world: World) -> None:
    asked: list[float] = []
    delays: list[float] = []

    def run(_: Worker, __: Any) -> None:
        delays.append(time.monotonic() - asked[-1])

    with _worker(world, {"quick": TaskKind(run=run)}):
        for number in range(20):
            with world.unit() as ctx:
                queue.defer(ctx.store, "quick")
                asked.append(time.monotonic())
            _until(lambda number=number: len(delays) == number + 1)  # type: ignore[misc]

    # Usually 5 to 10 ms; a poll would take three seconds.
    assert statistics.median(delays) < 0.5


def test_what_a_worker_asks_for_at_its_start_exists() -> None:
    assert set(tasks.AT_START) <= TASKS.keys()
    assert {policies.TASK, policies.COMPLIANCE_TASK, group_refresh.TASK} <= TASKS.keys()


def test_all_tasks_of_a_fresh_server_succeed(world: World) -> None:
    payloads: dict[str, Any] = {
        policies.COMPLIANCE_TASK: [],
        executions.END_TASK: {"execution": 1},
        notifications.TASK: {"delivery": 1},
    }
    for name, kind in TASKS.items():
        kind.run(Worker(database=world.database, processes=1), payloads.get(name))
