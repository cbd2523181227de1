# SPDX-License-Identifier: Apache-2.0
"""What all tables of versioned objects share: find, list, add, replace, remove, and the history of each change.

A noun's file gives the table, the two mappings and its sentences; nothing there forgets the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import sqlalchemy
from sqlalchemy import Row, Table

from quarterdeck.core.errors import NotFound

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

T = TypeVar("T")


class VersionedTable(Generic[T]):
    """A table whose rows are core objects with one key and a history."""

    table: ClassVar[Table]
    #: what history rows call it
    kind: ClassVar[str]
    key: ClassVar[str] = "id"
    #: `{id}` stands for the id that was asked for
    not_found: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self._store = store

    def to_row(self, thing: T) -> dict[str, Any]:
        """All columns of an object."""
        raise NotImplementedError

    def from_row(self, row: Row[Any]) -> T:
        """The object of a row."""
        raise NotImplementedError

    def find(self, key: Any, *, lock: bool = False) -> T | None:
        """The object, or None. `lock` keeps others from changing it until the end of the unit of work."""
        query = sqlalchemy.select(self.table).where(self.table.c[self.key] == key)
        row = self._store.run(query.with_for_update() if lock else query).first()
        return self.from_row(row) if row is not None else None

    def get(self, key: Any, *, lock: bool = False) -> T:
        """The object. Raises NotFound."""
        found = self.find(key, lock=lock)
        if found is None:
            raise NotFound(self.not_found.format(id=key))
        return found

    def revision(self, key: str, revision: str) -> T:
        """The object as one change of its history left it. Raises NotFound."""
        for change in self._store.history.of(self.kind, key):
            if str(change.id) == revision and change.after is not None:
                return self.from_row(cast("Row[Any]", SimpleNamespace(**change.after)))
        raise NotFound(self.not_found.format(id=f"{key}+{revision}"))

    def all(self) -> list[T]:
        """All objects, sorted by key."""
        query = sqlalchemy.select(self.table).order_by(self.table.c[self.key])
        return [self.from_row(row) for row in self._store.rows(query)]

    def among(self, keys: Iterable[str]) -> dict[str, T]:
        """Those of the named objects that exist, by key."""
        query = sqlalchemy.select(self.table).where(self.table.c[self.key].in_(list(keys)))
        return {getattr(row, self.key): self.from_row(row) for row in self._store.rows(query)}

    def having(self, **columns: Any) -> list[T]:
        """The objects whose columns have these values, sorted by key."""
        query = sqlalchemy.select(self.table).filter_by(**columns).order_by(self.table.c[self.key])
        return [self.from_row(row) for row in self._store.rows(query)]

    def add(self, thing: T) -> None:
        """Keep a new object. Raises AlreadyExists."""
        row = self.to_row(thing)
        self._store.run(sqlalchemy.insert(self.table).values(row))
        self._record(row, "created")

    def replace(self, thing: T) -> None:
        """Keep the object's new state; nothing happens when no column changes. Raises NotFound."""
        row = self.to_row(thing)
        self._update(row)

    def remove(self, key: Any) -> None:
        """Forget the object; its history stays. Nothing happens when it does not exist."""
        done = self._store.run(sqlalchemy.delete(self.table).where(self.table.c[self.key] == key))
        if done.rowcount:
            self._store.history.append(self.kind, str(key), "deleted", None)

    def _update(self, row: Mapping[str, Any]) -> None:
        key = row[self.key]
        query = sqlalchemy.select(self.table).where(self.table.c[self.key] == key)
        before = self._store.run(query.with_for_update()).first()
        if before is None:
            raise NotFound(self.not_found.format(id=key))
        if self.unchanged(before._mapping, row):  # noqa: SLF001  # public API of Row
            return
        self._store.run(sqlalchemy.update(self.table).where(self.table.c[self.key] == key).values(row))
        self._record(row, "modified")

    def _record(self, row: Mapping[str, Any], change: str) -> None:
        self._store.history.append(self.kind, str(row[self.key]), change, self.history_row(row))

    def unchanged(self, before: Mapping[Any, Any], row: Mapping[str, Any]) -> bool:
        """Whether the columns say what they said; a noun whose columns look different each time says how to tell."""
        return all(before[name] == value for name, value in row.items())

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What history keeps of a row; a noun with secrets or with unversioned columns narrows it."""
        return dict(row)
