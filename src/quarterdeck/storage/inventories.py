# SPDX-License-Identifier: Apache-2.0
"""Inventories as they came: one per node and day on which the machine was another than before."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_inventories = tables.inventories
_nodes = tables.nodes


class InventoryTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def digest(self, node: str) -> str:
        """Of the last inventory's content; empty when there was none."""
        query = sqlalchemy.select(_nodes.c.inventory_digest).where(_nodes.c.id == node)
        return self._store.run(query).scalar() or ""

    def keep(self, node: str, digest: str, document: bytes) -> None:
        """Keep an inventory whose content is new; a second one of the same day takes the place of the first."""
        columns = {"digest": digest, "received_at": self._store.now, "document": document}
        day = self._store.now.astimezone(UTC).strftime("%Y-%m-%d")
        statement = insert(_inventories).values(node_id=node, day=day, **columns)
        self._store.run(statement.on_conflict_do_update(index_elements=["node_id", "day"], set_=columns))
        update = sqlalchemy.update(_nodes).where(_nodes.c.id == node)
        self._store.run(update.values(inventory_digest=digest))

    def days(self, node: str) -> list[str]:
        """The days on which an inventory was kept, newest first."""
        query = sqlalchemy.select(_inventories.c.day).where(_inventories.c.node_id == node)
        return [row.day for row in self._store.rows(query.order_by(_inventories.c.day.desc()))]

    def document(self, node: str, day: str) -> bytes | None:
        """The inventory of a day, as it came."""
        query = sqlalchemy.select(_inventories.c.document).where(
            _inventories.c.node_id == node, _inventories.c.day == day
        )
        found = self._store.run(query).scalar()
        return bytes(found) if found is not None else None
