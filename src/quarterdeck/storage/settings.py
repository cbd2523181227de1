# SPDX-License-Identifier: Apache-2.0
"""Settings that administrators change while the server runs: one row per key that was ever set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.core.settings import Settings
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class SettingsTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self) -> Settings:
        """All settings; those never set have their defaults."""
        rows = self._store.rows(sqlalchemy.select(tables.settings))
        return msgspec.convert({row.key: row.value for row in rows}, Settings)

    def set(self, key: str, value: Any) -> None:
        """Keep one setting and its history."""
        plain = msgspec.to_builtins(value)
        statement = insert(tables.settings).values(key=key, value=plain)
        self._store.run(statement.on_conflict_do_update(index_elements=["key"], set_={"value": plain}))
        self._store.history.append("setting", key, "modified", {"value": plain})
