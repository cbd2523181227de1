# SPDX-License-Identifier: Apache-2.0
"""Workers that run executions: who there is, what they run, and letting one come to rest."""

from __future__ import annotations

from typing import Any

from quarterdeck.services import workers
from quarterdeck.services.context import Context
from quarterdeck.services.workers import ShownWorker
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Workers")


@section.operation("listWorkers", "GET", "/api/1/workers", right="system.read")
def list_workers(ctx: Context, request: Request) -> Reply:
    """List the workers, whether they live, and the executions that they run."""
    return Reply([_encode(one) for one in workers.listed(ctx)])


@section.operation("drainWorker", "POST", "/api/1/workers/{id}/drain", right="system.write")
def drain_worker(ctx: Context, request: Request) -> Reply:
    """Let a worker begin nothing more; what it runs goes on."""
    return Reply(_encode(workers.drain(ctx, request.params["id"])))


@section.operation("resumeWorker", "POST", "/api/1/workers/{id}/resume", right="system.write")
def resume_worker(ctx: Context, request: Request) -> Reply:
    """Let a worker that was to come to rest begin again."""
    return Reply(_encode(workers.drain(ctx, request.params["id"], draining=False)))


def _encode(one: ShownWorker) -> dict[str, Any]:
    return {
        "id": one.worker.id,
        "host": one.worker.host,
        "pid": one.worker.pid,
        "started": one.worker.started_at,
        "draining": one.worker.draining,
        "alive": one.alive,
        "executions": list(one.executions),
    }
