# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens: rows <-> core objects, of the secret only its SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.enrolment import EnrolmentToken
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class EnrolmentTokenTable(VersionedTable[EnrolmentToken]):
    table = tables.enrolment_tokens
    kind = "enrolment_token"
    not_found = "There is no enrolment token '{id}'."

    def keep(self, thing: EnrolmentToken, digest: bytes) -> None:
        """Keep a new token with the SHA-256 of its secret."""
        row = self.to_row(thing)
        self._store.run(sqlalchemy.insert(self.table).values(**row, digest=digest))
        self._record(row, "created")

    def digests(self) -> list[tuple[bytes, EnrolmentToken]]:
        """Every token with its digest, for a comparison that takes the same time for all."""
        return [(bytes(row.digest), self.from_row(row)) for row in self._store.rows(sqlalchemy.select(self.table))]

    def use(self, token: str) -> bool:
        """Count one use; whether one was left. Two machines never share the last one."""
        uses = self.table.c.uses_left
        statement = sqlalchemy.update(self.table).where(self.table.c.id == token, uses.is_distinct_from(0))
        return self._store.run(statement.values(uses_left=uses - 1)).rowcount == 1

    def to_row(self, thing: EnrolmentToken) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "accept": thing.accept,
            "uses_left": thing.uses_left,
            "created_at": thing.created_at,
            "expires_at": thing.expires_at,
        }

    def from_row(self, row: Row[Any]) -> EnrolmentToken:
        return EnrolmentToken(
            id=row.id,
            name=row.name,
            accept=row.accept,
            uses_left=row.uses_left,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Times as text."""
        return {
            name: value.isoformat() if name.endswith("_at") and value is not None else value
            for name, value in row.items()
        }
