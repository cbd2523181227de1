# SPDX-License-Identifier: Apache-2.0
"""What executions write: page by page, and live until the end.

Lines of output are not always text: what is no UTF-8 is shown with U+FFFD in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.logs import LogEntry
from quarterdeck.core.node_states import NodeState
from quarterdeck.dialects.native import body, parts
from quarterdeck.dialects.native.executions import encode_execution, encode_node_state
from quarterdeck.services import execution_output, executions
from quarterdeck.services.context import Context
from quarterdeck.services.executions import ShownExecution
from quarterdeck.services.following import End, Event, Output, State
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Output of executions")

_MOST_BYTES = 4 * 1024 * 1024
_MOST_LINES = 1_000_000
_LINES_OF_JSON = ("Content-Type", "application/x-ndjson; charset=utf-8")


@section.operation("readOutput", "GET", "/api/1/executions/{id}/output", right="execution.read")
def read_output(ctx: Context, request: Request) -> Reply:
    """Read output from `offset` on, or the last `lines`; go on at the answer's `offset` until it is `completed`."""
    execution = executions.readable(ctx, request.params["id"]).execution
    most = body.integer(request, "bytes", execution_output.PAGE_BYTES, low=1, high=_MOST_BYTES)
    lines = body.integer(request, "lines", 0, low=1, high=_MOST_LINES)
    offset = body.integer(request, "offset", 0, low=0, high=2**62)
    if lines:
        offset = execution_output.last_offset(ctx, execution.id, lines)
    page = execution_output.read(ctx, execution.id, offset=offset, most_bytes=most)
    size = execution_output.extent(ctx, execution.id).size
    return Reply(
        {
            "id": execution.id,
            "state": execution.state,
            "entries": [_encode_entry(one) for one in page.entries],
            "offset": page.next_offset,
            "size": size,
            "completed": execution.ended is not None and page.next_offset >= size,
        }
    )


@section.operation("followExecution", "GET", "/api/1/executions/{id}/follow", right="execution.read")
def follow_execution(ctx: Context, request: Request) -> Answer:
    """Follow an execution from `offset` on: a JSON object a line, its `type` output, node, state, and at last end."""
    shown = executions.readable(ctx, request.params["id"])
    follow = parts.of(request).follow
    if follow is None:
        raise Unavailable("This process follows no executions.")
    offset = body.integer(request, "offset", 0, low=0, high=2**62)
    return Answer(
        headers=(_LINES_OF_JSON, ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")),
        body=_written(follow(ctx.account, shown.execution.id, offset), shown),
    )


async def _written(events: AsyncIterator[Event], shown: ShownExecution) -> AsyncIterator[bytes]:
    async for event in events:
        yield msgspec.json.encode(_encode_event(event, shown)) + b"\n"


def _encode_event(event: Event, shown: ShownExecution) -> dict[str, Any]:
    match event:
        case Output(entry, offset):
            return {"type": "output", **_encode_entry(entry), "offset": offset}
        case NodeState():
            return {"type": "node", **encode_node_state(event)}
        case State(execution):
            kind = "state"
        case End(execution):
            kind = "end"
    return {"type": kind, **encode_execution(ShownExecution(execution=execution, job=shown.job))}


def _encode_entry(one: LogEntry) -> dict[str, Any]:
    return {
        "time": one.time,
        "level": one.level,
        "node": one.node,
        "step": one.step,
        "user": one.user,
        "text": one.text.decode(errors="replace"),
    }
