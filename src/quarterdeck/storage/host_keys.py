# SPDX-License-Identifier: Apache-2.0
"""Keys that hosts showed: which are trusted, which wait for somebody's approval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import ARRAY, insert

from quarterdeck.core.connections import Address
from quarterdeck.storage.runbook_tables import host_keys

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeyRecord:
    """A key, as an OpenSSH public key text. `approved_by` is "" where it was trusted for being the first."""

    address: Address
    key: str
    trusted: bool
    seen_at: datetime
    approved_by: str = ""


class HostKeyTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[HostKeyRecord]:
        """Every key, sorted by host and port."""
        query = sqlalchemy.select(host_keys).order_by(host_keys.c.host, host_keys.c.port, host_keys.c.key)
        return [_from_row(row) for row in self._store.rows(query)]

    def of(self, addresses: Iterable[Address]) -> list[HostKeyRecord]:
        """The keys of these hosts."""
        wanted = set(addresses)
        # One parameter, however many hosts: a statement takes 65,535 at most.
        hosts = sqlalchemy.literal(sorted({one.host for one in wanted}), ARRAY(sqlalchemy.Text))
        query = sqlalchemy.select(host_keys).where(host_keys.c.host == sqlalchemy.any_(hosts))
        found = (_from_row(row) for row in self._store.rows(query))
        return [record for record in found if record.address in wanted]

    def see(self, address: Address, key: str, *, trusted: bool) -> None:
        """Note a key that a host showed; one that is known stays as it is. Only the first is trusted unseen."""
        known = sqlalchemy.select(host_keys.c.key).where(
            host_keys.c.host == address.host, host_keys.c.port == address.port, host_keys.c.trusted
        )
        first = trusted and not self._store.rows(known)
        self._store.run(
            insert(host_keys)
            .values(
                host=address.host,
                port=address.port,
                key=key,
                trusted=first,
                seen_at=self._store.now,
                approved_by="",
            )
            .on_conflict_do_nothing()
        )

    def put(self, record: HostKeyRecord) -> None:
        """Keep a key with what is known of it."""
        values = {"trusted": record.trusted, "seen_at": record.seen_at, "approved_by": record.approved_by}
        statement = insert(host_keys).values(
            host=record.address.host, port=record.address.port, key=record.key, **values
        )
        self._store.run(statement.on_conflict_do_update(index_elements=["host", "port", "key"], set_=values))

    def remove(self, address: Address, key: str = "") -> int:
        """Forget a key of a host, or all; returns how many went."""
        statement = sqlalchemy.delete(host_keys).where(
            host_keys.c.host == address.host, host_keys.c.port == address.port
        )
        return self._store.run(statement.where(host_keys.c.key == key) if key else statement).rowcount


def _from_row(row: sqlalchemy.Row[tuple[object, ...]]) -> HostKeyRecord:
    return HostKeyRecord(
        address=Address(row.host, row.port),
        key=row.key,
        trusted=row.trusted,
        seen_at=row.seen_at,
        approved_by=row.approved_by,
    )
