# SPDX-License-Identifier: Apache-2.0
"""What agents that take commands are answered, by the server and by relays alike; held on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import STREAMS, End, Ending, Output
from quarterdeck.dialects.native import body, envelope
from quarterdeck.formats import agent
from quarterdeck.relaying.waiting_commands import Command, WaitingCommands
from quarterdeck.web.operation import Answer, Request

_HELD = (envelope.CONTENT_TYPE, ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
_MOST_PIECES = 2**31
_MOST_ROOM = 1024
_LISTENER_LENGTH = 64
_ENDINGS: dict[str, Ending] = {"ended": "ended", "refused": "refused", "timeout": "timeout", "aborted": "aborted"}


def held(agents: WaitingCommands | None, node: NodeId, request: Request) -> Answer:
    """Hold the request of a node that takes commands. Raises NotFound where nobody gives any, Invalid."""
    listener = request.first("listener")
    if not 0 < len(listener) <= _LISTENER_LENGTH:
        raise Invalid("'listener' tells the processes of a node apart; it is missing, or too long.")
    room = body.integer(request, "room", 0, low=0, high=_MOST_ROOM)
    return Answer(headers=_HELD, body=_there(agents).hold(node, listener, room))


def delivered(agents: WaitingCommands | None, node: NodeId, request: Request) -> Answer:
    """Take a piece of what a command of a node prints, or its end. Raises NotFound, Conflict, Invalid."""
    there = _there(agents)
    command = there.belongs(node, request.params["id"])
    number = body.integer(request, "number", 0, low=0, high=_MOST_PIECES)
    end = _end(request)
    output = None if end is not None else _output(request)
    there.check(command, number)
    return Answer(headers=_HELD, body=_put(there, command, number, output, end))


def _output(request: Request) -> Output | None:
    if not request.body:
        return None
    for stream in STREAMS:
        if request.first("stream") == stream:
            return Output(stream, request.body)
    raise Invalid("'stream' is stdout or stderr.")


def _end(request: Request) -> End | None:
    ending = request.first("ending")
    if not ending:
        return None
    if ending not in _ENDINGS:
        raise Invalid(f"'ending' is one of {', '.join(agent.COMMAND_ENDINGS)}.")
    status = body.integer(request, "status", 0, low=0, high=255)
    reason = request.body.decode(errors="replace")
    return End(_ENDINGS[ending], None if ending == "refused" else status, reason)


async def _put(
    agents: WaitingCommands, command: Command, number: int, output: Output | None, end: End | None
) -> AsyncIterator[bytes]:
    verdict = await agents.put(command, number, output, end)
    taken: agent.CommandTaken = {"status": "received" if verdict.received else "again", "stop": verdict.stop}
    yield agent.canonical(taken)


def _there(agents: WaitingCommands | None) -> WaitingCommands:
    if agents is None:
        raise NotFound("Nobody gives commands to agents of this server.")
    return agents
