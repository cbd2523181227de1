# SPDX-License-Identifier: Apache-2.0
"""The append-only history of every versioned object: what it became, who did it, why, in which request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy

from quarterdeck.storage.tables import history

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row of the history. `before` is None for a creation, `after` for a deletion."""

    id: int
    at: datetime
    actor: str
    reason: str
    request_id: str
    kind: str
    object_id: str
    change: str
    before: Any
    after: Any


class HistoryTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, kind: str, object_id: str, change: str, after: Mapping[str, Any] | None) -> None:
        """Add one change, with the provenance of this unit of work."""
        by = self._store.by
        self._store.run(
            sqlalchemy.insert(history).values(
                at=self._store.now,
                actor=by.actor,
                reason=by.reason,
                request_id=by.request_id,
                kind=kind,
                object_id=object_id,
                change=change,
                after=dict(after) if after is not None else sqlalchemy.null(),
            )
        )

    def of(self, kind: str, object_id: str) -> list[Change]:
        """All changes of one object, oldest first."""
        query = sqlalchemy.select(history).where(history.c.kind == kind, history.c.object_id == object_id)
        before: Any = None
        changes = []
        for row in self._store.rows(query.order_by(history.c.id)):
            changes.append(_change(row, before))
            before = row.after
        return changes

    def latest(self, *, limit: int, before_id: int | None = None) -> list[Change]:
        """The newest changes of everything, newest first, optionally those before a row's id."""
        earlier = history.alias()
        previous = (
            sqlalchemy.select(earlier.c.after)
            .where(earlier.c.kind == history.c.kind, earlier.c.object_id == history.c.object_id)
            .where(earlier.c.id < history.c.id)
            .order_by(earlier.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = sqlalchemy.select(history, previous.label("before_state")).order_by(history.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(history.c.id < before_id)
        return [_change(row, row.before_state) for row in self._store.rows(query)]


def _change(row: sqlalchemy.Row[Any], before: Any) -> Change:
    return Change(
        id=row.id,
        at=row.at,
        actor=row.actor,
        reason=row.reason,
        request_id=row.request_id,
        kind=row.kind,
        object_id=row.object_id,
        change=row.change,
        before=before,
        after=row.after,
    )
