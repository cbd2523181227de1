# SPDX-License-Identifier: Apache-2.0
"""Walks the plan of one execution over its nodes. `core/executions.py: Plan` says which step begins where and when.

Nothing here raises for what happens on a node: it becomes the outcome of a step, and a line of the log. A step begins
only after the recorder has noted it in this worker's epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from quarterdeck.core import executions, job_context, policy_steps
from quarterdeck.core.connections import Connection
from quarterdeck.core.errors import Forbidden, Invalid, QuarterdeckError
from quarterdeck.core.executions import NodeCounts, Outcome, Plan, State, StepState, Unit
from quarterdeck.core.job_context import Context as Values
from quarterdeck.core.jobs import ApplyPolicies, Exec, Job, JobRef, Script, ScriptFile, ScriptUrl, Step
from quarterdeck.core.options import Mask
from quarterdeck.engine import steps
from quarterdeck.engine.output import LogWriter
from quarterdeck.engine.policy_runs import Known, PolicyRun, Runs
from quarterdeck.engine.recorder import Recorder
from quarterdeck.engine.transports import Command, HostKey, NodeResult, Transport
from quarterdeck.formats.host_keys import fingerprint
from quarterdeck.services.execution_work import Local, NodeWay, NoWay, Referenced, Selection
from quarterdeck.storage.executions import StepBegin, StepEnd

log = logging.getLogger(__name__)

#: After these a command has certainly not begun. A host key that is not trusted is no reason to go another way:
#: somebody should look.
_NOT_THERE = ("unreachable", "login", "refused")
_WARN, _ERR, _VERBOSE = "WARN", "ERR", "VERBOSE"


class Surroundings(Protocol):
    """What a dispatch asks of the worker it runs in."""

    def transport(self, way: NodeWay, selection: Selection) -> Transport:
        """The way to a node. Raises Invalid when it cannot be opened."""

    def policy_runs(self) -> tuple[Runs, Known]:
        """What has agents run, and what is known of their runs. Raises Invalid where nothing does."""

    async def refer(self, reference: JobRef, values: Values, chain: tuple[int, ...]) -> Referenced:
        """The job that a step refers to. Raises Invalid, Forbidden."""

    async def script(self, step: ScriptFile | ScriptUrl, values: Values) -> bytes:
        """The content of a script that lies elsewhere. Raises Invalid."""

    async def host_keys_seen(self, keys: Sequence[HostKey], *, trusted: bool) -> None:
        """Remember keys that hosts showed for the first time; without `trusted` they wait for approval."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What all dispatches of one execution share."""

    execution_id: int
    epoch: int
    user: str
    #: name, group, id … of the job, for contexts
    job_values: Mapping[str, str]
    surroundings: Surroundings
    recorder: Recorder
    writer: LogWriter
    #: when set, everything that runs is to end and nothing more begins
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    #: host keys that the log has told of
    told_keys: set[HostKey] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How it ended, and on how many nodes how."""

    state: State
    counts: NodeCounts


@dataclass(kw_only=True)
class Dispatch:
    """One job on its nodes: the execution's own, or one that a step refers to.

    `prefix` stands before the numbers of its steps; `secrets` is what its log must not show.
    """

    run: Run
    job: Job
    options: Mapping[str, str]
    selection: Selection
    secrets: tuple[str, ...]
    prefix: str = ""
    chain: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._ways = {one.resource.name: one for one in self.selection.nodes}

    async def walk(self, known: Iterable[Outcome] = ()) -> Verdict:
        """Run every step where it is to run, except where an outcome is `known`."""
        names = list(self._ways)
        sequence, dispatch = self.job.sequence, self.job.dispatch
        if self.selection.left_out:
            self._say_left_out()
        if not names:
            self.run.writer.message("No nodes matched", level=_ERR, step=self.prefix.rstrip("/"))
            return Verdict(state=State.FAILED, counts=NodeCounts(0, 0, 0))
        plan = executions.plan(
            names,
            len(sequence.steps),
            strategy=sequence.strategy,
            threadcount=dispatch.threadcount,
            keepgoing=dispatch.keepgoing,
            step_keepgoing=sequence.keepgoing,
        )
        await self._follow(plan, known)
        return Verdict(state=plan.verdict(), counts=plan.counts)

    def _say_left_out(self) -> None:
        left_out = self.selection.left_out
        self.run.writer.message(
            f"{len(left_out)} nodes of the inventory are left out, they have no SSH user or no key: "
            f"{', '.join(left_out[:10])}{' …' if len(left_out) > 10 else ''}",
            level=_WARN,
            step=self.prefix.rstrip("/"),
        )

    async def _follow(self, plan: Plan, known: Iterable[Outcome]) -> None:
        """Begin what the plan says, tell it what came of it, until nothing runs; in the end nothing is left behind."""
        outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()
        running: set[asyncio.Task[None]] = set()
        running.add(stopping := asyncio.create_task(self._when_stopped(outcomes)))
        try:
            ready = plan.next(known)
            while ready or plan.is_running:
                for unit in ready:
                    task = asyncio.create_task(self._unit_into(outcomes, unit))
                    running.add(task)
                    task.add_done_callback(running.discard)
                ended = [await outcomes.get()]
                while not outcomes.empty():
                    ended.append(outcomes.get_nowait())
                if self.run.stop.is_set():
                    plan.abort()
                ready = plan.next(one for one in ended if one is not None)
        finally:
            stopping.cancel()
            for task in running:
                task.cancel()
            await asyncio.wait({stopping, *running})

    async def _when_stopped(self, outcomes: asyncio.Queue[Outcome | None]) -> None:
        await self.run.stop.wait()
        outcomes.put_nowait(None)

    async def _unit_into(self, outcomes: asyncio.Queue[Outcome | None], unit: Unit) -> None:
        outcomes.put_nowait(await self._unit(unit))

    # -- one step on one node -------------------------------------------------------------

    async def _unit(self, unit: Unit) -> Outcome:
        way = self._ways[unit.node]
        label = f"{self.prefix}{unit.step}"
        run = self.run
        begin = StepBegin(execution_id=run.execution_id, epoch=run.epoch, step=label, node=unit.node)
        if not await run.recorder.begin(begin):
            # Aborted meanwhile, or another worker's: who watches over the execution finds out which.
            run.stop.set()
            return Outcome(unit, StepState.SKIPPED)
        try:
            state, result = await self._step(self.job.sequence.steps[unit.step - 1], way, unit, label)
        except QuarterdeckError as error:
            state, result = StepState.FAILED, NodeResult(ending="refused", reason=error.message)
        except Exception as error:
            log.exception("step %s of execution %d on %s failed", label, run.execution_id, unit.node)
            state, result = StepState.FAILED, NodeResult(ending="refused", reason=f"Internal error: {error}")
        self._tell(state, result, unit.node, label)
        end = StepEnd(
            execution_id=run.execution_id,
            step=label,
            node=unit.node,
            state=state,
            exit_status=result.exit_status,
            reason=self._mask().text(result.reason).replace("\0", "\ufffd"),
        )
        run.recorder.end(end, run.epoch)
        return Outcome(unit, state)

    async def _step(self, step: Step, way: NodeWay, unit: Unit, label: str) -> tuple[StepState, NodeResult]:
        values = job_context.context(self.options, self.run.job_values, way.resource)
        if isinstance(step, JobRef):
            return await self._reference(step, values, unit, label)
        if isinstance(step, ApplyPolicies):
            result = await self._policies(step, values, way, label)
            return (StepState.SUCCEEDED if result.succeeded else StepState.FAILED), result
        result = await self._command(step, values, way, label)
        if result.new_host_keys:
            trusted = any(isinstance(one.way, Connection) and one.way.host_keys == "first-use" for one in way.tries)
            self._say_new_keys(result.new_host_keys, way, label, trusted=trusted)
            await self.run.surroundings.host_keys_seen(result.new_host_keys, trusted=trusted)
        if result.ending == "abandoned":
            return StepState.ABANDONED, result
        return (StepState.SUCCEEDED if result.succeeded else StepState.FAILED), result

    async def _command(
        self, step: Exec | Script | ScriptFile | ScriptUrl, values: Values, way: NodeWay, label: str
    ) -> NodeResult:
        """Over the first of the node's ways that gets there: what may have begun on one is not tried on another."""
        reasons: list[str] = []
        keys: list[HostKey] = []
        result = NodeResult(ending="unreachable")
        for one in way.tries:
            result = await self._over(step, values, one, label)
            keys += result.new_host_keys
            reasons.append(f"{_kind(one)}: {result.reason}")
            if result.ending not in _NOT_THERE or self.run.stop.is_set():
                break
        if len(reasons) > 1:
            self._say_tries(reasons, _kind(one), way, label, reached=result.ending not in _NOT_THERE)
        return replace(result, new_host_keys=tuple(keys))

    async def _over(
        self, step: Exec | Script | ScriptFile | ScriptUrl, values: Values, way: NodeWay, label: str
    ) -> NodeResult:
        if isinstance(way.way, NoWay):
            return NodeResult(ending="refused", reason=way.way.reason)
        copy_directory = _copy_directory(way) if isinstance(way.way, Local) else way.way.copy_directory
        command = await self._prepared(step, values, way, copy_directory)
        if command is None:
            return NodeResult(ending="aborted", reason="Stopped before it began.")
        transport = self.run.surroundings.transport(way, self.selection)
        user = way.way.hop.username if isinstance(way.way, Connection) else way.way.user or self.run.user
        sink = self.run.writer.sink(node=way.resource.name, step=label, user=user, mask=self._mask)
        try:
            return await transport.run(command, sink, self.run.stop)
        finally:
            sink.finish()

    async def _fetched(self, step: ScriptFile | ScriptUrl, values: Values) -> bytes | None:
        """A script from elsewhere, which may take long; None when everything is to end before it is there."""
        task = asyncio.ensure_future(self.run.surroundings.script(step, values))
        stopping = asyncio.create_task(self.run.stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stopping.cancel()

    async def _prepared(
        self, step: Exec | Script | ScriptFile | ScriptUrl, values: Values, way: NodeWay, copy_directory: str
    ) -> Command | None:
        """The step as a command; None when everything is to end before it is ready."""
        if isinstance(step, ScriptFile | ScriptUrl):
            content = await self._fetched(step, values)
            if content is None:
                return None
            arguments = job_context.command_line(step.args, values)
            environment = job_context.environment(values)
            return steps.script_command(content, arguments, environment, copy_directory=copy_directory)
        command = steps.command_of(step, values, copy_directory=copy_directory)
        if isinstance(step, Exec) and self._shows_secrets(step, values, command.line):
            # Everybody on the node could read the arguments of its shell.
            start = _LOGIN_SHELL if isinstance(way.way, Connection) else ""
            script = f"{start}{command.line}\n".encode(errors="surrogateescape")
            nothing = job_context.command_line("", {})
            return steps.script_command(script, nothing, command.environment, copy_directory=copy_directory)
        return command

    def _shows_secrets(self, step: Exec, values: Values, line: str) -> bool:
        """Whether a secret is in the line, as it is or in pieces between quotes."""
        if not self.secrets:
            return False
        hidden = {
            group: {name: "1" if any(one in value for one in self.secrets) else value for name, value in some.items()}
            for group, some in values.items()
        }
        return any(one in line for one in self.secrets) or str(job_context.command_line(step.command, hidden)) != line

    async def _policies(self, step: ApplyPolicies, values: Values, way: NodeWay, label: str) -> NodeResult:
        """Have the node's agent apply its policies, however commands reach the node. Raises Invalid."""
        resource, run = way.resource, self.run
        if isinstance(way.way, NoWay) and way.way.forbidden:
            return NodeResult(ending="refused", reason=way.way.reason)
        if resource.node is None:
            reason = f"'{resource.name}' is no node of the inventory, so that it has no agent that applies policies"
            return NodeResult(ending="refused", reason=reason)
        wanted = policy_steps.wanted(step, values)
        runs, known = run.surroundings.policy_runs()

        def say(text: str, level: str) -> None:
            run.writer.message(self._mask().text(text), level=level, node=resource.name, step=label, user=run.user)

        sink = run.writer.sink(node=resource.name, step=label, user=run.user, mask=self._mask)
        going = PolicyRun(node=resource.node, name=resource.name, wanted=wanted, runs=runs, known=known, say=say)
        try:
            return await going.carry_out(sink, run.stop)
        finally:
            sink.finish()

    async def _reference(self, step: JobRef, values: Values, unit: Unit, label: str) -> tuple[StepState, NodeResult]:
        """Run another job for this node, inside this execution."""
        run = self.run
        try:
            found = await run.surroundings.refer(step, values, self.chain)
        except (Invalid, Forbidden) as error:
            return StepState.FAILED, NodeResult(ending="refused", reason=error.message)
        job = found.job
        inner = Dispatch(
            run=replace(run, job_values={**run.job_values, **_named(job)}),
            job=job,
            options=found.options,
            selection=found.selection,
            secrets=(*self.secrets, *found.secrets),
            prefix=f"{label}[{unit.node}]/",
            chain=found.chain,
        )
        verdict = await inner.walk()
        if verdict.state is State.SUCCEEDED:
            return StepState.SUCCEEDED, NodeResult(ending="ended", exit_status=0)
        reason = f"Job {job.full_name} {verdict.state}"
        return StepState.FAILED, NodeResult(ending="aborted" if run.stop.is_set() else "ended", reason=reason)

    # -- what is said ---------------------------------------------------------------------

    def _mask(self) -> Mask:
        return Mask(self.secrets)

    def _tell(self, state: StepState, result: NodeResult, node: str, label: str) -> None:
        if state is StepState.SUCCEEDED:
            return
        reason = result.reason or f"Command failed with exit status {result.exit_status}"
        self.run.writer.message(self._mask().text(reason), level=_ERR, node=node, step=label, user=self.run.user)

    def _say_tries(self, reasons: Sequence[str], kind: str, way: NodeWay, label: str, *, reached: bool) -> None:
        """Which way was taken, where more than one was tried."""
        failed = reasons[:-1] if reached else reasons
        taken = f"Reached over {kind}, after " if reached else "Not reached: "
        self.run.writer.message(
            self._mask().text(taken + "; ".join(failed)),
            level=_WARN,
            node=way.resource.name,
            step=label,
            user=self.run.user,
        )

    def _say_new_keys(self, keys: Sequence[HostKey], way: NodeWay, label: str, *, trusted: bool) -> None:
        for one in [key for key in keys if key not in self.run.told_keys]:
            self.run.told_keys.add(one)
            how = "is trusted from now on" if trusted else "waits for somebody's approval"
            self.run.writer.message(
                f"{one.address} showed a host key for the first time, which {how}: {fingerprint(one.key)}",
                level=_WARN,
                node=way.resource.name,
                step=label,
                user=self.run.user,
            )


#: The user's own shell runs a line that comes over SSH, if the line had to become a script as well.
_LOGIN_SHELL = (
    'case "$_rd_shell:$SHELL" in :*/bash|:*/zsh|:*/ksh) _rd_shell=1; export _rd_shell; exec "$SHELL" "$0" ;; esac; '
    "unset _rd_shell\n"
)


def _kind(way: NodeWay) -> str:
    return "SSH" if isinstance(way.way, Connection) else "its agent"


def _copy_directory(way: NodeWay) -> str:
    return way.resource.get("file-copy-destination-dir") or "/tmp"  # noqa: S108  # where the peer puts scripts


def _named(job: Job) -> dict[str, str]:
    return {"name": job.name, "group": job.group, "id": str(job.id or "")}
