# SPDX-License-Identifier: Apache-2.0
"""Categories: the folders in which rules and groups stand. One tree per kind of thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from quarterdeck.core.ids import CategoryId


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    id: CategoryId
    name: str
    parent: CategoryId
    description: str = ""
    system: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryTree:
    """A category, what is below it, and the ids of what stands in it; all sorted by id."""

    category: Category
    children: tuple[CategoryTree, ...] = ()
    members: tuple[str, ...] = ()


def grow(root: CategoryId, categories: Iterable[Category], members: Mapping[CategoryId, Iterable[str]]) -> CategoryTree:
    """The tree below `root`, which must be among the categories."""
    by_parent: dict[CategoryId, list[Category]] = {}
    known = {category.id: category for category in categories}
    for category in known.values():
        if category.id != root:
            by_parent.setdefault(category.parent, []).append(category)

    def below(category: Category) -> CategoryTree:
        children = sorted(by_parent.get(category.id, ()), key=lambda one: one.id)
        return CategoryTree(
            category=category,
            children=tuple(below(child) for child in children),
            members=tuple(sorted(members.get(category.id, ()))),
        )

    return below(known[root])


def walk(tree: CategoryTree) -> Iterator[CategoryTree]:
    """The tree and everything below it."""
    yield tree
    for child in tree.children:
        yield from walk(child)


def find(tree: CategoryTree, category: str) -> CategoryTree | None:
    """The part of the tree that begins at a category."""
    return next((part for part in walk(tree) if part.category.id == category), None)
