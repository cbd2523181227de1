# SPDX-License-Identifier: Apache-2.0
"""Relays for people: which there are, who is behind them, when each was heard of. What relays ask is `relays.py`."""

from __future__ import annotations

from typing import Any

from quarterdeck.dialects.native import parts
from quarterdeck.services import relay_views
from quarterdeck.services.context import Context
from quarterdeck.services.relay_views import ShownRelay
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Relays for people")


@section.operation("listRelays", "GET", "/api/1/relays", right="node.read")
def list_relays(ctx: Context, request: Request) -> Reply:
    """List the relays at any depth, with how many nodes each has, the last contact and what waits there."""
    return Reply([_encode(one) for one in relay_views.listed(ctx, parts.of(request).addresses)])


@section.operation("showRelay", "GET", "/api/1/relays/{id}", right="node.read")
def show_relay(ctx: Context, request: Request) -> Reply:
    """Show one relay with the nodes that it serves."""
    relay, served = relay_views.get(ctx, parts.of(request).addresses, request.params["id"])
    nodes = [{"id": node.id, "hostname": node.hostname, "relay": node.relay} for node in served]
    return Reply(_encode(relay) | {"served": nodes})


def _encode(one: ShownRelay) -> dict[str, Any]:
    """What is not known is null."""
    known = one.state
    return {
        "id": one.id,
        "hostname": one.hostname,
        "policyServerId": one.policy_server,
        "nodes": one.nodes,
        "nodesBelow": one.below,
        "address": one.address or None,
        "pin": one.pin or None,
        "lastContact": one.heard_at,
        # A relay that says nothing of itself is one that cannot yet.
        "version": (known.version or None) if known is not None else None,
        "waitingFiles": known.waiting if known is not None and known.version else None,
        "waitingSeconds": known.oldest if known is not None and known.version else None,
    }
