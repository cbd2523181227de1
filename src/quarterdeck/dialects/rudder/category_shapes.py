# SPDX-License-Identifier: Apache-2.0
"""Shapes of categories, shared by the rules and groups chapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from quarterdeck.core.categories import Category, CategoryTree
from quarterdeck.core.ids import CategoryId
from quarterdeck.dialects.rudder.shapes import Fields, Text, chosen_id


class CategoryFields(Fields):
    id: Text = UNSET
    name: Text = UNSET
    description: Text = UNSET
    parent: Text = UNSET

    def changes(self) -> dict[str, Any]:
        """The fields that were sent, as core calls them."""
        return self.given(name="name", description="description", parent="parent")

    def draft(self, root: CategoryId) -> Category:
        """A new category; without a parent it stands below the root."""
        given = {"name": "", "parent": root, **self.changes()}
        return Category(id=CategoryId(chosen_id(self.id)), **given)


def encode_category(tree: CategoryTree) -> dict[str, Any]:
    """A category whose children are ids."""
    return _head(tree) | {"categories": [child.category.id for child in tree.children]}


def encode_tree(tree: CategoryTree, encode_members: Callable[[CategoryTree], dict[str, Any]]) -> dict[str, Any]:
    """A category with nested children; `encode_members` says what stands in each."""
    children = [encode_tree(child, encode_members) for child in tree.children]
    return _head(tree) | {"categories": children} | encode_members(tree)


def _head(tree: CategoryTree) -> dict[str, Any]:
    category = tree.category
    return {
        "id": category.id,
        "name": category.name,
        "description": category.description,
        "parent": category.parent,
    }
