# SPDX-License-Identifier: Apache-2.0
"""Techniques: kept as their YAML document, with the columns that lists and checks need beside it.

The files that come with them are in `technique_resources.py`; who reads a technique gets their paths and digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert

from quarterdeck.core.techniques import Technique, TechniqueKey, TechniqueResource
from quarterdeck.formats import technique_yaml
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_table = tables.techniques
_files = tables.technique_resources
_named_files = (
    sqlalchemy.select(
        sqlalchemy.func.jsonb_agg(
            aggregate_order_by(
                sqlalchemy.func.jsonb_build_array(_files.c.path, _files.c.digest, _files.c.size), _files.c.path
            )
        )
    )
    .where(_files.c.technique == _table.c.id, _files.c.version == _table.c.version)
    .correlate(_table)
    .scalar_subquery()
    .label("files")
)
_query = sqlalchemy.select(_table, _named_files)


@lru_cache(maxsize=1024)
def _parse(document: str) -> Technique:
    return technique_yaml.read(document)


class TechniqueTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Technique]:
        """All techniques, by id, then version."""
        return [_technique(row) for row in self._store.rows(_query.order_by(_table.c.id, _table.c.version))]

    def find(self, key: TechniqueKey) -> Technique | None:
        """One version of a technique, or None."""
        row = self._store.run(_query.where(_where(key))).first()
        return _technique(row) if row is not None else None

    def versions(self, technique: str) -> list[Technique]:
        """Every version of a technique; none when it does not exist."""
        return [_technique(row) for row in self._store.rows(_query.where(_table.c.id == technique))]

    def put(self, technique: Technique) -> Technique:
        """Keep a technique, in place of the same version, whose resources stay; the technique as it is kept."""
        known = self.find(technique.key)
        wanted = replace(technique, resources=known.resources if known else ())
        if known == wanted:
            return wanted
        row = _row(wanted)
        statement = insert(_table).values(row)
        self._store.run(statement.on_conflict_do_update(index_elements=["id", "version"], set_=row))
        self._record(wanted, "modified" if known else "created")
        return wanted

    def record_resources(self, key: TechniqueKey) -> None:
        """Note in the history that the files of a technique are others now."""
        known = self.find(key)
        if known is not None:
            self._record(known, "modified")

    def lock(self, key: TechniqueKey) -> None:
        """Let nobody else change a technique or its resources until the end of the unit of work."""
        self._store.run(sqlalchemy.select(_table.c.id).where(_where(key)).with_for_update())

    def remove(self, key: TechniqueKey) -> None:
        """Forget one version; its history stays."""
        if self._store.run(sqlalchemy.delete(_table).where(_where(key))).rowcount:
            self._store.history.append("technique", _name(key), "deleted", None)

    def among(self, keys: Iterable[TechniqueKey]) -> dict[TechniqueKey, Technique]:
        """Those of the named versions that exist."""
        wanted = list(dict.fromkeys(keys))
        pairs = sqlalchemy.tuple_(_table.c.id, _table.c.version).in_(wanted)
        found = [_technique(row) for row in self._store.rows(_query.where(pairs))] if wanted else []
        return {technique.key: technique for technique in found}

    def _record(self, technique: Technique, change: str) -> None:
        files = [{"path": one.path, "sha256": one.sha256, "size": one.size} for one in technique.resources]
        row = {**_row(technique), **({"resources": files} if files else {})}
        self._store.history.append("technique", _name(technique.key), change, row)


def _where(key: TechniqueKey) -> sqlalchemy.ColumnElement[bool]:
    return (_table.c.id == key.id) & (_table.c.version == key.version)


def _name(key: TechniqueKey) -> str:
    return f"{key.id}/{key.version}"


def _row(technique: Technique) -> dict[str, Any]:
    return {
        "id": technique.id,
        "version": technique.version,
        "name": technique.name,
        "source": technique.source,
        "enabled": technique.enabled,
        "system": technique.system,
        "document": technique_yaml.write(technique),
    }


def _technique(row: Row[Any]) -> Technique:
    files = tuple(TechniqueResource(*one) for one in row.files or ())
    return replace(_parse(row.document), source=row.source, enabled=row.enabled, system=row.system, resources=files)
