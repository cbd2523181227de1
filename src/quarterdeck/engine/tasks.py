# SPDX-License-Identifier: Apache-2.0
"""The queue's tasks: what each does, how often, how many at once; and the worker that runs them.

One task is one unit of work (policy generation has several): open, run, let everything follow, commit.
The one place of the engine that catches broadly: a failing task is logged and does not stop the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from quarterdeck.core import accounts
from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.core.sites import Site
from quarterdeck.engine import generation
from quarterdeck.engine import notifications as deliveries
from quarterdeck.services import (
    compliance,
    executions,
    group_refresh,
    housekeeping,
    notifications,
    policies,
    reactions,
)
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database, Provenance

log = logging.getLogger(__name__)

_EXPIRY = "expire compliance"

#: After a temporary error a task waits, twice as long each time.
_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 60.0
_MOST_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What tasks work with."""

    database: Database
    processes: int
    site: Site = field(default_factory=Site)

    @contextmanager
    def unit_of_work(self, task: str) -> Iterator[Context]:
        """A unit of work in the server's own name; commits, with all that follows, when it is left without an error."""
        by = Provenance(actor=accounts.SYSTEM.name, reason=task)
        with self.database.unit_of_work(by) as store:
            ctx = Context(account=accounts.SYSTEM, store=store, site=self.site)
            yield ctx
            reactions.follow(ctx)
            store.commit()


Run = Callable[[Worker, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind:
    """`at_once`: how many of it all workers together run, 0 for any number; `schedule`: cron, UTC, may be empty.

    With `threads` it has so many of its own: it waits for others, and must not keep threads from the rest.
    """

    run: Run
    at_once: int = 0
    schedule: str = ""
    threads: int = 0


def _in_one_unit(name: str, function: Callable[[Context, Any], object]) -> Run:
    def run(worker: Worker, payload: Any) -> None:
        with worker.unit_of_work(name) as ctx:
            function(ctx, payload)

    return run


def _generate(worker: Worker, _: Any) -> None:
    generation.run(lambda: worker.unit_of_work(policies.TASK), processes=worker.processes)


def _deliver(worker: Worker, payload: Any) -> None:
    deliveries.run(lambda: worker.unit_of_work(notifications.TASK), payload)


TASKS: dict[str, TaskKind] = {
    executions.END_TASK: TaskKind(
        run=_in_one_unit(executions.END_TASK, lambda ctx, payload: executions.end_aborted(ctx, payload["execution"]))
    ),
    notifications.TASK: TaskKind(run=_deliver, at_once=8, threads=8),
    policies.TASK: TaskKind(run=_generate, at_once=1),
    group_refresh.TASK: TaskKind(
        run=_in_one_unit(group_refresh.TASK, group_refresh.refresh), at_once=1, schedule="*/5 * * * *"
    ),
    policies.COMPLIANCE_TASK: TaskKind(
        # One at a time: on a large fleet this computes for minutes, and must not take every thread.
        run=_in_one_unit(policies.COMPLIANCE_TASK, compliance.configuration_changed),
        at_once=1,
    ),
    _EXPIRY: TaskKind(
        run=_in_one_unit(_EXPIRY, lambda ctx, _: compliance.expire(ctx)), at_once=1, schedule="* * * * *"
    ),
    housekeeping.TASK: TaskKind(
        run=_in_one_unit(housekeeping.TASK, lambda ctx, _: housekeeping.tidy(ctx)), at_once=1, schedule="17 * * * *"
    ),
    housekeeping.RUNS_TASK: TaskKind(
        run=_in_one_unit(housekeeping.RUNS_TASK, lambda ctx, _: housekeeping.keep_runs(ctx)),
        at_once=1,
        schedule="27 * * * *",
    ),
}
#: What a worker asks for when it starts: the server may have been down when it was due.
AT_START = (group_refresh.TASK, housekeeping.RUNS_TASK)


async def run_worker(
    database: Database,
    *,
    cpu: int,
    threads: int,
    stop: asyncio.Event,
    site: Site | None = None,
    kinds: Mapping[str, TaskKind] = TASKS,
    more: Mapping[str, queue.Entry] | None = None,
) -> None:
    """Run tasks until `stop` is set; what runs then is finished first.

    `cpu` processes compute policies, `threads` tasks run at the same time, for which the database has
    `connections(threads)`; `kinds` are those this worker runs, `more` are entries that need no thread of these.
    """
    worker = Worker(database=database, processes=cpu, site=site or Site())
    with ExitStack() as stack:

        def threads_for(name: str, count: int) -> ThreadPoolExecutor:
            return stack.enter_context(ThreadPoolExecutor(count, thread_name_prefix=name))

        pool = threads_for("task", threads)
        entries = {
            name: _entry(worker, kind, threads_for(name, kind.threads) if kind.threads else pool)
            for name, kind in kinds.items()
        }
        await asyncio.get_running_loop().run_in_executor(
            pool, _begin, worker, [name for name in AT_START if name in kinds]
        )
        await queue.work(database.url, {**entries, **(more or {})}, stop=stop)


def connections(threads: int) -> int:
    """One a task; the one generation that may run uses a second, for its claim and its snapshot.

    Tasks with threads of their own hold a connection for moments only: one serves them all.
    """
    return threads + 2


def _begin(worker: Worker, names: Sequence[str]) -> None:
    try:
        with worker.unit_of_work("worker start") as ctx:
            for name in names:
                queue.defer(ctx.store, name, dedupe_key=name)
    except Unavailable as error:  # the queue itself waits for the database; these come with their schedule
        log.warning("the worker starts without its database: %s", error.message)


def _entry(worker: Worker, kind: TaskKind, pool: ThreadPoolExecutor) -> queue.Entry:
    async def handle(task: queue.Task) -> None:
        await asyncio.get_running_loop().run_in_executor(pool, _attempt, worker, kind, task)

    return queue.Entry(handler=handle, at_once=kind.at_once, schedule=kind.schedule)


def _attempt(worker: Worker, kind: TaskKind, task: queue.Task) -> None:
    try:
        kind.run(worker, task.payload)
    except (Conflict, Unavailable) as error:
        if task.attempts >= _MOST_ATTEMPTS:
            log.exception("task %d (%s) is given up after %d attempts", task.id, task.name, task.attempts + 1)
            raise
        delay = min(_FIRST_DELAY_SECONDS * 2**task.attempts, _LONGEST_DELAY_SECONDS)
        log.warning("task %d (%s) waits %.1f s: %s", task.id, task.name, delay, error.message)
        raise queue.TryAgain(error.message, delay=timedelta(seconds=delay)) from error
    except Exception:
        log.exception("task %d (%s) failed", task.id, task.name)
        raise
