# SPDX-License-Identifier: Apache-2.0
"""Accounts: rows <-> core objects. Tokens are kept as SHA-256 digests, passwords as Argon2 hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.accounts import Access, Account
from quarterdeck.core.ids import AccountId
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable

_SECRETS = ("token_digest", "password_hash")


#: Made once: every request asks it.
_BY_TOKEN = sqlalchemy.select(tables.accounts).where(tables.accounts.c.token_digest == sqlalchemy.bindparam("digest"))


class AccountTable(VersionedTable[Account]):
    table = tables.accounts
    kind = "account"
    not_found = "There is no account '{id}'."

    def by_token(self, digest: bytes) -> Account | None:
        """The account of a token, by the token's SHA-256."""
        row = self._store.run(_BY_TOKEN, {"digest": digest}).first()
        return self.from_row(row) if row is not None else None

    def by_name(self, name: str) -> Account | None:
        """The account of this name."""
        row = self._store.run(sqlalchemy.select(self.table).where(self.table.c.name == name)).first()
        return self.from_row(row) if row is not None else None

    def password_hash(self, account: AccountId) -> str | None:
        """The Argon2 hash of a user's password."""
        query = sqlalchemy.select(self.table.c.password_hash).where(self.table.c.id == account)
        return self._store.run(query).scalar()

    def set_token(self, account: AccountId, digest: bytes) -> None:
        """Give an account a token, in place of any other."""
        self._set(account, token_digest=digest)

    def set_password(self, account: AccountId, hashed: str) -> None:
        """Give an account a password, in place of any other."""
        self._set(account, password_hash=hashed)

    def _set(self, account: AccountId, **columns: Any) -> None:
        self._store.run(sqlalchemy.update(self.table).where(self.table.c.id == account).values(columns))
        self._store.history.append(self.kind, account, "modified", {"secret": "replaced"})

    def to_row(self, thing: Account) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "kind": thing.kind,
            "access": thing.access.value if thing.access is not None else None,
            "roles": sorted(thing.roles),
            "enabled": thing.enabled,
            "created_at": thing.created_at,
            "expires_at": thing.expires_at,
        }

    def from_row(self, row: Row[Any]) -> Account:
        return Account(
            id=AccountId(row.id),
            name=row.name,
            kind=row.kind,
            access=Access(row.access) if row.access is not None else None,
            roles=frozenset(row.roles),
            enabled=row.enabled,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Everything but secrets, times as text."""
        return {
            name: value.isoformat() if name.endswith("_at") and value is not None else value
            for name, value in row.items()
            if name not in _SECRETS
        }
