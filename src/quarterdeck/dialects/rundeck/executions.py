# SPDX-License-Identifier: Apache-2.0
"""Executions chapter: which run, how one stands, and its end on request. Their output: `execution_output.py`."""

from __future__ import annotations

from quarterdeck.dialects.rundeck import body, envelope, execution_shapes
from quarterdeck.dialects.rundeck.envelope import element
from quarterdeck.services import executions
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Executions")


@section.operation("runningExecutions", "GET", "/executions/running", right="execution.read", since=1)
def list_running_executions(ctx: Context, request: Request) -> Reply:
    """List the executions of a project that have not ended, the newest first."""
    found = executions.running(ctx, body.required(request, "project"))
    return execution_shapes.listed(request, ctx.site, found)


@section.operation("execution", "GET", "/execution/{id}", right="execution.read", since=1)
def get_execution(ctx: Context, request: Request) -> Reply:
    """Tell how one execution stands."""
    found = executions.readable(ctx, body.present(request.params["id"], "id"))
    return execution_shapes.listed(request, ctx.site, [found])


@section.operation("abortExecution", "GET", "/execution/{id}/abort", right="execution.write", since=1)
def abort_execution(ctx: Context, request: Request) -> Reply:
    """Ask a running execution to end; it does within ten seconds."""
    execution_id = body.present(request.params["id"], "id")
    answer = executions.abort(ctx, execution_id)
    execution = element("execution", id=execution_id, status=answer.state.value)
    abort = element("abort", "", execution, status=answer.abort, reason=answer.reason or None)
    return Reply([envelope.told(f"Execution status: {answer.text}"), abort])
