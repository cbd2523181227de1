# SPDX-License-Identifier: Apache-2.0
"""What a server does once an hour so that nothing grows for ever."""

from __future__ import annotations

from datetime import timedelta

from quarterdeck.services import reports
from quarterdeck.services.context import Context
from quarterdeck.storage import queue

#: The queue's names of the tasks.
TASK = "tidy up"
RUNS_TASK = "keep runs"

#: Requests of agents are acceptable for five minutes; their nonces are kept somewhat longer.
_NONCES_KEPT = timedelta(hours=1)
_TASK_LOG_KEPT = timedelta(days=3)


def tidy(ctx: Context) -> None:
    """Forget what is old: seen nonces, runs, counters that nobody has, and the log of the task queue."""
    ctx.store.agent_requests.forget_nonces(ctx.now - _NONCES_KEPT)
    reports.prepare_partitions(ctx)
    reports.forget_old_runs(ctx)
    ctx.store.compliance.sweep()
    queue.trim(ctx.store, before=ctx.now - _TASK_LOG_KEPT)


def keep_runs(ctx: Context) -> None:
    """Make room for the runs of the next days, and forget those of days long past."""
    reports.prepare_partitions(ctx)
    reports.forget_old_runs(ctx)
