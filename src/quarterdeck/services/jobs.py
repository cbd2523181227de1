# SPDX-License-Identifier: Apache-2.0
"""What people do with jobs: list, import, delete, run. What makes a definition wrong is in `core/job_checks.py`.

Every function raises NotFound for a job or a project that does not exist, and Forbidden where the operator's access
policies say no.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from quarterdeck.core import job_checks, job_context, jobs, options, schedules
from quarterdeck.core.errors import Conflict, Forbidden, NotFound
from quarterdeck.core.executions import Execution
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import Job, JobHead, SavedJob
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.services import access, executions, projects
from quarterdeck.services.context import Context
from quarterdeck.storage import notices
from quarterdeck.storage.jobs import JobQuery

Duplicates = Literal["create", "skip", "update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one job of a document; `index` counts from 1, `id` is that of the job that is kept, if one is."""

    index: int
    outcome: Literal["succeeded", "failed", "skipped"]
    job: Job
    id: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedJob:
    """`next_run` is None without a schedule, `average_ms` before the first success."""

    head: JobHead
    next_run: datetime | None
    average_ms: int | None


def heads(ctx: Context, query: JobQuery) -> list[JobHead]:
    """The jobs asked for that the caller may read."""
    projects.require(ctx, query.project)
    return [one for one in ctx.store.jobs.heads(query) if access.may_job(ctx, one, "read")]


def listed(ctx: Context, query: JobQuery) -> list[ListedJob]:
    """The same with when each runs next and how long it takes."""
    found = heads(ctx, query)
    plans = ctx.store.jobs.plans_of(one.id for one in found)
    return [ListedJob(one, *plans[one.id]) for one in found if one.id in plans]


def matching(ctx: Context, query: JobQuery) -> list[Job]:
    """The same, whole; defaults of secure options are hidden."""
    projects.require(ctx, query.project)
    return [_shown(one.job) for one in ctx.store.jobs.matching(query) if access.may_job(ctx, one.job, "read")]


def get(ctx: Context, job_id: str) -> SavedJob:
    """The job of this number or uuid; defaults of its secure options are hidden."""
    saved = _named(ctx, job_id)
    access.require_job(ctx, saved.job, "read")
    return replace(saved, job=_shown(saved.job))


def _shown(job: Job) -> Job:
    return replace(job, options=options.concealed(job.options))


def delete(ctx: Context, job_id: str) -> JobHead:
    """Remove a job; its executions stay. Raises Conflict while it runs."""
    saved = _named(ctx, job_id, lock=True)
    access.require_job(ctx, saved.job, "delete")
    running = ctx.store.executions.running_of_job(saved.id)
    if running is not None:
        raise Conflict(f'Cannot delete Job "{saved.job.name}" [{job_id}]: it {_is_running(running)}')
    ctx.store.jobs.remove(saved.id)
    notices.schedules_changed(ctx.store)
    return jobs.head(saved.job)


# -- import -----------------------------------------------------------------------------------


def import_all(ctx: Context, drafts: Iterable[Draft], duplicates: Duplicates) -> list[Imported]:
    """Keep the jobs of a document, each on its own: one that fails undoes no other."""
    done = [_import(ctx, index, draft, duplicates) for index, draft in enumerate(drafts, 1)]
    notices.schedules_changed(ctx.store)
    return done


def _import(ctx: Context, index: int, draft: Draft, duplicates: Duplicates) -> Imported:
    job = replace(draft.job, id=None)
    present = _present(ctx, job) if duplicates != "create" else None
    known = present.id if present is not None else None
    if present is not None and duplicates == "skip":
        exists = f"A Job named '{job.name}' already exists"
        return Imported(index=index, outcome="skipped", job=job, id=known, problems=(exists,))
    draft = replace(draft, job=_with_kept_secrets(job, present))
    try:
        if wrong := _problems(ctx, draft, present):
            return Imported(index=index, outcome="failed", job=job, id=known, problems=tuple(wrong))
        saved = _save(ctx, draft.job, present)
    except Forbidden as error:
        return Imported(index=index, outcome="failed", job=job, id=known, problems=(error.message,))
    return Imported(index=index, outcome="succeeded", job=saved, id=saved.id)


def _present(ctx: Context, job: Job) -> SavedJob | None:
    """The one job that a document's means: by its uuid if it has one, else by its place and name."""
    table = ctx.store.jobs
    found = table.having(uuid=job.uuid) if job.uuid else table.at(job.project, job.group, job.name)
    return found[0] if len(found) == 1 else None


def _with_kept_secrets(job: Job, present: SavedJob | None) -> Job:
    """An exported document hides defaults of secure options; coming back, it means those that are kept."""
    kept = {one.name: one.value for one in present.job.options if one.secure} if present is not None else {}
    return replace(
        job,
        options=tuple(
            replace(one, value=kept.get(one.name, "")) if one.secure and one.value == options.HIDDEN else one
            for one in job.options
        ),
    )


def _problems(ctx: Context, draft: Draft, present: SavedJob | None) -> list[str]:
    job = draft.job
    found = job_checks.problems(draft, ctx.now, ctx.site.zone)
    if job.project and ctx.store.projects.find(job.project) is None:
        found.append(f"Project does not exist: {job.project}")
    if present is None and job.uuid and ctx.store.jobs.having(uuid=job.uuid):
        found.append(f"Property [uuid] of class [class ScheduledExecution] with value [{job.uuid}] must be unique")
    return found


def _save(ctx: Context, job: Job, present: SavedJob | None) -> Job:
    if present is None:
        access.require_kind(ctx, job.project, "job", "create")
        access.require_job(ctx, job, "create")
        return save_new(ctx, job).job
    access.require_job(ctx, present.job, "update")
    access.require_job(ctx, job, "update")
    kept = replace(job, id=present.id, uuid=present.job.uuid)
    ctx.store.jobs.replace(_saved(ctx, kept, present.average_ms))
    return kept


def save_new(ctx: Context, job: Job) -> SavedJob:
    """Keep a job under a new number, and a new uuid unless it brings one."""
    kept = replace(job, id=ctx.store.jobs.next_id(), uuid=job.uuid or str(uuid.uuid4()))
    saved = _saved(ctx, kept, None)
    ctx.store.jobs.add(saved)
    return saved


def _saved(ctx: Context, job: Job, average_ms: int | None) -> SavedJob:
    next_run = None
    if job.schedule is not None:
        zone = job_checks.zone_of(job.schedule, ctx.site.zone)
        next_run = schedules.next_after(job.schedule.crontab, ctx.now, zone)
    return SavedJob(
        job=job,
        account_id=ctx.account.id,
        account_name=ctx.account.name,
        next_run=next_run,
        average_ms=average_ms,
    )


# -- run --------------------------------------------------------------------------------------


def run(
    ctx: Context, job_id: str, argstring: str = "", *, node_filter: NodeFilter | None = None, loglevel: str = ""
) -> Execution:
    """Start a job; a filter replaces all filters of the job. Raises Invalid for its options, Conflict while it runs."""
    saved = _named(ctx, job_id)
    access.require_job(ctx, saved.job, "run")
    return start(ctx, saved, argstring, node_filter=node_filter, loglevel=loglevel)


def start(
    ctx: Context, saved: SavedJob, argstring: str = "", *, node_filter: NodeFilter | None = None, loglevel: str = ""
) -> Execution:
    """`run` without asking whether the caller may run the job, as the schedule does.

    Raises Invalid, Conflict, and Forbidden for steps that need more than that.
    """
    access.require_steps(ctx.account, saved.job)
    given = options.parse(job_context.dated(argstring, ctx.now.astimezone(ctx.site.zone)))
    values = options.with_defaults(saved.job.options, given)
    options.check(saved.job.options, values)
    # Only the lock makes sure that of two that start at once the second sees the first.
    job = ctx.store.jobs.get(saved.id, lock=True).job
    running = None if job.multiple_executions else ctx.store.executions.running_of_job(saved.id)
    if running is not None:
        raise Conflict(f'Job "{job.name}" [{saved.id}] {_is_running(running)}')
    changed = replace(job, loglevel=loglevel or job.loglevel)
    if node_filter is not None:
        changed = replace(changed, node_filter=node_filter)
    return executions.start(ctx, changed, values, kind="job", shown=options.shown(job.options, values))


def _is_running(execution: Execution) -> str:
    return f"is currently being executed (execution [{execution.id}])"


def _named(ctx: Context, job_id: str, *, lock: bool = False) -> SavedJob:
    found = ctx.store.jobs.named(job_id, lock=lock)
    if found is None:
        raise NotFound(f"Job ID does not exist: {job_id}")
    return found
