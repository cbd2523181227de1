# SPDX-License-Identifier: Apache-2.0
"""Rules: rows <-> core objects."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core import targets
from quarterdeck.core.ids import CategoryId, DirectiveId, RuleId
from quarterdeck.core.rules import Rule
from quarterdeck.core.tags import Tag
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class RuleTable(VersionedTable[Rule]):
    table = tables.rules
    kind = "rule"
    not_found = "Rule with id '{id}' was not found"

    def with_directive(self, directive: str) -> list[Rule]:
        """The rules that use a directive."""
        query = (
            sqlalchemy.select(self.table)
            .where(sqlalchemy.literal(directive) == sqlalchemy.any_(self.table.c.directives))
            .order_by(self.table.c.id)
        )
        return [self.from_row(row) for row in self._store.rows(query)]

    def to_row(self, thing: Rule) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "category": thing.category,
            "short_description": thing.short_description,
            "long_description": thing.long_description,
            "directives": sorted(thing.directives),
            "targets": [targets.show(target) for target in thing.targets],
            "enabled": thing.enabled,
            "system": thing.system,
            "tags": [list(tag) for tag in sorted(thing.tags)],
        }

    def from_row(self, row: Row[Any]) -> Rule:
        return Rule(
            id=RuleId(row.id),
            name=row.name,
            category=CategoryId(row.category),
            short_description=row.short_description,
            long_description=row.long_description,
            directives=frozenset(DirectiveId(directive) for directive in row.directives),
            targets=tuple(targets.parse(target) for target in row.targets),
            enabled=row.enabled,
            system=row.system,
            tags=tuple(Tag(*tag) for tag in row.tags),
        )
