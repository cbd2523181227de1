# SPDX-License-Identifier: Apache-2.0
"""Secrets: rows <-> core objects. Values are sealed in the table, and a keyed digest in the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.secrets import Secret
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class SecretTable(VersionedTable[Secret]):
    table = tables.secrets
    kind = "secret"
    key = "name"
    not_found = "There is no secret '{id}'."

    def descriptions(self) -> dict[str, str]:
        """Name -> description of all, sorted by name; no value is opened."""
        query = sqlalchemy.select(self.table.c.name, self.table.c.description).order_by(self.table.c.name)
        return {row.name: row.description for row in self._store.rows(query)}

    def to_row(self, thing: Secret) -> dict[str, Any]:
        sealed = self._store.sealer.seal(thing.value.encode())
        return {"name": thing.name, "description": thing.description, "value": sealed}

    def from_row(self, row: Row[Any]) -> Secret:
        value = self._store.sealer.open(row.value).decode()
        return Secret(name=row.name, description=row.description, value=value)

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "value": self._store.sealer.digest(self._store.sealer.open(row["value"]))}

    def unchanged(self, before: Mapping[Any, Any], row: Mapping[str, Any]) -> bool:
        """Sealed twice, a value looks different each time."""
        return self.history_row(dict(before)) == self.history_row(row)
