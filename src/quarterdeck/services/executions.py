# SPDX-License-Identifier: Apache-2.0
"""Executions: starting, looking, aborting, and what an end leaves behind.

What a worker needs to run one is in `services/execution_work.py`; how it runs is the engine's. A worker that does not
obey an abort in time loses the execution to `end_aborted`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from quarterdeck.core import executions, jobs
from quarterdeck.core.activities import Activity
from quarterdeck.core.errors import Forbidden, NotFound
from quarterdeck.core.events import ExecutionEnded
from quarterdeck.core.executions import AbortAnswer, Execution, Kind, NodeCounts, NodeStep, State
from quarterdeck.core.jobs import Job, JobHead
from quarterdeck.core.notifications import Delivery
from quarterdeck.services import access, projects
from quarterdeck.services.context import Context
from quarterdeck.storage import notices, queue
from quarterdeck.storage.executions import NOT_FOUND, ExecutionQuery

#: The queue's names of the tasks.
RUN_TASK = "run execution"
END_TASK = "end aborted execution"

#: A worker needs four seconds for the most stubborn of commands; who has not ended by then does not listen.
_ABORT_PATIENCE = timedelta(seconds=5)
#: The average of a job's duration is taken over so many successful runs.
_AVERAGED = 10
ADHOC_TITLE = "adhoc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExecution:
    """An execution with the head of its job, if it belongs to one that still exists."""

    execution: Execution
    job: JobHead | None = None


def start(ctx: Context, job: Job, values: Mapping[str, str], *, kind: Kind, shown: str) -> Execution:
    """Let a worker run these steps as soon as this unit of work commits. `shown` is the argument string for eyes."""
    execution = Execution(
        id=0,
        project=job.project,
        user=ctx.account.name,
        account_id=ctx.account.id,
        started=ctx.now,
        kind=kind,
        job_id=job.id,
        description=jobs.summary_of(job.sequence),
        argstring=shown,
        loglevel=job.loglevel,
    )
    return _started(ctx, execution, job, values)


def retry_failed(ctx: Context, execution_id: str) -> Execution:
    """Start the same again on the nodes on which it did not succeed. Raises NotFound, Conflict, Forbidden."""
    before = get(ctx, execution_id).execution
    work = ctx.store.executions.work(before.id)
    _require_run(ctx, work.job)
    again = executions.of_failed_nodes(before, ctx.store.executions.steps(before.id), len(work.job.sequence.steps))
    started = replace(
        again, user=ctx.account.name, account_id=ctx.account.id, started=ctx.now, description=before.description
    )
    return _started(ctx, started, work.job, work.options)


def _require_run(ctx: Context, job: Job) -> None:
    if job.name:
        ctx.require("job.run")
        access.require_job(ctx, job, "run")
        access.require_steps(ctx.account, job)
    else:
        ctx.require("adhoc.run")
        access.require_adhoc(ctx, job.project, "run")


def _started(ctx: Context, execution: Execution, job: Job, values: Mapping[str, str]) -> Execution:
    kept = replace(execution, id=ctx.store.executions.add(execution, job, values))
    queue.defer(ctx.store, RUN_TASK, {"execution": kept.id})
    notices.execution_changed(ctx.store, kept.id)
    return kept


# -- look -------------------------------------------------------------------------------------


def get(ctx: Context, execution_id: str) -> ShownExecution:
    """The execution of this number. Raises NotFound, with the number as it was sent."""
    return next(iter(show(ctx, [_numbered(ctx, execution_id)])))


def readable(ctx: Context, execution_id: str) -> ShownExecution:
    """The same, for those who may read its project and its job. Raises NotFound, Forbidden."""
    shown = get(ctx, execution_id)
    if not _may_read(ctx, shown):
        raise Forbidden(f'Not authorized for action "Read" for Execution {execution_id}')
    return shown


def find(ctx: Context, query: ExecutionQuery) -> list[ShownExecution]:
    """The executions asked for, without those that the caller may not read: a page may hold fewer than `most`."""
    return [one for one in show(ctx, ctx.store.executions.matching(query)) if _may_read(ctx, one)]


def _may_read(ctx: Context, shown: ShownExecution) -> bool:
    execution = shown.execution
    if not access.may_read_project(ctx, execution.project):
        return False
    if execution.kind == "adhoc":
        return access.may_adhoc(ctx, execution.project, "read")
    return shown.job is None or access.may_job(ctx, shown.job, "read")


def of_job(ctx: Context, job_id: str, state: State | None, *, most: int | None, offset: int) -> list[ShownExecution]:
    """The executions of a job: running ones first, then the newest end first. Raises NotFound."""
    saved = ctx.store.jobs.named(job_id)
    if saved is None:
        raise NotFound(f"Job ID does not exist: {job_id}")
    query = ExecutionQuery(job_id=saved.id, state=state, most=most, offset=offset)
    return show(ctx, ctx.store.executions.matching(query))


def running(ctx: Context, project: str) -> list[ShownExecution]:
    """The executions of a project that have not ended, newest start first. Raises NotFound."""
    projects.require(ctx, project)
    return show(ctx, ctx.store.executions.matching(ExecutionQuery(project=project, state=State.RUNNING)))


def show(ctx: Context, some: Sequence[Execution]) -> list[ShownExecution]:
    """Executions with the heads of their jobs."""
    heads = ctx.store.jobs.heads_of({one.job_id for one in some if one.job_id is not None})
    return [ShownExecution(execution=one, job=heads.get(one.job_id or 0)) for one in some]


def steps(ctx: Context, execution_id: str) -> list[NodeStep]:
    """What became of every step that began. Raises NotFound."""
    return ctx.store.executions.steps(_numbered(ctx, execution_id).id)


def deliveries(ctx: Context, execution_id: int) -> list[Delivery]:
    """Who was to hear of its end, in the order in which they were asked for."""
    return ctx.store.notifications.of(execution_id)


def _numbered(ctx: Context, execution_id: str, *, lock: bool = False) -> Execution:
    found = None
    if execution_id.isdecimal() and execution_id.isascii() and len(execution_id) < 19:
        found = ctx.store.executions.find(int(execution_id), lock=lock)
    if found is None:
        raise NotFound(NOT_FOUND.format(id=execution_id))
    return found


# -- abort ------------------------------------------------------------------------------------


def abort(ctx: Context, execution_id: str) -> AbortAnswer:
    """Ask an execution to end; it does within ten seconds. Raises NotFound."""
    execution = _numbered(ctx, execution_id, lock=True)
    if not _may_kill(ctx, execution):
        return AbortAnswer(_as_it_is(execution), "failed", execution.state, "unauthorized")
    alive = _has_somebody(ctx, execution)
    answer = executions.abort_answer(execution, alive=alive)
    if execution.state is not State.RUNNING:
        return answer
    ctx.store.executions.ask_to_abort(execution.id, ctx.account.name)
    if alive and execution.owner is not None:
        queue.defer(ctx.store, END_TASK, {"execution": execution.id}, delay=_ABORT_PATIENCE)
        notices.execution_to_stop(ctx.store, execution.id)
        notices.execution_changed(ctx.store, execution.id)
    else:  # nothing of it has begun, or nobody is there to end it
        end_aborted(ctx, execution.id)
    return answer


def _has_somebody(ctx: Context, execution: Execution) -> bool:
    """Whether its worker lives, or, while it waits, any worker does."""
    if execution.state is not State.RUNNING:
        return False
    table = ctx.store.workers
    if execution.owner is not None:
        return not table.is_gone(execution.owner)
    return any(not table.is_gone(one.id) for one in table.all())


def _as_it_is(execution: Execution) -> str:
    state = execution.state
    return "running" if state is State.RUNNING else f"previously {state}"


def _may_kill(ctx: Context, execution: Execution) -> bool:
    if execution.kind == "adhoc":
        return access.may_adhoc(ctx, execution.project, "kill")
    saved = ctx.store.jobs.find(execution.job_id) if execution.job_id is not None else None
    return saved is None or access.may_job(ctx, saved.job, "kill")


def end_aborted(ctx: Context, execution_id: int) -> bool:
    """End an execution that was to end and has not: whoever still has it may write nothing more about it."""
    epoch = ctx.store.executions.raise_epoch(execution_id)
    if epoch is None:
        return False
    ctx.store.executions.abandon_steps(execution_id, "The worker did not end it in time.")
    notices.execution_to_stop(ctx.store, execution_id)
    return finish(ctx, execution_id, epoch, State.ABORTED)


# -- the end ----------------------------------------------------------------------------------


def finish(ctx: Context, execution_id: int, epoch: int, verdict: State, counts: NodeCounts | None = None) -> bool:
    """Set the end, and all that follows from it; False when it is another's, or has ended.

    Without counts they are told by the steps that were kept. A step of which nobody knows the end is abandoned.
    """
    # The lock: whoever asks for an abort from now on hears that it has ended.
    before = ctx.store.executions.get(execution_id, lock=True)
    if before.ended is not None or before.epoch != epoch:
        return False
    ctx.store.executions.abandon_steps(execution_id, "Nobody knows how it ended.")
    job = ctx.store.executions.job_of(execution_id)
    found = counts or _told_counts(ctx, before, job)
    columns: dict[str, Any] = {
        "succeeded": verdict is State.SUCCEEDED,
        "cancelled": before.abort_at is not None,
        "nodes_succeeded": found.succeeded,
        "nodes_failed": found.failed,
    }
    if not ctx.store.executions.finish(execution_id, epoch, **columns):
        return False
    ended = ctx.store.executions.get(execution_id)
    saved = ctx.store.jobs.find(ended.job_id) if ended.job_id is not None else None
    _remember(ctx, ended, job, found)
    if saved is not None and ended.succeeded:
        durations = ctx.store.executions.durations_ms(saved.id, _AVERAGED)
        ctx.store.jobs.took(saved.id, sum(durations) // len(durations))
    ctx.emit(ExecutionEnded(execution_id))
    notices.execution_changed(ctx.store, execution_id)
    return True


def _told_counts(ctx: Context, execution: Execution, job: Job) -> NodeCounts:
    kept = ctx.store.executions.steps(execution.id)
    return executions.counts_of(execution.nodes or (), kept, len(job.sequence.steps))


def _remember(ctx: Context, ended: Execution, job: Job, counts: NodeCounts) -> None:
    assert ended.ended is not None
    state = ended.state
    ctx.store.activities.add(
        Activity(
            project=ended.project,
            title=job.full_name if ended.kind == "job" else ADHOC_TITLE,
            status="succeeded" if state is State.SUCCEEDED else "aborted" if state is State.ABORTED else "failed",
            summary=ended.description,
            user=ended.user,
            started=ended.started,
            ended=ended.ended,
            nodes_succeeded=counts.succeeded,
            nodes_failed=counts.failed,
            nodes_total=counts.total,
            node_names=ended.nodes or (),
            aborted_by=(ended.aborted_by or ended.user) if state is State.ABORTED else "",
            job_id=str(ended.job_id) if ended.job_id is not None else "",
            execution_id=ended.id,
        )
    )
