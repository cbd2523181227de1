# SPDX-License-Identifier: Apache-2.0
"""What agents on demand are answered, by the server and by relays alike; held on the event loop, not on a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.native import body, envelope
from quarterdeck.formats import agent
from quarterdeck.relaying.waiting_agents import Run, WaitingAgents
from quarterdeck.web.operation import Answer, Request

_HELD = (envelope.CONTENT_TYPE, ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
_MOST_PIECES = 2**31


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
