# SPDX-License-Identifier: Apache-2.0
"""The executions of one worker: taking them, watching over them, giving them up.

    queue task ─┐                            ┌─ notice or look: aborted, or another worker's → stop
    look round ─┴─> claim ─> Dispatch.walk ──┴─> log stored ─> finish

A worker owns an execution in an epoch and may write about it only in that; it takes some only while it holds the lock
that shows that it lives. It looks round every second for executions that wait and for those of workers that are gone.
What runs when this worker ends is left as it is: the next one takes it over.
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
from quarterdeck.core.connections import Address, AgentWay, Connection
from quarterdeck.core.errors import Conflict, Invalid, QuarterdeckError, Unavailable
from quarterdeck.core.executions import NodeCounts, State
from quarterdeck.core.ids import NodeId
from quarterdeck.core.job_context import Context as Values
from quarterdeck.core.jobs import JobRef, ScriptFile, ScriptUrl
from quarterdeck.core.sites import Site
from quarterdeck.engine import ssh
from quarterdeck.engine.agents import Agents
from quarterdeck.engine.dispatch import Dispatch, Run
from quarterdeck.engine.fetching import Fetcher
from quarterdeck.engine.local import Guard, LocalTransport
from quarterdeck.engine.output import LogWriter
from quarterdeck.engine.policy_runs import Known, Runs
from quarterdeck.engine.recorder import Recorder
from quarterdeck.engine.ssh_access import Access
from quarterdeck.engine.transports import HostKey, Transport
from quarterdeck.services import compliance, execution_work, executions
from quarterdeck.services.compliance import LatestRun, NodeCompliance
from quarterdeck.services.context import Context
from quarterdeck.services.execution_work import Claimed, Fleet, Local, Look, NodeWay, Referenced, Selection
from quarterdeck.storage import notices
from quarterdeck.storage.sealing import WrongKey

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 1.0
#: Looks are at least so far apart.
_REST_SECONDS = 0.05
#: After a restart of the database the living need a moment until they hold their locks again.
GONE_SECONDS = 4.0
#: What a worker that ends still gives the database to take what was written.
LEAVE_SECONDS = 3.0
#: How old the nodes may be that a referenced job sees.
_FLEET_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_MOST_CONFLICTS = 20
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
    """What one worker process runs. `most` executions at a time; more wait for their turn, or for other workers.
    Without `agents`, nodes are reached over SSH only; without `policy_runs`, no policies are applied.

    `schedules_changed` is set whenever schedules may be due at other times.
    """

    def __init__(
        self,
        units: UnitsOfWork,
        site: Site,
        *,
        url: str,
        most: int,
        known_hosts: Sequence[Path] = (),
        gone_seconds: float = GONE_SECONDS,
        agents: Agents | None = None,
        policy_runs: Runs | None = None,
    ) -> None:
        self._units, self._site, self._url = units, site, url
        self._most, self._gone_seconds = most, gone_seconds
        self._worker = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="executions")
        self._recorder = Recorder(units, self._threads)
        self._pool = ssh.Pool(known_hosts=known_hosts)
        self._guard = Guard()
        self._agents, self._policy_runs = agents, policy_runs
        self._fetcher = Fetcher(site.allowed_paths, site.allowed_urls)
        self._running: dict[int, _Running] = {}
        self._claiming = asyncio.Lock()
        #: workers that do not live, and since when we know
        self._missing: dict[int, float] = {}
        self._look = asyncio.Event()
        #: whether the lock is held that shows that this worker lives
        self._shows_life = False
        #: more waits than there was room for
        self._more = False
        self._stopping = False
        self.schedules_changed = asyncio.Event()

    # -- from the outside -----------------------------------------------------------------

    @property
    def worker(self) -> int:
        """The id of this worker; 0 until it is registered."""
        return self._worker

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then leave everything that runs to other workers, its commands ended."""
        serving = asyncio.create_task(self._serve(), name="executions")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping = True
            serving.cancel()
            stopping.cancel()
            await asyncio.wait({serving, stopping})
            await self._leave_all()
        if not serving.cancelled():
            serving.result()

    async def take(self, execution_id: int) -> None:
        """Begin with an execution that waits, unless it is taken or this worker has enough; for the queue's task.

        What cannot be taken now is found again by whoever looks round next.
        """
        await self._take(execution_id, None)

    # -- taking ---------------------------------------------------------------------------

    async def _take(self, execution_id: int, owner: int | None) -> None:
        """Take what has no owner, or one that is gone. One at a time, so that nothing is both claimed and not known."""
        async with self._claiming:
            if self._stopping or not self._shows_life or execution_id in self._running:
                return
            if len(self._running) >= self._most:
                self._more = True
                return
            claimed = await self._claimed(execution_id, owner)
            if claimed is not None and not self._stopping:
                if owner is not None:
                    log.warning("execution %d is taken over from worker %d", execution_id, owner)
                self._start(claimed)

    async def _claimed(self, execution_id: int, owner: int | None) -> Claimed | None:
        try:
            return await self._once(lambda ctx: self._claim(ctx, execution_id, owner))
        except QuarterdeckError as error:
            if isinstance(error, Conflict | Unavailable) and not isinstance(error, WrongKey):
                log.warning("execution %d has to wait: %s", execution_id, error.message)
                return None
            reason = error.message
        except Exception:
            log.exception("execution %d cannot be run", execution_id)
            reason = "Internal error; the server's log says more."
        await self._once(lambda ctx: execution_work.fail(ctx, execution_id, self._worker, owner, reason))
        return None

    def _claim(self, ctx: Context, execution_id: int, owner: int | None) -> Claimed | None:
        if execution_work.is_draining(ctx, self._worker):
            return None
        if owner is None:
            return execution_work.claim(ctx, execution_id, self._worker)
        return execution_work.take_over(ctx, execution_id, owner, self._worker)

    # -- watching -------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._worker = await self._unit(lambda ctx: ctx.store.workers.add(*_process()))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._look_round())

    async def _listen(self) -> None:
        async for notice in notices.listen(self._url, worker=self._worker, lost=self._lost):
            kind, _, number = notice.partition(" ")
            if not notice:
                self._shows_life = True
            if not notice or kind == "schedules":
                self.schedules_changed.set()
            if not notice or (kind == "stop" and int(number) in self._running):
                self._look.set()
            if kind == "host-key":
                port, _, host = number.partition(" ")
                self._pool.forget(Address(host, int(port)))

    def _lost(self) -> None:
        """Others may take over what runs here; what they do not take goes on."""
        self._shows_life = False

    async def _look_round(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), LOOK_SECONDS)
            self._look.clear()
            try:
                await self._look_now()
            except (Conflict, Unavailable) as error:
                log.warning("looking after executions has to wait: %s", error.message)
            except Exception:
                log.exception("looking after executions failed")
            await asyncio.sleep(_REST_SECONDS)

    async def _look_now(self) -> None:
        running, room = list(self._running), self._most - len(self._running)
        found = await self._once(lambda ctx: execution_work.look(ctx, self._worker, running, room))
        self._stop_some(running, found)
        if not found.registered:
            await self._once(lambda ctx: ctx.store.workers.add_again(self._worker, *_process()))
        if found.draining:
            return
        self._more = len(found.waiting) >= room
        for execution_id in found.waiting:
            await self._take(execution_id, None)
        gone = self._gone(found.gone)
        for execution_id, owner in found.owned.items():
            # One that is ours and does not run here: we never heard that we got it, or could not end it.
            if owner in gone or (owner == self._worker and execution_id not in self._running):
                await self._take(execution_id, owner)

    def _stop_some(self, running: Sequence[int], found: Look) -> None:
        """Stop what was aborted, and what is another's."""
        for execution_id in running:
            one = self._running.get(execution_id)
            if one is None:
                continue
            epoch, wanted_by = found.running.get(execution_id, (None, None))
            if epoch != one.claimed.epoch:
                one.given_up = True
                one.run.stop.set()
            elif wanted_by is not None and not one.abort:
                one.abort = wanted_by
                one.run.writer.message(f"Aborted by {wanted_by}", level="WARN", user=wanted_by)
                one.run.stop.set()

    def _gone(self, missing: frozenset[int]) -> set[int]:
        """Those that were gone already a while ago."""
        now = asyncio.get_running_loop().time()
        self._missing = {owner: self._missing.get(owner, now) for owner in missing}
        return {owner for owner, since in self._missing.items() if now - since >= self._gone_seconds}

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
        one.task.add_done_callback(partial(self._ended, execution.id))
        if execution.abort_at is not None:
            self._look.set()

    def _ended(self, execution_id: int, task: asyncio.Task[None]) -> None:
        self._running.pop(execution_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the end of execution %d could not be kept", execution_id, exc_info=error)
        if self._more:
            self._look.set()

    async def _run_whole(self, one: _Running) -> None:
        run = one.run
        counts: NodeCounts | None = None
        try:
            with self._time_limit(one):
                state, counts = await self._walk(one)
            if one.given_up:
                await run.writer.discard()
                return
            await run.writer.close()
            await self._recorder.written()
        except asyncio.CancelledError:
            await self._keep_rest(one)
            raise
        except Exception:
            log.exception("execution %d failed", run.execution_id)
            await run.writer.discard()
            state = State.FAILED
        epoch = one.claimed.epoch
        await self._unit(lambda ctx: executions.finish(ctx, run.execution_id, epoch, state, counts))

    async def _walk(self, one: _Running) -> tuple[State, NodeCounts]:
        claimed, run = one.claimed, one.run
        if claimed.taken_over:
            run.writer.message(execution_work.LOST, level="WARN", user=run.user)
        dispatch = Dispatch(
            run=run,
            job=claimed.job,
            options=claimed.options,
            selection=claimed.selection,
            secrets=tuple(options.secrets(claimed.job.options, claimed.options)),
            chain=(claimed.job.id,) if claimed.job.id is not None else (),
        )
        verdict = await dispatch.walk(execution_work.outcomes(claimed.steps))
        if verdict.state is State.ABORTED and not (one.abort or one.timed_out or one.given_up):
            # The database refused the beginning of a step before we heard why.
            ids = [run.execution_id]
            self._stop_some(ids, await self._unit(lambda ctx: execution_work.look(ctx, self._worker, ids, 0)))
        if one.timed_out and verdict.state is State.ABORTED:
            run.writer.message(f"The job took longer than {self._limit(claimed)}", level="ERR", user=run.user)
            return State.FAILED, verdict.counts
        return verdict.state, verdict.counts

    def _limit(self, claimed: Claimed) -> str:
        text = job_context.replaced(claimed.job.timeout, job_context.context(claimed.options, {}))
        return options.Mask(options.secrets(claimed.job.options, claimed.options)).text(text)

    @contextlib.contextmanager
    def _time_limit(self, one: _Running) -> Iterator[None]:
        """Stop the execution when its job's time is up."""
        text = self._limit(one.claimed)
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

    # -- leaving --------------------------------------------------------------------------

    async def _leave_all(self) -> None:
        """End what runs here, without a word: what happened is told by who takes it over."""
        async with self._claiming:
            tasks = [one.task for one in self._running.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._recorder.close(LEAVE_SECONDS)
        await self._pool.close()
        await asyncio.to_thread(self._guard.close)
        self._threads.shutdown(wait=True)

    async def _keep_rest(self, one: _Running) -> None:
        """What came until now is kept, if the database is there."""
        if not one.given_up:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await one.run.writer.close()
        await one.run.writer.discard()

    # -- what dispatches ask for ----------------------------------------------------------

    def transport(self, way: NodeWay, selection: Selection) -> Transport:
        """The way to a node. Raises Invalid."""
        if isinstance(way.way, Local):
            return LocalTransport(self._guard, user=way.way.user)
        if isinstance(way.way, AgentWay):
            if self._agents is None:
                raise Invalid("This worker reaches no agents.")
            return self._agents.transport(way.way)
        assert isinstance(way.way, Connection)
        return self._pool.transport(_access(way.way, selection))

    def policy_runs(self) -> Runs:
        """What has agents run. Raises Invalid."""
        if self._policy_runs is None:
            raise Invalid("This worker reaches no agents.")
        return self._policy_runs

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
        conflicts = 0
        while True:
            try:
                return await self._once(function)
            except (Conflict, Unavailable) as error:
                conflicts += isinstance(error, Conflict)
                if isinstance(error, WrongKey) or conflicts > _MOST_CONFLICTS:
                    raise
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
        #: a job that is referred to on ten thousand nodes does not read ten thousand nodes each time
        self._fleet: Fleet | None = None
        self._fleet_until = 0.0

    def transport(self, way: NodeWay, selection: Selection) -> Transport:
        return self._of.transport(way, selection)

    async def script(self, step: ScriptFile | ScriptUrl, values: Values) -> bytes:
        return await self._of.script(step, values)

    def policy_runs(self) -> tuple[Runs, Known]:
        return self._of.policy_runs(), self

    async def latest_run(self, node: NodeId) -> LatestRun:
        return await self._of.unit_as(self._claimed, lambda ctx: compliance.latest_run(ctx, node))

    async def compliance(self, node: NodeId) -> NodeCompliance:
        return await self._of.unit_as(self._claimed, lambda ctx: compliance.of_node(ctx, node))

    async def refer(self, reference: JobRef, values: Values, chain: tuple[int, ...]) -> Referenced:
        project = self._claimed.execution.project
        now = asyncio.get_running_loop().time()

        def found(ctx: Context) -> Referenced:
            if now >= self._fleet_until:
                self._fleet, self._fleet_until = execution_work.fleet(ctx, project), now + _FLEET_SECONDS
            return execution_work.refer(ctx, reference, project, values, chain, self._fleet)

        return await self._of.unit_as(self._claimed, found)

    async def host_keys_seen(self, keys: Sequence[HostKey], *, trusted: bool) -> None:
        def see(ctx: Context) -> None:
            for one in keys:
                ctx.store.host_keys.see(one.address, one.key, trusted=trusted)

        await self._of.unit_as(self._claimed, see)


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


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
