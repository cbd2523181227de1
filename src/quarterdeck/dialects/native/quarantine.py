# SPDX-License-Identifier: Apache-2.0
"""Reports and inventories that could not be taken: what they are and why, another try, forgetting them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from quarterdeck.core.errors import Unavailable
from quarterdeck.dialects.native import parts
from quarterdeck.relaying.quarantine import Entry, Quarantine
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Quarantine")


@section.operation("listQuarantine", "GET", "/api/1/quarantine", right="system.read")
def list_quarantine(ctx: Context, request: Request) -> Reply:
    """List what was set aside, the latest first."""
    return Reply([_encode(one) for one in _quarantine(request).entries()])


@section.operation("showQuarantined", "GET", "/api/1/quarantine/{id}", right="system.write")
def show_quarantined(ctx: Context, request: Request) -> Reply:
    """Show one thing that was set aside, with the beginning of its content."""
    known = _quarantine(request)
    entry = known.get(request.params["id"])
    return Reply(_encode(entry) | {"content": known.head(entry)})


@section.operation("retryQuarantined", "POST", "/api/1/quarantine/{id}/retry", right="system.write")
def retry_quarantined(ctx: Context, request: Request) -> Reply:
    """Try to take it again."""
    return Reply(_encode(_quarantine(request).retry(request.params["id"])))


@section.operation("removeQuarantined", "DELETE", "/api/1/quarantine/{id}", right="system.write")
def remove_quarantined(ctx: Context, request: Request) -> Reply:
    """Forget it."""
    return Reply(_encode(_quarantine(request).remove(request.params["id"])))


def _quarantine(request: Request) -> Quarantine:
    known = parts.of(request).quarantine
    if known is None:
        raise Unavailable("This server sets nothing aside.")
    return known


def _encode(one: Entry) -> dict[str, Any]:
    return {
        "id": one.id,
        "place": one.place,
        # Names of files need not be text.
        "name": one.name.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace"),
        "size": one.size,
        "since": datetime.fromtimestamp(one.at, UTC),
        "kind": one.kind,
        "reason": one.reason,
    }
