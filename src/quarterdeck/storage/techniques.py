# SPDX-License-Identifier: Apache-2.0
"""Techniques: kept as their YAML document, with the columns that lists and checks need beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.core.techniques import Technique, TechniqueKey
from quarterdeck.formats import technique_yaml
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_table = tables.techniques


@lru_cache(maxsize=1024)
def _parse(document: str) -> Technique:
    return technique_yaml.read(document)


class TechniqueTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Technique]:
        """All techniques, by id, then version."""
        return [
            _technique(row)
            for row in self._store.rows(sqlalchemy.select(_table).order_by(_table.c.id, _table.c.version))
        ]

    def find(self, key: TechniqueKey) -> Technique | None:
        """One version of a technique, or None."""
        row = self._store.run(sqlalchemy.select(_table).where(_where(key))).first()
        return _technique(row) if row is not None else None

    def versions(self, technique: str) -> list[Technique]:
        """Every version of a technique; none when it does not exist."""
        return [_technique(row) for row in self._store.rows(sqlalchemy.select(_table).where(_table.c.id == technique))]

    def put(self, technique: Technique) -> None:
        """Keep a technique, in place of the same version."""
        row = {
            "id": technique.id,
            "version": technique.version,
            "name": technique.name,
            "source": technique.source,
            "enabled": technique.enabled,
            "system": technique.system,
            "document": technique_yaml.write(technique),
        }
        known = self.find(technique.key)
        if known == technique:
            return
        statement = insert(_table).values(row)
        self._store.run(statement.on_conflict_do_update(index_elements=["id", "version"], set_=row))
        self._store.history.append("technique", _name(technique.key), "modified" if known else "created", row)

    def remove(self, key: TechniqueKey) -> None:
        """Forget one version; its history stays."""
        if self._store.run(sqlalchemy.delete(_table).where(_where(key))).rowcount:
            self._store.history.append("technique", _name(key), "deleted", None)

    def among(self, keys: Iterable[TechniqueKey]) -> dict[TechniqueKey, Technique]:
        """Those of the named versions that exist."""
        wanted = list(dict.fromkeys(keys))
        pairs = sqlalchemy.tuple_(_table.c.id, _table.c.version).in_(wanted)
        found = [_technique(row) for row in self._store.rows(sqlalchemy.select(_table).where(pairs))] if wanted else []
        return {technique.key: technique for technique in found}


def _where(key: TechniqueKey) -> sqlalchemy.ColumnElement[bool]:
    return (_table.c.id == key.id) & (_table.c.version == key.version)


def _name(key: TechniqueKey) -> str:
    return f"{key.id}/{key.version}"


def _technique(row: Row[Any]) -> Technique:
    return replace(_parse(row.document), source=row.source, enabled=row.enabled, system=row.system)
