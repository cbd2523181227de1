# SPDX-License-Identifier: Apache-2.0
"""Sessions of people who logged in with a password, by the digest of what their cookie holds."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy

from quarterdeck.core.accounts import Account
from quarterdeck.storage.tables import accounts, sessions

if TYPE_CHECKING:
    from quarterdeck.core.ids import AccountId
    from quarterdeck.storage.database import Store


class Session(NamedTuple):
    """Whose it is, when it began, and when it was last seen."""

    account: Account
    created: datetime
    seen: datetime


class SessionTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, digest: bytes, account: AccountId, *, expires_at: datetime) -> None:
        """Keep a new session."""
        now = self._store.now
        self._store.run(
            sqlalchemy.insert(sessions).values(
                digest=digest, account_id=account, created_at=now, seen_at=now, expires_at=expires_at
            )
        )

    def find(self, digest: bytes) -> Session | None:
        """The session; None when there is none or its time is up."""
        query = (
            sqlalchemy.select(accounts, sessions.c.created_at.label("begun_at"), sessions.c.seen_at)
            .join(sessions, sessions.c.account_id == accounts.c.id)
            .where(sessions.c.digest == digest, sessions.c.expires_at > self._store.now)
        )
        row = self._store.run(query).first()
        return Session(self._store.accounts.from_row(row), row.begun_at, row.seen_at) if row is not None else None

    def touch(self, digest: bytes, *, expires_at: datetime) -> None:
        """It is used now, and lives on."""
        changed = {"seen_at": self._store.now, "expires_at": expires_at}
        self._store.run(sqlalchemy.update(sessions).where(sessions.c.digest == digest).values(changed))

    def remove(self, digest: bytes) -> None:
        """End a session; nothing happens when there is none."""
        self._store.run(sqlalchemy.delete(sessions).where(sessions.c.digest == digest))

    def remove_of(self, account: AccountId) -> None:
        """End every session of an account."""
        self._store.run(sqlalchemy.delete(sessions).where(sessions.c.account_id == account))

    def forget_expired(self) -> None:
        """Remove those whose time is up."""
        self._store.run(sqlalchemy.delete(sessions).where(sessions.c.expires_at <= self._store.now))
