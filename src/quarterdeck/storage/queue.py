# SPDX-License-Identifier: Apache-2.0
"""The task queue: the one module that knows PgQueuer. `docs/adr/0005-task-queue.md` says why this one.

`defer` and `cancel` belong to a unit of work: what they do commits or vanishes with the change that asks
for it. `work` is the worker's side, on connections of its own. Which tasks there are stands in
`engine/tasks.py`. The library is imported late: it costs a quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy import make_url

from quarterdeck.storage.driver import NETWORK, raw_connection, translated

if TYPE_CHECKING:
    from pgqueuer.adapters.persistence import qb
    from pgqueuer.domain import models
    from pgqueuer.ports.driver import Driver

    from quarterdeck.storage.database import Store

log = logging.getLogger(__name__)

#: A worker that did not say for this long that it lives loses its tasks to another one.
TAKEOVER = timedelta(seconds=10)
#: How often a worker looks for tasks that nobody announced: those of dead workers, above all.
POLL = timedelta(seconds=3)
_RECONNECT_SECONDS = 1.0
_CHANNEL = "ch_pgqueuer"

_IMPORTING = threading.Lock()

_DELETE_QUEUED = sqlalchemy.text(
    "WITH gone AS (DELETE FROM pgqueuer WHERE id = :id AND status = 'queued' RETURNING id, priority, entrypoint) "
    "INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint) "
    "SELECT id, 'canceled', priority, entrypoint FROM gone"
)
_JOIN_WAITING = sqlalchemy.text(
    "SELECT id FROM pgqueuer WHERE entrypoint = :task AND status = 'queued' AND headers ->> 'key' = :key "
    "AND execute_after <= now() + :delay LIMIT 1 FOR UPDATE SKIP LOCKED"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task as a worker gets it. `attempts` counts the times it was tried before."""

    id: int
    name: str
    payload: Any
    attempts: int


class TryAgain(Exception):
    """Raised by a handler: the task goes back into the queue for `delay`."""

    def __init__(self, reason: str, *, delay: timedelta) -> None:
        super().__init__(reason)
        self.delay = delay


Handler = Callable[[Task], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How a worker treats one task. `at_once` is how many of it all workers together run; 0 is any number.

    `schedule` is a cron expression (minute hour day month weekday, UTC) for a periodic task.
    """

    handler: Handler
    at_once: int = 0
    schedule: str = ""


def load() -> None:
    """Import the library, which otherwise happens at the first task. Takes a quarter of a second."""
    import pgqueuer.queries  # noqa: F401  # for what importing it does


def defer(
    store: Store, task: str, payload: Any = None, *, delay: timedelta | None = None, dedupe_key: str | None = None
) -> int:
    """Ask for a task when, and only when, this unit of work commits; returns its id.

    With a `dedupe_key`, a task of that name and key that still waits stands for this one too. One that has
    begun does not: it may have read what this unit of work changes.
    """
    wait = delay or timedelta()
    if dedupe_key is not None:
        # The lock keeps workers from beginning with it before this unit of work is over.
        waiting = store.run(_JOIN_WAITING, {"task": task, "key": dedupe_key, "delay": wait}).first()
        if waiting is not None:
            return int(waiting.id)
    return _enqueue(store, task, msgspec.json.encode(payload), wait, dedupe_key)


def cancel(store: Store, task_id: int) -> bool:
    """Take a task back that has not begun; tells whether there was one."""
    return store.run(_DELETE_QUEUED, {"id": task_id}).rowcount > 0


def trim(store: Store, *, before: datetime) -> int:
    """Forget the log of tasks that ended before this time; returns how many entries went."""
    gone = store.run(sqlalchemy.text("DELETE FROM pgqueuer_log WHERE created < :before"), {"before": before}).rowcount
    store.run(sqlalchemy.text("DELETE FROM pgqueuer_statistics WHERE created < :before"), {"before": before})
    return gone


def waiting(store: Store) -> dict[str, int]:
    """How many tasks of each name wait or run."""
    query = sqlalchemy.text("SELECT entrypoint, count(*) AS number FROM pgqueuer GROUP BY entrypoint")
    return {row.entrypoint: row.number for row in store.rows(query)}


def _enqueue(store: Store, task: str, payload: bytes, delay: timedelta, key: str | None) -> int:
    _import_library()
    from pgqueuer.queries import SyncQueries

    queries = SyncQueries(_driver(store), qbq=_queue_builder())
    headers = {"key": key} if key is not None else None
    return int(queries.enqueue(task, payload, execute_after=delay, headers=headers)[0])


def _import_library() -> None:
    """Two threads that come by different doors into its circle of imports would both fail."""
    with _IMPORTING:
        importlib.import_module("pgqueuer.queries")


def _driver(store: Store) -> Any:
    """PgQueuer's synchronous driver, on the open transaction of a unit of work.

    The library's own insists on autocommit; this one is here because we want the opposite.
    """
    from pgqueuer.ports.driver import SyncDriver

    class UnitOfWorkDriver(SyncDriver):
        def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
            with translated():
                cursor = psycopg.RawCursor(raw_connection(store), row_factory=dict_row)
                return cursor.execute(query, args or None).fetchall()

    return UnitOfWorkDriver()


@cache
def _names() -> Any:
    """Every name spelled out: the library would read them from environment variables like TRIGGER."""
    from pgqueuer.domain.settings import DBSettings, Durability
    from pgqueuer.domain.types import Channel

    return DBSettings(
        prefix="",
        db_schema=None,
        channel=Channel(_CHANNEL),
        function="fn_pgqueuer_changed",
        statistics_table="pgqueuer_statistics",
        queue_status_type="pgqueuer_status",
        queue_table="pgqueuer",
        queue_table_log="pgqueuer_log",
        trigger="tg_pgqueuer_changed",
        schedules_table="pgqueuer_schedules",
        durability=Durability.durable,
        widen_id=True,
    )


def _queue_builder() -> qb.QueryQueueBuilder:
    from pgqueuer.adapters.persistence import qb

    return qb.QueryQueueBuilder(_names())


# -- the worker's side -----------------------------------------------------------


async def work(
    url: str,
    entries: Mapping[str, Entry],
    *,
    stop: asyncio.Event,
    takeover: timedelta = TAKEOVER,
    poll: timedelta = POLL,
) -> None:
    """Run tasks as they come, until `stop` is set; tasks that run then are finished first.

    A lost database is waited for. Handlers raise `TryAgain`, or their failure is logged and the task dropped.
    """
    while not stop.is_set():
        try:
            await _work_connected(url, entries, stop, takeover, poll)
        except Exception:  # the worker outlives its database
            log.exception("the task queue is out of reach; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _RECONNECT_SECONDS)


async def _work_connected(
    url: str, entries: Mapping[str, Entry], stop: asyncio.Event, takeover: timedelta, poll: timedelta
) -> None:
    async with _connection(url) as connection, _connection(url) as listening:
        # The library tests its hearing while it begins to listen, which is too late on a second connection.
        await listening.execute(f"LISTEN {_CHANNEL}")
        manager = _manager(connection, listening, entries)
        stopping = asyncio.create_task(_forward(stop, manager.shutdown))
        try:
            await manager.run(
                dequeue_timeout=poll,
                heartbeat_timeout=takeover,
                shutdown_on_listener_failure=True,
                log_aggregation_interval=timedelta(0),
            )
        finally:
            stopping.cancel()


async def _forward(stop: asyncio.Event, shutdown: asyncio.Event) -> None:
    await stop.wait()
    shutdown.set()


def _connection(url: str) -> contextlib.AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return _closing(plain)


@contextlib.asynccontextmanager
async def _closing(plain: str) -> Any:
    connection = await psycopg.AsyncConnection.connect(
        plain, autocommit=True, application_name="quarterdeck worker", **NETWORK
    )
    try:
        yield connection
    finally:
        await connection.close()


def _manager(connection: Any, listening: Any, entries: Mapping[str, Entry]) -> Any:
    _import_library()
    from pgqueuer import PgQueuer
    from pgqueuer.adapters.persistence import qb
    from pgqueuer.queries import Queries

    names, driver = _names(), _worker_driver(connection, listening)
    queries = Queries(
        driver,
        qbe=qb.QueryBuilderEnvironment(names),
        qbq=_queue_builder(),
        qbs=qb.QuerySchedulerBuilder(names),
    )
    manager = PgQueuer(driver, channel=names.channel, queries=queries)
    for name, entry in entries.items():
        manager.entrypoint(name, concurrency_limit=entry.at_once)(_entrypoint(entry.handler))
        if entry.schedule:
            manager.schedule(name, entry.schedule)(_reminder(queries, name))
    return manager


def _worker_driver(connection: Any, listening: Any) -> Driver:
    """Listens on a connection of its own: while psycopg waits for notifications, no query gets through."""
    from pgqueuer.db import PsycopgDriver

    ears = PsycopgDriver(listening)

    class WorkerDriver(PsycopgDriver):
        async def add_listener(self, channel: str, callback: Any) -> None:
            await ears.add_listener(channel, callback)

        async def remove_listener(self, channel: str, callback: Any) -> None:
            await ears.remove_listener(channel, callback)

        async def __aenter__(self) -> Any:
            await ears.__aenter__()
            return await super().__aenter__()

        async def __aexit__(self, *exception: object) -> None:
            await super().__aexit__(*exception)
            await ears.__aexit__(*exception)

    return WorkerDriver(connection)


def _entrypoint(handler: Handler) -> Callable[[models.Job], Awaitable[None]]:
    from pgqueuer.errors import RetryRequested

    async def run(job: Any) -> None:
        payload = msgspec.json.decode(job.payload) if job.payload else None
        try:
            await handler(Task(id=job.id, name=job.entrypoint, payload=payload, attempts=job.attempts))
        except TryAgain as again:
            raise RetryRequested(delay=again.delay, reason=str(again)) from again

    return run


def _reminder(queries: Any, name: str) -> Callable[[Any], Awaitable[None]]:
    """A periodic task is a task like any other; one that still waits or runs is not doubled."""

    async def remind(_: Any) -> None:
        await queries.enqueue(name, b"null", dedupe_key=f"periodic {name}", on_conflict="skip")

    return remind
