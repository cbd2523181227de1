# SPDX-License-Identifier: Apache-2.0
"""The executions of one worker: taking them, watching over them, giving them up.

    queue task ─┐                            ┌─ notice or look: aborted, or another worker's → stop
    look round ─┴─> claim ─> Dispatch.walk ──┴─> log stored ─> finish

A worker owns an execution in an epoch and may write about it only in that. It looks round every second for
executions that wait and for those of workers that are gone. What runs when this worker ends is left as it is: the next
one takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from quarterdeck.core import job_checks, job_context, options
from quarterdeck.core.connections import Connection
from quarterdeck.core.errors import Conflict, Invalid, Unavailable
from quarterdeck.core.executions import NodeCounts, State
from quarterdeck.core.job_context import Context as Values
from quarterdeck.core.jobs import JobRef, ScriptFile, ScriptUrl
from quarterdeck.core.sites import Site
from quarterdeck.engine import ssh
from quarterdeck.engine.dispatch import Dispatch, Run, Verdict
from quarterdeck.engine.fetching import Fetcher
from quarterdeck.engine.local import Guard, LocalTransport
from quarterdeck.engine.output import LogWriter
from quarterdeck.engine.recorder import Recorder
from quarterdeck.engine.ssh_access import Access
from quarterdeck.engine.transports import HostKey, Transport
from quarterdeck.services import execution_work, executions
from quarterdeck.services.context import Context
from quarterdeck.services.execution_work import Claimed, Local, NodeWay, Referenced, Selection
from quarterdeck.storage import notices

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 1.0
GONE_SECONDS = 2.5
_RETRY_SECONDS = 0.5
#: One writes what happens, the others claim, look and finish.
THREADS = 3

#: Opens a unit of work that commits when it is left without an error.
UnitsOfWork = Callable[[], AbstractContextManager[Context]]


@dataclass(slots=True)
class _Running:
    """An execution that runs here. `given_up`: it is not ours any more."""

    claimed: Claimed
    run: Run
    abort: str = ""
    timed_out: bool = False
    given_up: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Executions:
    """What one worker process runs. `most` executions at a time; more wait for their turn, or for other workers."""

    def __init__(
        self, units: UnitsOfWork, site: Site, *, url: str, most: int, known_hosts: Sequence[Path] = ()
    ) -> None:
        self._units, self._site, self._url = units, site, url
        self._most = most
        self._worker = 0
        self._registered = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="executions")
        self._recorder = Recorder(units, self._threads)
        self._pool = ssh.Pool(known_hosts=known_hosts)
        self._guard = Guard()
        self._fetcher = Fetcher(site.allowed_paths)
        self._running: dict[int, _Running] = {}
        self._claiming = asyncio.Lock()
        #: workers that do not live, and since when we know
        self._missing: dict[int, float] = {}
        self._look = asyncio.Event()
        self._stopping = False

    # -- from the outside -----------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then leave everything that runs to other workers, its commands ended."""
        self._worker = await self._unit(lambda ctx: ctx.store.workers.add(socket.gethostname(), os.getpid()))
        self._registered.set()
        background = [asyncio.create_task(self._listen()), asyncio.create_task(self._look_round())]
        try:
            await stop.wait()
        finally:
            self._stopping = True
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await self._leave_all()

    async def take(self, execution_id: int) -> None:
        """Begin with an execution that waits, unless it is taken or this worker has enough; for the queue's task."""
        await self._registered.wait()
        async with self._claiming:
            if self._stopping or execution_id in self._running or len(self._running) >= self._most:
                return
            claimed = await self._unit(lambda ctx: self._claim(ctx, execution_id))
            if claimed is not None:
                self._start(claimed)

    def _claim(self, ctx: Context, execution_id: int) -> Claimed | None:
        if execution_work.is_draining(ctx, self._worker):
            return None
        return execution_work.claim(ctx, execution_id, self._worker)

    # -- watching -------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for notice in notices.listen(self._url, worker=self._worker):
            kind, _, number = notice.partition(" ")
            if not notice or (kind == "execution" and int(number) in self._running):
                self._look.set()

    async def _look_round(self) -> None:
        loop, next_others = asyncio.get_running_loop(), 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), LOOK_SECONDS)
            self._look.clear()
            try:
                await self._check_running()
                if loop.time() >= next_others:
                    next_others = loop.time() + LOOK_SECONDS
                    await self._check_others()
            except (Conflict, Unavailable) as error:
                log.warning("looking after executions has to wait: %s", error.message)
            except Exception:
                log.exception("looking after executions failed")

    async def _check_running(self) -> None:
        """Stop what was aborted, and what is another's."""
        if not self._running:
            return
        known = await self._once(lambda ctx: ctx.store.executions.epochs(list(self._running)))
        for execution_id, one in list(self._running.items()):
            epoch, abort_at = known.get(execution_id, (None, None))
            if epoch != one.claimed.epoch:
                one.given_up = True
                one.run.stop.set()
            elif abort_at is not None and not one.abort:
                one.abort = await self._once(partial(_aborting_user, execution_id))
                one.run.writer.message(f"Aborted by {one.abort}", level="WARN", user=one.abort)
                one.run.stop.set()

    async def _check_others(self) -> None:
        """Take what waits, and what belonged to workers that are gone."""
        if await self._once(lambda ctx: execution_work.is_draining(ctx, self._worker)):
            return
        for execution_id in await self._once(lambda ctx: ctx.store.executions.waiting(self._most)):
            await self.take(execution_id)
        owned = await self._once(lambda ctx: ctx.store.executions.owned())
        gone = await self._gone(set(owned.values()) - {self._worker})
        for execution_id, owner in owned.items():
            if owner in gone:
                await self._take_over(execution_id, owner)

    async def _gone(self, owners: set[int]) -> set[int]:
        """Those that were gone already a while ago: after a restart of the database the living need a moment."""
        now = asyncio.get_running_loop().time()
        missing = await self._once(lambda ctx: execution_work.gone(ctx, owners)) if owners else set()
        self._missing = {owner: self._missing.get(owner, now) for owner in missing}
        return {owner for owner, since in self._missing.items() if now - since >= GONE_SECONDS}

    async def _take_over(self, execution_id: int, owner: int) -> None:
        async with self._claiming:
            if self._stopping or execution_id in self._running or len(self._running) >= self._most:
                return
            claimed = await self._once(lambda ctx: execution_work.take_over(ctx, execution_id, owner, self._worker))
            if claimed is not None:
                log.warning("execution %d is taken over from worker %d", execution_id, owner)
                self._start(claimed)

    # -- one execution --------------------------------------------------------------------

    def _start(self, claimed: Claimed) -> None:
        execution = claimed.execution
        number, offset = claimed.log_end
        writer = LogWriter(
            execution.id,
            lambda blocks: self._recorder.keep(blocks, claimed.epoch),
            number=number,
            offset=offset,
            limit_bytes=self._site.log_bytes,
            loglevel=execution.loglevel,
        )
        run = Run(
            execution_id=execution.id,
            epoch=claimed.epoch,
            user=execution.user,
            job_values=_job_values(claimed),
            surroundings=_Surroundings(self, claimed),
            recorder=self._recorder,
            writer=writer,
        )
        one = _Running(claimed, run)
        self._running[execution.id] = one
        one.task = asyncio.create_task(self._run_whole(one), name=f"execution {execution.id}")
        one.task.add_done_callback(lambda _: self._ended(execution.id))
        if execution.abort_at is not None:
            self._look.set()

    def _ended(self, execution_id: int) -> None:
        self._running.pop(execution_id, None)
        self._look.set()

    async def _run_whole(self, one: _Running) -> None:
        claimed, run = one.claimed, one.run
        try:
            with self._time_limit(one):
                verdict = await self._walk(one)
            if one.given_up:
                await run.writer.discard()
                return
            if one.timed_out:
                run.writer.message(f"The job took longer than {claimed.job.timeout}", level="ERR", user=run.user)
            await run.writer.close()
            await self._recorder.written()
            await self._finish(one, verdict)
        except asyncio.CancelledError:
            await run.writer.discard()
            raise
        except Exception:
            log.exception("execution %d failed", claimed.execution.id)
            await self._finish(one, Verdict(state=State.FAILED, counts=NodeCounts(0, 0, 0)))

    async def _walk(self, one: _Running) -> Verdict:
        claimed, run = one.claimed, one.run
        if claimed.taken_over:
            run.writer.message(execution_work.LOST, level="WARN", user=run.user)
        chain = (claimed.job.id,) if claimed.job.id is not None else ()
        dispatch = Dispatch(
            run=run,
            job=claimed.job,
            options=claimed.options,
            selection=claimed.selection,
            secrets=tuple(options.secrets(claimed.job.options, claimed.options)),
            chain=chain,
        )
        return await dispatch.walk(execution_work.outcomes(claimed.steps))

    @contextlib.contextmanager
    def _time_limit(self, one: _Running) -> Iterator[None]:
        """Stop the execution when its job's time is up."""
        claimed = one.claimed
        text = job_context.replaced(claimed.job.timeout, job_context.context(claimed.options, {}))
        seconds = job_checks.timeout_seconds(text)
        if seconds is None:
            one.run.writer.message(f"Timeout is not a time like 90 or 1h 30m: {text}", level="WARN")

        def over() -> None:
            one.timed_out = True
            one.run.stop.set()

        timer = asyncio.get_running_loop().call_later(seconds, over) if seconds else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    async def _finish(self, one: _Running, verdict: Verdict) -> None:
        state = State.FAILED if one.timed_out and verdict.state is State.ABORTED else verdict.state
        claimed = one.claimed
        await self._unit(lambda ctx: executions.finish(ctx, claimed.execution.id, claimed.epoch, state, verdict.counts))

    async def _leave_all(self) -> None:
        """End what runs here, without a word: what happened is told by who takes it over."""
        tasks = [one.task for one in self._running.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._recorder.close()
        await self._pool.close()
        await asyncio.to_thread(self._guard.close)
        self._threads.shutdown(wait=True)

    # -- what dispatches ask for ----------------------------------------------------------

    def transport(self, way: NodeWay, selection: Selection) -> Transport:
        """The way to a node. Raises Invalid."""
        if isinstance(way.way, Local):
            return LocalTransport(self._guard, user=way.way.user)
        assert isinstance(way.way, Connection)
        return self._pool.transport(_access(way.way, selection))

    async def script(self, step: ScriptFile | ScriptUrl, values: Values) -> bytes:
        """A script that lies elsewhere. Raises Invalid."""
        if isinstance(step, ScriptFile):
            path = job_context.replaced(step.path, values)
            return await asyncio.to_thread(self._fetcher.file, path)
        return await asyncio.to_thread(self._fetcher.get, job_context.url(step.url, values))

    async def unit_as(self, claimed: Claimed, function: Callable[[Context], T]) -> T:
        """Something done in the name of who started an execution."""

        def acting(ctx: Context) -> T:
            ctx.account = claimed.account
            return function(ctx)

        return await self._unit(acting)

    async def _unit(self, function: Callable[[Context], T]) -> T:
        """One unit of work on a thread; a lost database is waited for."""
        while True:
            try:
                return await self._once(function)
            except (Conflict, Unavailable) as error:
                log.warning("an execution waits for the database: %s", error.message)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _once(self, function: Callable[[Context], T]) -> T:
        def work() -> T:
            with self._units() as ctx:
                return function(ctx)

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Surroundings:
    """What the dispatches of one execution ask of this worker."""

    def __init__(self, of: Executions, claimed: Claimed) -> None:
        self._of, self._claimed = of, claimed

    def transport(self, way: NodeWay, selection: Selection) -> Transport:
        return self._of.transport(way, selection)

    async def script(self, step: ScriptFile | ScriptUrl, values: Values) -> bytes:
        return await self._of.script(step, values)

    async def refer(self, reference: JobRef, values: Values, chain: tuple[int, ...]) -> Referenced:
        project = self._claimed.execution.project
        return await self._of.unit_as(
            self._claimed, lambda ctx: execution_work.refer(ctx, reference, project, values, chain)
        )

    async def host_keys_seen(self, keys: Sequence[HostKey], *, trusted: bool) -> None:
        def see(ctx: Context) -> None:
            for one in keys:
                ctx.store.host_keys.see(one.address, one.key, trusted=trusted)

        await self._of.unit_as(self._claimed, see)


def _aborting_user(execution_id: int, ctx: Context) -> str:
    return ctx.store.executions.get(execution_id).aborted_by


def _access(way: Connection, selection: Selection) -> Access:
    for name in (way.key_secret, way.passphrase_secret):
        if name and name not in selection.secrets:
            raise Invalid(f"There is no secret '{name}'.")
    key = selection.secrets[way.key_secret].value.encode() if way.key_secret else b""
    passphrase = selection.secrets[way.passphrase_secret].value if way.passphrase_secret else ""
    return Access(connection=way, private_key=key, passphrase=passphrase, trusted=selection.host_keys)


def _job_values(claimed: Claimed) -> dict[str, str]:
    execution, job = claimed.execution, claimed.job
    return {
        "name": job.name,
        "group": job.group,
        "id": str(job.id) if job.id is not None else "",
        "username": execution.user,
        "project": execution.project,
        "execid": str(execution.id),
        "loglevel": execution.loglevel,
    }
