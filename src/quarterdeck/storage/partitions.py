# SPDX-License-Identifier: Apache-2.0
"""Tables that are partitioned by day (UTC): their days made ahead, and dropped when they are old.

A partition is named `TABLE_YYYYMMDD`; what has no day of its own lies in `TABLE_default`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from quarterdeck.storage.driver import raw_connection, translated

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


@dataclass(frozen=True, slots=True)
class DailyPartitions:
    """The days of one table. `column` says when a row was."""

    table: str
    column: str

    def ensure(self, store: Store, day: date) -> None:
        """Make the partition of a day unless it is there. Rows of it that came before keep all of it in the default."""
        if self._has(store, day):
            return
        _execute(store, "SELECT pg_advisory_xact_lock(%s)", [zlib.crc32(self.table.encode())])
        if self._has(store, day) or self._has_strays(store, day):
            return
        statement = sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(self._name(day)),
            sql.Identifier(self.table),
            sql.Literal(_midnight(day)),
            sql.Literal(_midnight(day + timedelta(days=1))),
        )
        _execute(store, statement)

    def drop_before(self, store: Store, day: date) -> int:
        """Forget all days before this one; how many partitions went."""
        names = _execute(
            store,
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = %s::regclass AND c.relname ~ %s AND c.relname < %s",
            [self.table, f"^{self.table}_[0-9]{{8}}$", self._name(day)],
        ).fetchall()
        for (name,) in names:
            _execute(store, sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        deleting = sql.SQL("DELETE FROM {} WHERE {} < %s").format(
            sql.Identifier(self.table), sql.Identifier(self.column)
        )
        _execute(store, deleting, [_midnight(day)])
        return len(names)

    def _has(self, store: Store, day: date) -> bool:
        found = _execute(store, "SELECT to_regclass(%s) IS NOT NULL", [self._name(day)]).fetchone()
        return bool(found and found[0])

    def _has_strays(self, store: Store, day: date) -> bool:
        """Whether the default has rows of this day: PostgreSQL would refuse to make a partition for them."""
        column = sql.Identifier(self.column)
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} >= %s AND {} < %s)").format(
            sql.Identifier(f"{self.table}_default"), column, column
        )
        found = _execute(store, query, [_midnight(day), _midnight(day + timedelta(days=1))]).fetchone()
        return bool(found and found[0])

    def _name(self, day: date) -> str:
        return f"{self.table}_{day:%Y%m%d}"


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _execute(store: Store, query: Any, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
    with translated():
        return raw_connection(store).execute(query, parameters)
