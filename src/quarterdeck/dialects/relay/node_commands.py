# SPDX-License-Identifier: Apache-2.0
"""Commands chapter, beside the published reference: the server has nodes carry out what jobs say, over their agents.

Only the server above may ask, by its signature; on the root, its own workers. What they order they have signed for the
node besides, so that nobody on the way can order anything.
"""

from __future__ import annotations

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.relay import version
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.formats import agent
from quarterdeck.relaying.node_commands import NodeCommands
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Commands", {"callers": Callers.SERVER, "max_body": 64 * 1024})

#: Proxies that wait for more before they pass a line on would spoil it.
_LINES = (
    ("Content-Type", "application/x-ndjson; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),
)


@section.operation(
    "orderCommand",
    "POST",
    "/commands/{nodeId}/{orderId}",
    right=None,
    since=1,
    documented=False,
    max_body=agent.MAX_ORDER_BYTES,
)
def order_command(visit: Visit, request: Request) -> Answer:
    """Have a node carry out an order; what becomes of it, line by line. It is stopped when nobody reads any more."""
    node, order = _named(request)
    return Answer(headers=_LINES, body=_commands(visit).order(node, order, request.body))


@section.operation("stopCommand", "DELETE", "/commands/{nodeId}/{orderId}", right=None, since=1, documented=False)
def stop_command(visit: Visit, request: Request) -> Answer:
    """Have a command end; how it did comes where its output does."""
    return Answer(headers=_LINES, body=_commands(visit).stop(*_named(request)))


def _named(request: Request) -> tuple[NodeId, str]:
    return NodeId(version.lossily(request.params["nodeId"])), version.lossily(request.params["orderId"])


def _commands(visit: Visit) -> NodeCommands:
    if visit.parts.commands is None:
        raise NotFound("Nodes carry out no commands over their agents here.")
    return visit.parts.commands
