# SPDX-License-Identifier: Apache-2.0
"""Starting jobs whose schedule is due, in the name of who saved them last. When that is, `core/schedules.py` decides.

A time that passed while nobody could begin is told in the history, once however many there were, and not made up for.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from quarterdeck.core import accounts, job_checks, schedules
from quarterdeck.core.accounts import Account
from quarterdeck.core.activities import Activity, ActivityStatus
from quarterdeck.core.errors import Forbidden, Invalid, QuarterdeckError, Unavailable
from quarterdeck.core.jobs import Job, SavedJob
from quarterdeck.services import access, jobs
from quarterdeck.services.context import Context
from quarterdeck.storage.sealing import WrongKey

log = logging.getLogger(__name__)

_FOR_EVER = timedelta(days=365 * 200)
_MOST_SCHEDULES = 100_000


def fire_due(ctx: Context, *, most: int = 50) -> int:
    """Deal with jobs that are due, the longest due first; returns with how many. Another worker gets none of these."""
    found = ctx.store.jobs.due(ctx.now, most)
    for job_id, due in found.items():
        try:
            _fire(ctx, ctx.store.jobs.get(job_id), due)
        except WrongKey as error:  # a job that cannot be read must not keep the others from starting
            ctx.store.jobs.plan(job_id, None)
            _remember(ctx, job_id, due, "failed", f"The schedule ends: {error.message}")
    return len(found)


def replan(ctx: Context) -> int:
    """Plan all future times anew, as the default time zone may be another one now; returns how many changed."""
    changed = 0
    for job_id, due in ctx.store.jobs.due(ctx.now + _FOR_EVER, _MOST_SCHEDULES).items():
        if due <= ctx.now:
            continue
        try:
            planned = _next_run(ctx, ctx.store.jobs.get(job_id).job)
        except (Invalid, WrongKey) as error:
            log.warning("the schedule of job %d cannot be planned: %s", job_id, error.message)
            continue
        if planned != due:
            ctx.store.jobs.plan(job_id, planned)
            changed += 1
    return changed


def _next_run(ctx: Context, job: Job) -> datetime | None:
    if job.schedule is None:
        return None
    return schedules.next_after(job.schedule.crontab, ctx.now, job_checks.zone_of(job.schedule, ctx.site.zone))


def _fire(ctx: Context, saved: SavedJob, due: datetime) -> None:
    # What happens to this time, the schedule goes on: the next time is planned first, and outside of the savepoint.
    try:
        planned = _next_run(ctx, saved.job)
    except Invalid as error:
        ctx.store.jobs.plan(saved.id, None)
        _remember(ctx, saved.id, due, "failed", f"The schedule ends: {error.message}")
        return
    ctx.store.jobs.plan(saved.id, planned)
    if ctx.now - due > timedelta(seconds=ctx.site.misfire_seconds):
        log.warning("job %d was due at %s and is not made up for", saved.id, due)
        _remember(ctx, saved.id, due, "missed", _missed(ctx, saved.job, due))
        return
    try:
        with ctx.store.savepoint():
            _start(ctx, saved)
    except Unavailable:
        raise
    except QuarterdeckError as error:
        log.warning("the scheduled run of job %d did not begin: %s", saved.id, error.message.strip())
        _remember(ctx, saved.id, due, "failed", f"The scheduled run did not begin: {error.message.strip()}")


def _start(ctx: Context, saved: SavedJob) -> None:
    """The job's row is locked: nobody can start it between the look and the start."""
    running = None if saved.job.multiple_executions else ctx.store.executions.running_of_job(saved.id)
    if running is not None:
        log.info("job %d is due and left out: its execution %d still runs", saved.id, running.id)
        return
    own = replace(ctx, account=_saver(ctx, saved))
    own.require("job.run")
    access.require_job(own, saved.job, "run")
    jobs.start(own, saved)


def _saver(ctx: Context, saved: SavedJob) -> Account:
    if saved.account_id == accounts.SYSTEM.id:
        return accounts.SYSTEM
    found = ctx.store.accounts.find(saved.account_id)
    if found is None:
        raise Forbidden(f"The account '{saved.account_name}', which saved the job last, is gone.")
    if not found.usable(ctx.now):
        raise Forbidden(f"The account '{found.name}', which saved the job last, is disabled or has expired.")
    return found


def _missed(ctx: Context, job: Job, due: datetime) -> str:
    assert job.schedule is not None
    zone = job_checks.zone_of(job.schedule, ctx.site.zone)
    further = schedules.next_after(job.schedule.crontab, due, zone)
    also = " and later ones" if further is not None and further <= ctx.now else ""
    local = due.astimezone(zone).isoformat(sep=" ", timespec="seconds")
    return f"The run that was due at {local}{also} could not begin in time."


def _remember(ctx: Context, job_id: int, due: datetime, status: ActivityStatus, summary: str) -> None:
    head, saver = ctx.store.jobs.heads_of([job_id])[job_id], ctx.store.jobs.saver(job_id)
    ctx.store.activities.add(
        Activity(
            project=head.project,
            title=head.full_name,
            status=status,
            summary=summary,
            user=saver,
            started=due,
            ended=ctx.now,
            job_id=str(job_id),
        )
    )
