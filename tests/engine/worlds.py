# SPDX-License-Identifier: Apache-2.0
"""A worker's executions on a database of a test: what runs really runs, on this machine or on sshd of the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.executions import Execution
from quarterdeck.core.jobs import Job
from quarterdeck.core.sites import Site
from quarterdeck.engine import tasks
from quarterdeck.engine.executions import Executions
from quarterdeck.formats import job_yaml, log_blocks
from quarterdeck.services import executions, jobs, reactions
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database, Provenance

T = TypeVar("T")
KEY = bytes(range(32))
PROJECT = "ops"


@dataclass
class World:
    database: Database
    site: Site = field(default_factory=Site)
    account: Account = SYSTEM

    def do(self, function: Callable[[Context], T], account: Account | None = None) -> T:
        with self.units(account) as ctx:
            return function(ctx)

    @contextmanager
    def units(self, account: Account | None = None) -> Iterator[Context]:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            ctx = Context(account=account or self.account, store=store, site=self.site)
            yield ctx
            reactions.follow(ctx)
            store.commit()

    @contextmanager
    def worker(self, *, most: int = 20) -> Iterator[Executions]:
        """A worker in a thread of this process."""
        loop = asyncio.new_event_loop()
        stop, made = asyncio.Event(), threading.Event()
        here: list[Executions] = []
        kinds = {executions.END_TASK: tasks.TASKS[executions.END_TASK]}

        async def work() -> None:
            run = Executions(self.units, self.site, url=self.database.url, most=most)
            here.append(run)
            made.set()
            more = {executions.RUN_TASK: queue.Entry(handler=lambda task: run.take(task.payload["execution"]))}
            await asyncio.gather(
                tasks.run_worker(self.database, cpu=1, threads=2, stop=stop, site=self.site, kinds=kinds, more=more),
                run.run(stop),
            )

        thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
        thread.start()
        assert made.wait(10)
        try:
            yield here[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    # -- jobs -----------------------------------------------------------------------------

    def load(self, text: str) -> list[Job]:
        """The jobs of a YAML document, kept."""
        done = self.do(lambda ctx: jobs.import_all(ctx, job_yaml.read(text.encode()), "create"))
        assert [one.problems for one in done] == [()] * len(done)
        return [one.job for one in done]

    def run(self, job: Job, argstring: str = "", account: Account | None = None) -> int:
        return self.do(lambda ctx: jobs.run(ctx, str(job.id), argstring).id, account)

    def execution(self, execution_id: int) -> Execution:
        return self.do(lambda ctx: ctx.store.executions.get(execution_id))

    def ended(self, execution_id: int, seconds: float = 30) -> Execution:
        until(lambda: self.execution(execution_id).ended is not None, seconds)
        return self.execution(execution_id)

    def output(self, execution_id: int) -> list[str]:
        """Every line of the log, as `node level: text`."""
        return [f"{node} {level}: {text}" for node, level, text in self.lines(execution_id)]

    def lines(self, execution_id: int) -> list[tuple[str, str, str]]:
        blocks = self.do(lambda ctx: ctx.store.logs.blocks(execution_id, 0, 10_000))
        return [
            (entry.node, entry.level, line)
            for block in blocks
            for entry in log_blocks.decode(block.data)
            for line in entry.text.decode(errors="replace").splitlines()
        ]

    def steps(self, execution_id: int) -> Mapping[tuple[str, str], str]:
        """State by step and node."""
        found = self.do(lambda ctx: ctx.store.executions.steps(execution_id))
        return {(one.step, one.node): one.state.value for one in found}


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
