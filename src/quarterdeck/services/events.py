# SPDX-License-Identifier: Apache-2.0
"""The event log: what changed, read from the history that storage keeps by itself."""

from __future__ import annotations

from quarterdeck.core.errors import NotFound
from quarterdeck.services.context import Context
from quarterdeck.storage.history import Change


def latest(ctx: Context, *, limit: int, before_id: int | None = None) -> list[Change]:
    """The newest changes of everything, newest first, optionally only those before an event's id."""
    return ctx.store.history.latest(limit=limit, before_id=before_id)


def of_object(ctx: Context, kind: str, object_id: str) -> list[Change]:
    """All changes of one object, oldest first. Raises NotFound when it never changed."""
    found = ctx.store.history.of(kind, object_id)
    if not found:
        raise NotFound(f"There is no event about {kind} '{object_id}'.")
    return found
