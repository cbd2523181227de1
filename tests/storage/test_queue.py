# SPDX-License-Identifier: Apache-2.0
"""The task queue on a real database: tasks live and die with the change that asks for them, and run once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from quarterdeck.storage import queue
from quarterdeck.storage.database import Database, Provenance, Store
from quarterdeck.storage.queue import Entry, Task, TryAgain

BY = Provenance(actor="test")


@pytest.fixture
def database(fresh_postgres_url: str) -> Iterator[Database]:
    opened = Database(fresh_postgres_url, pool_size=4)
    yield opened
    opened.close()


def _commit(database: Database, change: Callable[[Store], object]) -> None:
    with database.unit_of_work(BY) as store:
        change(store)
        store.commit()


def _waiting(database: Database) -> dict[str, int]:
    with database.unit_of_work(BY) as store:
        return queue.waiting(store)


def test_the_library_finds_its_schema_complete(database: Database) -> None:
    async def plan() -> bool:
        from pgqueuer.db import PsycopgDriver
        from pgqueuer.queries import Queries

        async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
            return bool((await Queries(PsycopgDriver(connection)).plan_upgrade()).statements)

    assert not asyncio.run(plan())


def test_a_rollback_removes_the_task(database: Database) -> None:
    with database.unit_of_work(BY) as store:
        queue.defer(store, "count")
        assert queue.waiting(store) == {"count": 1}

    assert _waiting(database) == {}


def test_a_commit_keeps_the_task_also_when_nothing_else_happened(database: Database) -> None:
    _commit(database, lambda store: queue.defer(store, "count"))

    assert _waiting(database) == {"count": 1}


def test_a_task_and_the_change_commit_together(database: Database) -> None:
    def change(store: Store) -> None:
        store.settings.set("run_frequency", 15)
        queue.defer(store, "count")

    _commit(database, change)

    with database.unit_of_work(BY) as store:
        assert (store.settings.get().run_frequency, queue.waiting(store)) == (15, {"count": 1})


def test_a_waiting_task_stands_for_another_with_its_key(database: Database) -> None:
    for _ in range(3):
        _commit(database, lambda store: queue.defer(store, "count", dedupe_key="all"))
    _commit(database, lambda store: queue.defer(store, "count", dedupe_key="other"))

    assert _waiting(database) == {"count": 2}


def test_a_task_that_has_begun_does_not_stand_for_another(database: Database) -> None:
    _commit(database, lambda store: queue.defer(store, "count", dedupe_key="all"))
    _commit(database, lambda store: store.run(sqlalchemy.text("UPDATE pgqueuer SET status = 'picked'")))

    _commit(database, lambda store: queue.defer(store, "count", dedupe_key="all"))

    assert _waiting(database) == {"count": 2}


def test_two_units_of_work_never_wait_for_each_other_over_a_key(database: Database) -> None:
    with database.unit_of_work(BY) as first, database.unit_of_work(BY) as second:
        queue.defer(first, "count", dedupe_key="all")
        queue.defer(second, "count", dedupe_key="all")
        first.commit()
        second.commit()

    assert _waiting(database) == {"count": 2}


def test_a_task_that_waits_can_be_taken_back_once(database: Database) -> None:
    ids: list[int] = []
    _commit(database, lambda store: ids.append(queue.defer(store, "count")))

    answers: list[bool] = []
    _commit(database, lambda store: answers.append(queue.cancel(store, ids[0])))
    _commit(database, lambda store: answers.append(queue.cancel(store, ids[0])))

    assert (answers, _waiting(database)) == ([True, False], {})


def test_the_log_of_old_tasks_is_forgotten(database: Database) -> None:
    ids: list[int] = []
    _commit(database, lambda store: ids.append(queue.defer(store, "count")))
    _commit(database, lambda store: queue.cancel(store, ids[0]))

    gone: list[int] = []
    _commit(database, lambda store: gone.append(queue.trim(store, before=store.now + timedelta(minutes=1))))

    assert gone == [2]


# -- workers ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _workers(url: str, entries: dict[str, Entry], count: int = 1) -> AsyncIterator[None]:
    stop = asyncio.Event()
    takeover, poll = timedelta(seconds=2), timedelta(milliseconds=500)
    running = [
        asyncio.create_task(queue.work(url, entries, stop=stop, takeover=takeover, poll=poll)) for _ in range(count)
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*running)


async def _until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def _handler(run: Callable[[Task], None]) -> Callable[[Task], Awaitable[None]]:
    async def handle(task: Task) -> None:
        run(task)

    return handle


def test_two_workers_run_every_task_once(database: Database) -> None:
    seen: list[int] = []

    async def scene() -> None:
        entries = {"count": Entry(handler=_handler(lambda task: seen.append(task.payload["number"])))}
        async with _workers(database.url, entries, count=2):
            for number in range(60):
                _commit(database, lambda store, number=number: queue.defer(store, "count", {"number": number}))  # type: ignore[misc]
                await asyncio.sleep(0)
            await _until(lambda: len(seen) >= 60)
            await asyncio.sleep(0.3)

    asyncio.run(scene())

    assert sorted(seen) == list(range(60))


def test_no_more_tasks_run_at_once_than_allowed(database: Database) -> None:
    running, most, ended = 0, 0, 0

    async def handle(task: Task) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        ended += 1

    async def scene() -> None:
        async with _workers(database.url, {"count": Entry(handler=handle, at_once=1)}, count=2):
            for _ in range(5):
                _commit(database, lambda store: queue.defer(store, "count"))
            await _until(lambda: ended == 5)

    asyncio.run(scene())

    assert most == 1


def test_a_task_that_asks_to_be_tried_again_is(database: Database) -> None:
    attempts: list[int] = []

    async def handle(task: Task) -> None:
        attempts.append(task.attempts)
        if task.attempts < 2:
            raise TryAgain("not yet", delay=timedelta(milliseconds=50))

    async def scene() -> None:
        async with _workers(database.url, {"count": Entry(handler=handle)}):
            _commit(database, lambda store: queue.defer(store, "count"))
            await _until(lambda: len(attempts) == 3)

    asyncio.run(scene())

    assert attempts == [0, 1, 2]


def test_a_failing_task_leaves_the_others_alone(database: Database) -> None:
    seen: list[str] = []

    def run(task: Task) -> None:
        if task.payload == "bad":
            raise RuntimeError("as planned")
        seen.append(task.payload)

    async def scene() -> None:
        async with _workers(database.url, {"count": Entry(handler=_handler(run))}):
            for payload in ("bad", "good"):
                _commit(database, lambda store, payload=payload: queue.defer(store, "count", payload))  # type: ignore[misc]
            await _until(lambda: bool(seen) and _waiting(database) == {})

    asyncio.run(scene())

    assert seen == ["good"]


def test_a_delayed_task_waits(database: Database) -> None:
    begun: list[float] = []

    async def scene() -> None:
        entries = {"count": Entry(handler=_handler(lambda task: begun.append(time.monotonic())))}
        async with _workers(database.url, entries):
            asked = time.monotonic()
            _commit(database, lambda store: queue.defer(store, "count", delay=timedelta(seconds=1)))
            await _until(lambda: bool(begun))
            assert begun[0] - asked >= 0.95

    asyncio.run(scene())


def test_a_worker_comes_back_when_its_connections_are_cut(database: Database) -> None:
    seen: list[str] = []

    async def scene() -> None:
        entries = {"count": Entry(handler=_handler(lambda task: seen.append(task.payload)))}
        async with _workers(database.url, entries):
            _commit(database, lambda store: queue.defer(store, "count", "before"))
            await _until(lambda: seen == ["before"])
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quarterdeck worker'"
            _commit(database, lambda store: store.run(sqlalchemy.text(cut)))
            _commit(database, lambda store: queue.defer(store, "count", "after"))
            await _until(lambda: seen[1:] == ["after"], seconds=30)

    asyncio.run(scene())


_STUCK_WORKER = """
import asyncio, sys
from datetime import timedelta
from quarterdeck.storage import queue

async def handle(task):
    print("begun", flush=True)
    await asyncio.sleep(3600)

async def main():
    entries = {"count": queue.Entry(handler=handle, at_once=1)}
    await queue.work(sys.argv[1], entries, stop=asyncio.Event(), takeover=timedelta(seconds=2))

asyncio.run(main())
"""


def test_the_task_of_a_killed_worker_is_taken_over(database: Database) -> None:
    source = Path(queue.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    argv = [sys.executable, "-c", _STUCK_WORKER, database.url]
    _commit(database, lambda store: queue.defer(store, "count", "precious"))
    seen: list[str] = []

    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        worker.send_signal(signal.SIGKILL)

    async def scene() -> None:
        entries = {"count": Entry(handler=_handler(lambda task: seen.append(task.payload)), at_once=1)}
        async with _workers(database.url, entries):
            await _until(lambda: bool(seen))
            await asyncio.sleep(0.3)

    asyncio.run(scene())

    assert (seen, _waiting(database)) == (["precious"], {})
