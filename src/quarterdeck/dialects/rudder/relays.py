# SPDX-License-Identifier: Apache-2.0
"""Scale-out relay chapter: nodes become relays, and plain nodes again."""

from __future__ import annotations

from quarterdeck.services import relays
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Scale Out Relay")


@section.operation("promoteToRelay", "POST", "/scaleoutrelay/promote/{nodeId}", right="node.write", since=10)
def promote_to_relay(ctx: Context, request: Request) -> Reply:
    """Make an accepted node a relay."""
    return Reply(relays.promote(ctx, request.params["nodeId"]))


@section.operation("demoteToNode", "POST", "/scaleoutrelay/demote/{nodeId}", right="node.write", since=14)
def demote_to_node(ctx: Context, request: Request) -> Reply:
    """Make a relay a plain node; refused as long as it serves nodes."""
    return Reply(relays.demote(ctx, request.params["nodeId"]))
