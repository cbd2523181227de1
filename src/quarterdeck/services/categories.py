# SPDX-License-Identifier: Apache-2.0
"""What people do with categories, the same for rules and for groups. `Shelf` says what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core import categories
from quarterdeck.core.categories import Category, CategoryTree
from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid
from quarterdeck.core.ids import CategoryId
from quarterdeck.services.context import Context
from quarterdeck.storage.categories import CategoryTable

_TWIN_OF_RENAMED = "Cannot update the Node Group Category with name '{name}' :"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """One kind of categories: where they are kept, what stands in them, how long a name must be."""

    root: CategoryId
    table: Callable[[Context], CategoryTable]
    #: (category, id) of everything that stands in a category
    placed: Callable[[Context], Iterable[tuple[CategoryId, str]]]
    min_name: int
    short_name: str
    #: how the sentence begins that refuses a new category its name; "Node Group" is said of rules too
    twin_of_new: str = "Cannot create the Node Group Category with name '{name}' :"
    #: what stands before the sentence that refuses to remove a category
    not_empty: str = ""
    #: where things stand whose category is gone; None leaves them out
    lost: Category | None = None


def tree(ctx: Context, shelf: Shelf) -> CategoryTree:
    """All categories; what lost its category stands in the shelf's extra one."""
    known = {category.id: category for category in shelf.table(ctx).all()}
    members: dict[CategoryId, list[str]] = {}
    for category, thing in shelf.placed(ctx):
        if category not in known and shelf.lost is not None:
            category = shelf.lost.id  # noqa: PLW2901  # the place it is shown at
        members.setdefault(category, []).append(thing)
    if shelf.lost is not None and shelf.lost.id in members:
        known[shelf.lost.id] = shelf.lost
    return categories.grow(shelf.root, known.values(), members)


def get(ctx: Context, shelf: Shelf, category_id: str) -> CategoryTree:
    """One category with what is below it. Raises NotFound."""
    category = shelf.table(ctx).get(category_id)
    return categories.find(tree(ctx, shelf), category_id) or CategoryTree(category=category)


def create(ctx: Context, shelf: Shelf, category: Category) -> CategoryTree:
    """Add a category below its parent. Raises Invalid, AlreadyExists."""
    if shelf.table(ctx).find(category.id) is not None:
        raise AlreadyExists(f"A category with id '{category.id}' exists already")
    _check(ctx, shelf, category, shelf.twin_of_new)
    shelf.table(ctx).add(category)
    return CategoryTree(category=category)


def update(ctx: Context, shelf: Shelf, category_id: str, changes: Mapping[str, Any]) -> CategoryTree:
    """Rename, redescribe or move a category. Raises NotFound, Invalid, AlreadyExists, Conflict."""
    before = shelf.table(ctx).get(category_id, lock=True)
    after = replace(before, **changes)
    if after.parent != before.parent:
        if before.id == shelf.root:
            raise Conflict("The root category can not be moved")
        if categories.find(get(ctx, shelf, category_id), after.parent) is not None:
            raise Conflict(f"Category '{before.name}' can not be moved below itself")
    _check(ctx, shelf, after, _TWIN_OF_RENAMED)
    shelf.table(ctx).replace(after)
    return get(ctx, shelf, category_id)


def delete(ctx: Context, shelf: Shelf, category_id: str) -> CategoryTree:
    """Remove an empty category. Raises NotFound, Conflict."""
    found = get(ctx, shelf, category_id)
    if found.category.id == shelf.root or found.category.system:
        raise Conflict(f"Cannot delete category '{found.category.name}' since that category belongs to the system")
    if found.children or found.members:
        before = shelf.not_empty.format(id=category_id)
        raise Conflict(f"{before}Cannot delete category '{found.category.name}' since that category is not empty")
    shelf.table(ctx).remove(category_id)
    return found


def _check(ctx: Context, shelf: Shelf, category: Category, twin: str) -> None:
    if len(category.name) < shelf.min_name:
        raise Invalid(shelf.short_name.format(name=category.name), problems={"name": "is too short"})
    if category.id != shelf.root and shelf.table(ctx).find(category.parent) is None:
        raise Invalid(f"The parent category '{category.parent}' was not found, can not add")
    siblings = shelf.table(ctx).having(parent=category.parent)
    if any(one.name == category.name and one.id != category.id for one in siblings):
        sentence = twin.format(name=category.name)
        raise AlreadyExists(f"{sentence} a category with the same name exists at the same level")
