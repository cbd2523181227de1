# SPDX-License-Identifier: Apache-2.0
"""One policy generation from what was asked to what is kept. `services/policies.py` says what each part means.

    lock ── claim (committed: progress shows) ── snapshot (read only, one moment) ── compute ── save (committed)

Killed anywhere, it leaves the former policies and a row that the next run claims again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.engine import generation_pool
from quarterdeck.services import fleet, policies
from quarterdeck.services.context import Context
from quarterdeck.services.fleet import Snapshot
from quarterdeck.storage.generations import Generation

log = logging.getLogger(__name__)

#: From this many nodes on, it is shown while they are computed how many they are.
_WORTH_PROGRESS = 500

#: Opens a unit of work that commits when it is left without an error.
UnitsOfWork = Callable[[], AbstractContextManager[Context]]


def run(units: UnitsOfWork, *, processes: int) -> Generation | None:
    """Generate what was asked for; returns the row as claimed, or None when there was nothing to do.

    Raises Conflict and Unavailable, after which trying again helps; any other failure is noted on the row.
    """
    claimed: Generation | None = None
    try:
        with units() as ctx:
            ctx.store.generations.lock()
            claimed = _claim(units)
            if claimed is not None:
                _generate(units, ctx, claimed, processes)
    except (Conflict, Unavailable):
        raise
    except Exception as error:
        if claimed is None:
            raise
        log.exception("generation %d failed", claimed.id)
        _fail(units, claimed, error)
    return claimed


def _claim(units: UnitsOfWork) -> Generation | None:
    with units() as ctx:
        return ctx.store.generations.claim()


def _generate(units: UnitsOfWork, ctx: Context, claimed: Generation, processes: int) -> None:
    begun = time.monotonic()
    taken = _snapshot(units, claimed)
    read = time.monotonic()
    changed = policies.save(ctx, claimed, taken, generation_pool.generate(taken.fleet, processes=processes))
    log.info(
        "generation %d: %d of %d nodes changed; %.3f s to read, %.3f s to compute and write",
        claimed.id,
        changed,
        len(taken.fleet.nodes),
        read - begun,
        time.monotonic() - read,
    )


def _snapshot(units: UnitsOfWork, claimed: Generation) -> Snapshot:
    with units() as ctx:
        taken = fleet.snapshot(ctx, claimed.concerns)
    if len(taken.fleet.nodes) >= _WORTH_PROGRESS:
        with units() as ctx:
            ctx.store.generations.progress(claimed.id, nodes_total=len(taken.fleet.nodes))
    return taken


def _fail(units: UnitsOfWork, claimed: Generation, error: Exception) -> None:
    with units() as ctx:
        ctx.store.generations.lock()
        # Between the failure and this lock somebody else may have claimed the row.
        if ctx.store.generations.get(claimed.id).started_at == claimed.started_at:
            ctx.store.generations.end(claimed.id, "failed", message=f"{type(error).__name__}: {error}")
            policies.retry_later(ctx, claimed)
