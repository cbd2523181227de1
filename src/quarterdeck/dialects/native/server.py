# SPDX-License-Identifier: Apache-2.0
"""What the server says about itself: version, since when, pins; and how far the generation of policies is."""

from __future__ import annotations

from typing import Any

import quarterdeck
from quarterdeck.dialects.native import body, parts
from quarterdeck.services import policies
from quarterdeck.services.context import Context
from quarterdeck.storage.generations import Generation
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Server")


@section.operation("describeServer", "GET", "/api/1/server", right="system.read")
def describe_server(ctx: Context, request: Request) -> Reply:
    """Say which version runs, since when, and the pins an agent needs to trust it."""
    known = parts.of(request)
    return Reply(
        {
            "version": quarterdeck.__version__,
            "startedAt": known.started_at,
            "uptimeSeconds": int((ctx.now - known.started_at).total_seconds()),
            "agentDigest": known.agent_file_digest,
            "policyKey": known.signing_key.public_pem,
            **known.facts,
        }
    )


@section.operation("listGenerations", "GET", "/api/1/generation", right="system.read")
def list_generations(ctx: Context, request: Request) -> Reply:
    """List the newest generations of policies and the nodes that could not be served."""
    limit = body.integer(request, "limit", 10, low=1, high=100)
    found = policies.generations(ctx, limit)
    errors = policies.generation_errors(ctx)
    return Reply(
        {
            "running": any(one.state in ("asked", "running") for one in found),
            "generations": [_encode(one) for one in found],
            "errors": [{"node": node, "message": message} for node, message in sorted(errors.items())],
        }
    )


def _encode(generation: Generation) -> dict[str, Any]:
    return {
        "id": generation.id,
        "state": generation.state,
        "manual": generation.manual,
        "requestedAt": generation.requested_at,
        "startedAt": generation.started_at,
        "endedAt": generation.ended_at,
        "nodesTotal": generation.nodes_total,
        "nodesChanged": generation.nodes_changed,
        "message": generation.message,
    }
