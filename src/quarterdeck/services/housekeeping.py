# SPDX-License-Identifier: Apache-2.0
"""What a server does once an hour so that nothing grows for ever."""

from __future__ import annotations

from datetime import timedelta

from quarterdeck.services import execution_output, reports
from quarterdeck.services.context import Context
from quarterdeck.storage import queue

#: The queue's names of the tasks.
TASK = "tidy up"
RUNS_TASK = "keep runs"

#: Requests of agents are acceptable for five minutes; their nonces are kept somewhat longer.
_NONCES_KEPT = timedelta(hours=1)
_TASK_LOG_KEPT = timedelta(days=3)
#: After their start; those that live stay.
_WORKERS_KEPT = timedelta(days=1)


def tidy(ctx: Context) -> None:
    """Forget what is old: nonces, sessions, runs, executions, counters that nobody has, the log of the task queue."""
    ctx.store.agent_requests.forget_nonces(ctx.now - _NONCES_KEPT)
    ctx.store.sessions.forget_expired()
    _prepare_days(ctx)
    reports.forget_old_runs(ctx)
    _forget_old_executions(ctx)
    ctx.store.compliance.sweep()
    queue.trim(ctx.store, before=ctx.now - _TASK_LOG_KEPT)


def keep_runs(ctx: Context) -> None:
    """Make room for the runs and the output of the next days, and forget the runs of days long past."""
    _prepare_days(ctx)
    reports.forget_old_runs(ctx)


def _prepare_days(ctx: Context) -> None:
    reports.prepare_partitions(ctx)
    execution_output.prepare_partitions(ctx)


def _forget_old_executions(ctx: Context) -> None:
    before = ctx.now - ctx.site.executions_kept
    ctx.store.executions.forget(before)
    ctx.store.workers.forget(ctx.now - _WORKERS_KEPT)
    ctx.store.activities.forget(before)
    execution_output.forget_before(ctx, before)
