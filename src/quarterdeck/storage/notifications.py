# SPDX-License-Identifier: Apache-2.0
"""Notifications: rows <-> core objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.notifications import Delivery, NotificationState
from quarterdeck.storage.runbook_tables import notifications

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class NotificationTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, execution_id: int, *, trigger: str, kind: str, target: str) -> int:
        """Keep one that waits for its delivery; returns its id."""
        statement = sqlalchemy.insert(notifications).values(
            execution_id=execution_id,
            trigger=trigger,
            kind=kind,
            target=target,
            state="waiting",
            attempts=0,
            message="",
            updated_at=self._store.now,
        )
        return int(self._store.run(statement.returning(notifications.c.id)).scalar_one())

    def find(self, delivery_id: int) -> Delivery | None:
        """One delivery; None when its execution is gone."""
        row = self._store.run(sqlalchemy.select(notifications).where(notifications.c.id == delivery_id)).first()
        return _from_row(row) if row is not None else None

    def of(self, execution_id: int) -> list[Delivery]:
        """The deliveries of an execution, in the order in which they were asked for."""
        query = sqlalchemy.select(notifications).where(notifications.c.execution_id == execution_id)
        return [_from_row(row) for row in self._store.rows(query.order_by(notifications.c.id))]

    def attempted(self, delivery_id: int, state: NotificationState, message: str) -> None:
        """Note what came of one more attempt."""
        self._store.run(
            sqlalchemy.update(notifications)
            .where(notifications.c.id == delivery_id)
            .values(state=state, message=message, attempts=notifications.c.attempts + 1, updated_at=self._store.now)
        )


def _from_row(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        execution_id=row.execution_id,
        trigger=row.trigger,
        kind=row.kind,
        target=row.target,
        state=row.state,
        attempts=row.attempts,
        message=row.message,
        updated=row.updated_at,
    )
