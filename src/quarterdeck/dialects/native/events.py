# SPDX-License-Identifier: Apache-2.0
"""The event log: every change of every versioned object, with before and after, who, why, in which request."""

from __future__ import annotations

from typing import Any

from quarterdeck.dialects.native import body
from quarterdeck.services import events
from quarterdeck.services.context import Context
from quarterdeck.storage.history import Change
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Event log")

_MOST = 1000


@section.operation("listEvents", "GET", "/api/1/events", right="event.read")
def list_events(ctx: Context, request: Request) -> Reply:
    """List the newest events; `limit` at most, those with an id below `before`, `next` leads to older ones."""
    limit = body.integer(request, "limit", 100, low=1, high=_MOST)
    before = body.integer(request, "before", 0, low=1, high=2**62)
    found = events.latest(ctx, limit=limit, before_id=before or None)
    more = found[-1].id if len(found) == limit else None
    return Reply({"events": [_encode(change) for change in found], "next": more})


@section.operation("listObjectEvents", "GET", "/api/1/events/{kind}/{id}", right="event.read")
def list_object_events(ctx: Context, request: Request) -> Reply:
    """List all events of one object, oldest first."""
    found = events.of_object(ctx, request.params["kind"], request.params["id"])
    return Reply({"events": [_encode(change) for change in found], "next": None})


def _encode(change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "at": change.at,
        "actor": change.actor,
        "reason": change.reason,
        "requestId": change.request_id,
        "kind": change.kind,
        "objectId": change.object_id,
        "change": change.change,
        "before": change.before,
        "after": change.after,
    }
