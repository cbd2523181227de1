# SPDX-License-Identifier: Apache-2.0
"""Workers that run executions: who there is, and whether one still lives.

A worker lives as long as a connection of its holds the advisory lock of its id (`storage/notices.py`), which
PostgreSQL frees at once when the worker is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy

from quarterdeck.storage.runbook_tables import executions, workers

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

#: First half of the advisory lock of a worker; the second is its id.
LOCK_CLASS = 0x5144


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker and where it runs."""

    id: int
    host: str
    pid: int
    started_at: datetime
    draining: bool


class WorkerTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, host: str, pid: int) -> int:
        """Register a new worker; returns its id."""
        statement = sqlalchemy.insert(workers).values(host=host, pid=pid, started_at=self._store.now, draining=False)
        return int(self._store.run(statement.returning(workers.c.id)).scalar_one())

    def all(self) -> list[WorkerRecord]:
        """Every worker that is not forgotten, by id."""
        rows = self._store.rows(sqlalchemy.select(workers).order_by(workers.c.id))
        return [_from_row(row) for row in rows]

    def find(self, worker: int) -> WorkerRecord | None:
        """One worker."""
        row = self._store.run(sqlalchemy.select(workers).where(workers.c.id == worker)).first()
        return _from_row(row) if row is not None else None

    def add_again(self, worker: int, host: str, pid: int) -> None:
        """Register a worker that was forgotten while it lived; nothing when it is there."""
        statement = sqlalchemy.text(
            "INSERT INTO workers (id, host, pid, started_at, draining) OVERRIDING SYSTEM VALUE "
            "VALUES (:id, :host, :pid, :now, false) ON CONFLICT DO NOTHING"
        )
        self._store.run(statement, {"id": worker, "host": host, "pid": pid, "now": self._store.now})

    def is_gone(self, worker: int) -> bool:
        """Whether nobody holds its lock. Until the end of this unit of work nobody can come back as it."""
        query = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(LOCK_CLASS, worker))
        return bool(self._store.run(query).scalar())

    def drain(self, worker: int, *, draining: bool = True) -> None:
        """Let a worker begin nothing more, or begin again."""
        self._store.run(sqlalchemy.update(workers).where(workers.c.id == worker).values(draining=draining))

    def forget(self, before: datetime) -> int:
        """Remove those that started before this time, are gone, and have no execution; returns how many went."""
        busy = sqlalchemy.select(executions.c.owner).where(executions.c.ended_at.is_(None))
        old = sqlalchemy.select(workers.c.id).where(workers.c.started_at < before)
        idle = old.where(workers.c.id.not_in(busy.where(executions.c.owner.is_not(None))))
        gone = [row.id for row in self._store.rows(idle) if self.is_gone(row.id)]
        return self._store.run(sqlalchemy.delete(workers).where(workers.c.id.in_(gone))).rowcount


def _from_row(row: sqlalchemy.Row[tuple[object, ...]]) -> WorkerRecord:
    return WorkerRecord(id=row.id, host=row.host, pid=row.pid, started_at=row.started_at, draining=row.draining)
