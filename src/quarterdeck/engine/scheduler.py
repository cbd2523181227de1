# SPDX-License-Identifier: Apache-2.0
"""The clock of schedules: sleeps until the next job is due and lets it start. What due means is the services'.

Every worker has one; a row lock makes sure that a job is started by one of them. A worker that drains starts nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.services import execution_work, schedules
from quarterdeck.services.context import Context

log = logging.getLogger(__name__)

#: Notices may get lost, and clocks may be set: nobody sleeps longer.
LOOK_SECONDS = 5.0
#: Another worker is just dealing with what is due.
_BUSY_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MOST = 50
#: Connections that it takes.
THREADS = 1

UnitsOfWork = Callable[[], AbstractContextManager[Context]]
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


async def run(
    units: UnitsOfWork,
    changed: asyncio.Event,
    stop: asyncio.Event,
    *,
    worker: Callable[[], int] = lambda: 0,
    clock: Clock = _now,
) -> None:
    """Start what is due, until `stop`. Set `changed` when a notice says that schedules changed.

    `units` opens units of work that commit; `worker` tells this worker's id, 0 while it has none: one that drains
    starts nothing.
    """
    planned = False
    while not stop.is_set():
        changed.clear()
        try:
            if not planned:
                await asyncio.to_thread(_replan, units, clock)
                planned = True
            seconds = await asyncio.to_thread(_round, units, worker(), clock)
        except (Conflict, Unavailable) as error:
            log.warning("schedules have to wait: %s", error.message)
            seconds = _RETRY_SECONDS
        except Exception:
            log.exception("schedules failed; trying again")
            seconds = LOOK_SECONDS
        await _sleep(seconds, changed, stop)


def _replan(units: UnitsOfWork, clock: Clock) -> None:
    with units() as ctx:
        ctx.store.now = clock()
        changed = schedules.replan(ctx)
    if changed:
        log.info("%d schedules are due at other times now", changed)


def _round(units: UnitsOfWork, worker: int, clock: Clock) -> float:
    """Start what is due; returns the seconds after which to look again."""
    with units() as ctx:
        ctx.store.now = clock()
        if execution_work.is_draining(ctx, worker):
            return LOOK_SECONDS
        if schedules.fire_due(ctx, most=_MOST) == _MOST:
            return 0
        due = ctx.store.jobs.next_due()
    if due is None:
        return LOOK_SECONDS
    left = (due - clock()).total_seconds()
    return min(left, LOOK_SECONDS) if left > 0 else _BUSY_SECONDS


async def _sleep(seconds: float, *events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
