# SPDX-License-Identifier: Apache-2.0
"""The part of the agent protocol that agents on demand speak: they wait to be told to run, and send what they print.

What is answered here is held on the event loop; the thread of a request only lets the agent in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.native import body, envelope, parts, signed_requests
from quarterdeck.formats import agent
from quarterdeck.relaying.waiting_agents import Run, WaitingAgents
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Agents on demand")

_HELD = (envelope.CONTENT_TYPE, ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
_MOST_PIECES = 2**31


@section.operation("awaitRun", "POST", "/agent/1/wake", right=None, max_body=1024)
def await_run(ctx: Context, request: Request) -> Answer:
    """Wait to be told to run; answered when there is something to do, or after a while."""
    return held(parts.of(request).waiting_agents, _admitted(ctx, request))


@section.operation(
    "deliverOutput", "POST", "/agent/1/remote-runs/{id}/output", right=None, max_body=agent.MAX_PIECE_BYTES
)
def deliver_output(ctx: Context, request: Request) -> Answer:
    """Deliver piece `number` of what a run prints, the last with its exit `status`; answered when there is room."""
    return delivered(parts.of(request).waiting_agents, _admitted(ctx, request), request)


def _admitted(ctx: Context, request: Request) -> NodeId:
    signed = signed_requests.read(request)
    parts.of(request).gate.admit_reporter(ctx, signed)
    return signed.node


# -- the server's answers, and those of relays --------------------------------------------


def held(agents: WaitingAgents | None, node: NodeId) -> Answer:
    """Hold the request of a node that waits. Raises NotFound where nobody wakes agents."""
    return Answer(headers=_HELD, body=_there(agents).hold(node))


def delivered(agents: WaitingAgents | None, node: NodeId, request: Request) -> Answer:
    """Take a piece of output of a node's run. Raises NotFound, Conflict, Invalid."""
    there = _there(agents)
    run = there.belongs(node, request.params["id"])
    number = body.integer(request, "number", 0, low=0, high=_MOST_PIECES)
    status = body.integer(request, "status", 0, low=-255, high=255) if "status" in request.query else None
    there.check(run, number)
    return Answer(headers=_HELD, body=_put(there, run, number, request.body, status))


async def _put(agents: WaitingAgents, run: Run, number: int, text: bytes, status: int | None) -> AsyncIterator[bytes]:
    taken: agent.Taken = {"status": await agents.put(run, number, text, status)}
    yield agent.canonical(taken)


def _there(agents: WaitingAgents | None) -> WaitingAgents:
    if agents is None:
        raise NotFound("Nobody asks agents of this server to run.")
    return agents
