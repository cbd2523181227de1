# SPDX-License-Identifier: Apache-2.0
"""Executions: ad-hoc ones started, any of them listed, shown with their nodes, aborted, begun again where they failed.

What they wrote is `execution_output.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.core import node_states
from quarterdeck.core.errors import Invalid
from quarterdeck.core.executions import State
from quarterdeck.core.node_states import NodeState
from quarterdeck.core.notifications import Delivery
from quarterdeck.dialects.native import body
from quarterdeck.dialects.native.body import Loglevel
from quarterdeck.services import adhoc, executions, jobs, projects
from quarterdeck.services.adhoc import Manner
from quarterdeck.services.context import Context
from quarterdeck.services.executions import ShownExecution
from quarterdeck.storage.executions import ExecutionQuery
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Executions")

_MOST = 1000


class NewExecution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `command`, or `script` with `args`. Without a filter it runs on the server's node alone."""

    command: str = ""
    script: str = ""
    args: str = ""
    filter: dict[str, str] | None = None
    threadcount: int = 1
    keepgoing: bool = False
    loglevel: Loglevel = ""


@section.operation(
    "startExecution",
    "POST",
    "/api/1/projects/{name}/executions",
    right="adhoc.run",
    body=NewExecution,
    status=201,
)
def start_execution(ctx: Context, request: Request) -> Reply:
    """Run a command or a script on the nodes of a filter; the answer is the execution, which has only begun."""
    new = body.read(request, NewExecution)
    if bool(new.command.strip()) == bool(new.script.strip()):
        raise Invalid("Give either 'command' or 'script'.")
    if new.args and not new.script.strip():
        raise Invalid("'args' are a script's; a command has them in itself.")
    project = projects.get(ctx, request.params["name"]).name
    manner = Manner(
        node_filter=body.node_filter(new.filter),
        threadcount=new.threadcount,
        keepgoing=new.keepgoing,
        loglevel=new.loglevel,
    )
    if new.command.strip():
        started = adhoc.run_command(ctx, project, new.command, manner)
    else:
        started = adhoc.run_script(ctx, project, new.script, new.args, manner)
    return Reply(encode_execution(executions.show(ctx, [started])[0]))


@section.operation("listExecutions", "GET", "/api/1/executions", right="execution.read")
def list_executions(ctx: Context, request: Request) -> Reply:
    """List executions, running ones first, then the newest end; filters `project`, `job`, `state`, `max`, `offset`."""
    query = ExecutionQuery(
        project=projects.get(ctx, request.first("project")).name if request.first("project") else "",
        job_id=jobs.get(ctx, request.first("job")).id if request.first("job") else None,
        state=_state(request.first("state")),
        most=body.integer(request, "max", 20, low=1, high=_MOST),
        offset=body.integer(request, "offset", 0, low=0, high=2**31),
    )
    return Reply([encode_execution(one) for one in executions.find(ctx, query)])


@section.operation("getExecution", "GET", "/api/1/executions/{id}", right="execution.read")
def get_execution(ctx: Context, request: Request) -> Reply:
    """Show one execution with the state of each of its nodes."""
    shown = executions.readable(ctx, request.params["id"])
    states = node_states.of_nodes(shown.execution.nodes or (), executions.steps(ctx, request.params["id"]))
    return Reply(encode_execution(shown) | {"nodeStates": [encode_node_state(one) for one in states]})


@section.operation("abortExecution", "POST", "/api/1/executions/{id}/abort", right="execution.write")
def abort_execution(ctx: Context, request: Request) -> Reply:
    """Ask an execution to end, which it does within ten seconds; `abort` is pending, aborted or failed."""
    answer = executions.abort(ctx, request.params["id"])
    return Reply({"abort": answer.abort, "state": answer.state, "reason": answer.reason})


@section.operation("retryFailed", "POST", "/api/1/executions/{id}/retry-failed", right="execution.write", status=201)
def retry_failed(ctx: Context, request: Request) -> Reply:
    """Start the same again on the nodes on which it did not succeed; takes the right that the first start took."""
    executions.readable(ctx, request.params["id"])
    started = executions.retry_failed(ctx, request.params["id"])
    return Reply(encode_execution(executions.show(ctx, [started])[0]))


@section.operation("listNotifications", "GET", "/api/1/executions/{id}/notifications", right="execution.read")
def list_notifications(ctx: Context, request: Request) -> Reply:
    """List who was to hear of the execution's end, and how each delivery stands."""
    shown = executions.readable(ctx, request.params["id"])
    return Reply([_encode_delivery(one) for one in executions.deliveries(ctx, shown.execution.id)])


def _state(text: str) -> State | None:
    if not text:
        return None
    try:
        return State(text)
    except ValueError:
        raise Invalid(f"'state' is one of {', '.join(State)}, not '{text}'.") from None


def encode_execution(shown: ShownExecution) -> dict[str, Any]:
    """An execution as this dialect shows it."""
    one, job = shown.execution, shown.job
    return {
        "id": one.id,
        "project": one.project,
        "kind": one.kind,
        "job": {"id": job.id, "uuid": job.uuid, "name": job.name, "group": job.group} if job is not None else None,
        "description": one.description,
        "argstring": one.argstring,
        "loglevel": one.loglevel,
        "user": one.user,
        "state": one.state,
        "started": one.started,
        "ended": one.ended,
        "abortRequested": one.abort_at,
        "abortedBy": one.aborted_by,
        "nodes": list(one.nodes) if one.nodes is not None else None,
        "nodesSucceeded": one.nodes_succeeded,
        "nodesFailed": one.nodes_failed,
    }


def encode_node_state(one: NodeState) -> dict[str, Any]:
    """How a node of an execution stands."""
    return {
        "node": one.node,
        "state": one.state,
        "step": one.step,
        "exitStatus": one.exit_status,
        "reason": one.reason,
    }


def _encode_delivery(one: Delivery) -> dict[str, Any]:
    return {
        "trigger": one.trigger,
        "kind": one.kind,
        "target": one.target,
        "state": one.state,
        "attempts": one.attempts,
        "message": one.message,
        "updated": one.updated,
    }
