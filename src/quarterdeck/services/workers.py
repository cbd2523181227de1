# SPDX-License-Identifier: Apache-2.0
"""What people do with workers: look at them, let one begin nothing more, let it begin again, empty it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.core.errors import NotFound
from quarterdeck.services import executions
from quarterdeck.services.context import Context
from quarterdeck.storage.workers import WorkerRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownWorker:
    """A worker, whether it lives, and the executions that it has and that have not ended, by id."""

    worker: WorkerRecord
    alive: bool
    executions: tuple[int, ...] = ()


def listed(ctx: Context) -> list[ShownWorker]:
    """Every worker that is not forgotten, by id."""
    owned = ctx.store.executions.owned()
    return [
        ShownWorker(
            worker=one,
            alive=not ctx.store.workers.is_gone(one.id),
            executions=tuple(sorted(execution for execution, owner in owned.items() if owner == one.id)),
        )
        for one in ctx.store.workers.all()
    ]


def drain(ctx: Context, worker_id: str, *, draining: bool = True) -> ShownWorker:
    """Let a worker begin nothing more (what runs goes on), or begin again. Raises NotFound."""
    found = next((one for one in listed(ctx) if str(one.worker.id) == worker_id), None)
    if found is None:
        raise NotFound(f"There is no worker {worker_id}.")
    ctx.store.workers.drain(found.worker.id, draining=draining)
    return next(one for one in listed(ctx) if one.worker.id == found.worker.id)


def drain_all(ctx: Context, *, draining: bool = True) -> list[ShownWorker]:
    """The same for every worker that lives; returns those."""
    living = [one for one in listed(ctx) if one.alive]
    for one in living:
        if one.worker.draining is not draining:
            ctx.store.workers.drain(one.worker.id, draining=draining)
    return living


def abort_executions(ctx: Context, some: Iterable[ShownWorker]) -> list[int]:
    """Ask every execution of these workers to end; returns their ids."""
    ids = [execution for one in some for execution in one.executions]
    for execution in ids:
        executions.abort(ctx, str(execution))
    return ids
