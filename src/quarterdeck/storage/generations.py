# SPDX-License-Identifier: Apache-2.0
"""Generations: what was asked for, what is running, what came of it. One row is one run, or one that waits.

    asked ──claim──> running ──end──> done | failed

Requests join the row that waits. Only the holder of the lock claims, so a row found running belongs to a
worker that died: it is claimed again. After a failed generation the next one computes everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.storage.tables import generations as _table

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

#: Any constant: the advisory lock that a generation holds.
_LOCK = 0x5175_6173
#: How many ended generations are kept to look at.
KEPT = 100

#: Kind of thing -> ids: what changed. None: everything may have.
Concerns = Mapping[str, Sequence[str]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One row. `nodes_total` and `nodes_changed` are None until they are known."""

    id: int
    state: str
    manual: bool
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    concerns: Concerns
    afresh: bool
    nodes_total: int | None
    nodes_changed: int | None
    message: str


class GenerationTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(self, concerns: Concerns, *, manual: bool = False, afresh: bool = False) -> int:
        """Note what changed, on the row that waits if there is one; returns the row's id."""
        waiting = sqlalchemy.select(_table).where(_table.c.state == "asked").limit(1)
        # A row that somebody else is about to change or to claim is left to them.
        row = self._store.run(waiting.with_for_update(skip_locked=True)).first()
        if row is None:
            values = {"concerns": _json(concerns), "manual": manual, "afresh": afresh}
            statement = sqlalchemy.insert(_table).values(requested_at=self._store.now, state="asked", **values)
            return int(self._store.run(statement.returning(_table.c.id)).scalar_one())
        known = _generation(row)
        self._update(
            row.id,
            concerns=_json(united(known.concerns, concerns)),
            manual=known.manual or manual,
            afresh=known.afresh or afresh,
        )
        return int(row.id)

    def lock(self) -> None:
        """Wait until no other generation runs; holds until the end of this unit of work, whatever ends it."""
        self._store.run(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))

    def claim(self) -> Generation | None:
        """Make one running generation of everything asked for, or None. Only for the holder of the lock."""
        open_rows = sqlalchemy.select(_table).where(_table.c.state.in_(("asked", "running"))).order_by(_table.c.id)
        rows = [_generation(row) for row in self._store.rows(open_rows.with_for_update())]
        if not rows:
            return None
        concerns: Concerns = {}
        for row in rows:
            concerns = united(concerns, row.concerns)
        first = rows[0]
        self._update(
            first.id,
            state="running",
            started_at=self._store.now,
            concerns=_json(None if self._last_failed() else concerns),
            manual=any(row.manual for row in rows),
            afresh=any(row.afresh for row in rows),
        )
        self._store.run(sqlalchemy.delete(_table).where(_table.c.id.in_([row.id for row in rows[1:]])))
        return self.get(first.id)

    def progress(self, generation: int, *, nodes_total: int) -> None:
        """Note how many nodes are being computed."""
        self._update(generation, nodes_total=nodes_total)

    def end(self, generation: int, state: str, message: str = "", **numbers: int) -> None:
        """Note how it ended, `done` or `failed`, with `nodes_total`, `nodes_changed`; and forget those long past."""
        self._update(generation, state=state, ended_at=datetime.now(UTC), message=message, **numbers)
        old = sqlalchemy.select(_table.c.id).where(_table.c.ended_at.is_not(None))
        old = old.order_by(_table.c.id.desc()).offset(KEPT)
        self._store.run(sqlalchemy.delete(_table).where(_table.c.id.in_(old)))

    def get(self, generation: int) -> Generation:
        """One row."""
        return _generation(self._store.run(sqlalchemy.select(_table).where(_table.c.id == generation)).one())

    def latest(self, limit: int = 10) -> list[Generation]:
        """The newest generations, newest first, those that wait or run included."""
        query = sqlalchemy.select(_table).order_by(_table.c.id.desc()).limit(limit)
        return [_generation(row) for row in self._store.rows(query)]

    def _last_failed(self) -> bool:
        ended = sqlalchemy.select(_table.c.state).where(_table.c.ended_at.is_not(None))
        return self._store.run(ended.order_by(_table.c.ended_at.desc()).limit(1)).scalar() == "failed"

    def _update(self, generation: int, **values: Any) -> None:
        self._store.run(sqlalchemy.update(_table).where(_table.c.id == generation).values(**values))


def united(first: Concerns, second: Concerns) -> Concerns:
    """What either concerns."""
    if first is None or second is None:
        return None
    kinds = sorted(first.keys() | second.keys())
    return {kind: sorted({*first.get(kind, ()), *second.get(kind, ())}) for kind in kinds}


def _json(concerns: Concerns) -> Any:
    return sqlalchemy.null() if concerns is None else {kind: list(ids) for kind, ids in concerns.items()}


def _generation(row: Row[Any]) -> Generation:
    return Generation(**{name: getattr(row, name) for name in Generation.__slots__})
