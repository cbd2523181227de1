# SPDX-License-Identifier: Apache-2.0
"""Categories of rules and of groups: rows <-> core objects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from quarterdeck.core.categories import Category
from quarterdeck.core.ids import CategoryId
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class CategoryTable(VersionedTable[Category]):
    def to_row(self, thing: Category) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "description": thing.description,
            "parent": thing.parent,
            "system": thing.system,
        }

    def from_row(self, row: Row[Any]) -> Category:
        return Category(
            id=CategoryId(row.id),
            name=row.name,
            description=row.description,
            parent=CategoryId(row.parent),
            system=row.system,
        )


class RuleCategoryTable(CategoryTable):
    table = tables.rule_categories
    kind = "rule_category"
    not_found = "Error: rule category with id '{id}' was not found"


class GroupCategoryTable(CategoryTable):
    table = tables.group_categories
    kind = "group_category"
    not_found = "Cannot find Group category '{id}'"
