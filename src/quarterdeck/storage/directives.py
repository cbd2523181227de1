# SPDX-License-Identifier: Apache-2.0
"""Directives: rows <-> core objects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, TechniqueId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.tags import Tag
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class DirectiveTable(VersionedTable[Directive]):
    table = tables.directives
    kind = "directive"
    not_found = "Directive with id '{id}' was not found"

    def to_row(self, thing: Directive) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "technique": thing.technique,
            "version": thing.version,
            "short_description": thing.short_description,
            "long_description": thing.long_description,
            "parameters": {name: list(values) for name, values in thing.parameters.items()},
            "priority": thing.priority,
            "enabled": thing.enabled,
            "system": thing.system,
            "mode": thing.mode.value if thing.mode is not None else None,
            "tags": [list(tag) for tag in sorted(thing.tags)],
        }

    def from_row(self, row: Row[Any]) -> Directive:
        return Directive(
            id=DirectiveId(row.id),
            name=row.name,
            technique=TechniqueId(row.technique),
            version=row.version,
            short_description=row.short_description,
            long_description=row.long_description,
            parameters={name: tuple(values) for name, values in row.parameters.items()},
            priority=row.priority,
            enabled=row.enabled,
            system=row.system,
            mode=PolicyMode(row.mode) if row.mode is not None else None,
            tags=tuple(Tag(*tag) for tag in row.tags),
        )
