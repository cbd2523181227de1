# SPDX-License-Identifier: Apache-2.0
"""A worker's executions on a database of a test: what runs really runs, on this machine or on sshd of the test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from tests.sshd import USER, Sshd

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.executions import Execution
from quarterdeck.core.jobs import Job
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.core.resources import Resource
from quarterdeck.core.sites import Site
from quarterdeck.engine import tasks
from quarterdeck.engine.executions import Executions
from quarterdeck.engine.policy_runs import Runs
from quarterdeck.formats import job_yaml
from quarterdeck.services import adhoc, execution_output, executions, jobs, projects, reactions, resources
from quarterdeck.services.adhoc import Manner
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.storage.workers import WorkerRecord

T = TypeVar("T")
KEY = bytes(range(32))
PROJECT = "ops"
HERE = Resource("here", hostname="localhost")


@dataclass
class World:
    database: Database
    site: Site = field(default_factory=Site)
    account: Account = SYSTEM
    #: what has agents run
    policy_runs: Runs | None = None

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
    def worker(
        self,
        *,
        most: int = 20,
        gone_seconds: float = 0.5,
        registered: bool = True,
    ) -> Iterator[Executions]:
        """A worker in a thread of this process; unless told otherwise it has found its database."""
        loop = asyncio.new_event_loop()
        stop, made = asyncio.Event(), threading.Event()
        here: list[Executions] = []

        async def work() -> None:
            here.append(self.executions(most=most, gone_seconds=gone_seconds))
            made.set()
            await self.serve(here[0], stop)

        thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
        thread.start()
        assert made.wait(10)
        try:
            until(lambda: not registered or bool(here[0].worker))
            yield here[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    def executions(self, *, most: int = 20, gone_seconds: float = 0.5) -> Executions:
        """What a worker runs; to be made and served in its event loop."""
        url, runs = self.database.url, self.policy_runs
        return Executions(self.units, self.site, url=url, most=most, gone_seconds=gone_seconds, policy_runs=runs)

    async def serve(self, run: Executions, stop: asyncio.Event) -> None:
        """As the daemon's worker does, with the tasks that concern executions."""
        kinds = {executions.END_TASK: tasks.TASKS[executions.END_TASK]}
        more = {executions.RUN_TASK: queue.Entry(handler=lambda task: run.take(task.payload["execution"]))}
        await asyncio.gather(
            tasks.run_worker(self.database, cpu=1, threads=2, stop=stop, site=self.site, kinds=kinds, more=more),
            run.run(stop),
        )

    @contextmanager
    def process(self, *, most: int = 20) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process; killed at the end."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-c", _PROCESS, self.database.url, str(most)]
        before = len(self.workers())
        with subprocess.Popen(argv, env=environment) as process:
            try:
                until(lambda: len(self.workers()) > before, 60)
                yield process
            finally:
                process.kill()

    def workers(self) -> list[WorkerRecord]:
        """Every worker that registered."""
        return self.do(lambda ctx: ctx.store.workers.all())

    # -- nodes and jobs -------------------------------------------------------------------

    def nodes(self, *some: Resource) -> None:
        """These are the project's nodes, besides the server's own."""
        self.do(lambda ctx: resources.replace_document(ctx, PROJECT, lambda: some))

    def here(self, *names: str, **attributes: str) -> list[Resource]:
        """Nodes on which commands run on this machine, without SSH."""
        found = [local(name, **attributes) for name in names]
        self.nodes(*found)
        return found

    def save(self, job: Job) -> Job:
        """The job, kept."""
        return self.do(lambda ctx: jobs.save_new(ctx, job).job)

    def command(self, line: str, manner: Manner | None = None, account: Account | None = None) -> int:
        """Start a command line; the execution's number."""
        return self.do(lambda ctx: adhoc.run_command(ctx, PROJECT, line, manner or Manner()).id, account)

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
        found: list[tuple[str, str, str]] = []
        offset = 0
        while (page := self.do(partial(execution_output.read, execution_id=execution_id, offset=offset))).entries:
            offset = page.next_offset
            for entry in page.entries:
                text = entry.text.decode(errors="replace")
                found += [(entry.node, entry.level, line) for line in text.splitlines()]
        return found

    def steps(self, execution_id: int) -> Mapping[tuple[str, str], str]:
        """State by step and node."""
        found = self.do(lambda ctx: ctx.store.executions.steps(execution_id))
        return {(one.step, one.node): one.state.value for one in found}


_PROCESS = "from tests.engine import worlds; worlds.main()"


def main() -> None:
    """A worker process: `URL MOST`."""
    site = Site(node=HERE, allowed_paths=(PurePosixPath(tempfile.gettempdir()),))
    world = World(Database(sys.argv[1], pool_size=12, secret_key=KEY), site)

    async def work() -> None:
        await world.serve(world.executions(most=int(sys.argv[2])), asyncio.Event())

    asyncio.run(work())


@contextmanager
def made(url: str, *, pool_size: int = 12, **site: Any) -> Iterator[World]:
    """A world on this database, with an empty project."""
    database = Database(url, pool_size=pool_size, secret_key=KEY)
    # Keys of the servers of tests lie in temporary directories.
    world = World(database, Site(**{"node": HERE, "allowed_paths": (PurePosixPath(tempfile.gettempdir()),), **site}))
    world.do(lambda ctx: projects.create(ctx, PROJECT))
    try:
        yield world
    finally:
        database.close()


def local(name: str, *, tags: Iterable[str] = (), **attributes: str) -> Resource:
    """A node on which commands run on this machine, without SSH."""
    return Resource(name, hostname=name, tags=frozenset(tags), attributes={**attributes, "node-executor": "local"})


def remote(server: Sshd, name: str, host: str = "", **attributes: str) -> Resource:
    """A node that is reached over SSH, at one of the addresses of a server."""
    address = server.at(host) if host else server.address
    return Resource(
        name,
        hostname=str(address),
        username=USER,
        attributes={"ssh-keypath": str(server.key), **attributes},
    )


def everywhere() -> NodeFilter:
    """All nodes but the server's own."""
    return NodeFilter(include=Side(name=".*"), exclude=Side(name=HERE.name))


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def end(pid: int) -> None:
    """Kill a process that a test left behind."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
