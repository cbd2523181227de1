# SPDX-License-Identifier: Apache-2.0
"""Who is in which group, changed in bulk: only the difference is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import ARRAY, insert

from quarterdeck.storage.tables import group_members as _members

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class MembershipTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, group: str, nodes: Iterable[str], *, only: Sequence[str] | None = None) -> bool:
        """Make the group's members exactly these, among all nodes or among `only`; tells whether anything changed."""
        here = _members.c.group_id == group
        if only is not None:
            here &= _members.c.node_id.in_(list(only))
        wanted = set(nodes)
        present = {row.node_id for row in self._store.rows(sqlalchemy.select(_members.c.node_id).where(here))}
        gone, new = sorted(present - wanted), sorted(wanted - present)
        if gone:
            left = (_members.c.group_id == group) & _members.c.node_id.in_(gone)
            self._store.run(sqlalchemy.delete(_members).where(left))
        if new:
            joining = sqlalchemy.func.unnest(sqlalchemy.cast(new, ARRAY(sqlalchemy.Text)))
            rows = sqlalchemy.select(sqlalchemy.literal(group), joining)
            statement = insert(_members).from_select(["group_id", "node_id"], rows)
            self._store.run(statement.on_conflict_do_nothing())
        return bool(gone or new)
