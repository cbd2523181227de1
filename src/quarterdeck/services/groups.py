# SPDX-License-Identifier: Apache-2.0
"""What people do with groups; their categories are a shelf of `services/categories.py`.

Members follow from the query: those of dynamic groups are kept fresh by `group_refresh.py`, those of static
ones are computed here, when the query is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core import targets
from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid, NoSuchPlace
from quarterdeck.core.events import GroupChanged, GroupMembersChanged, RuleChanged
from quarterdeck.core.groups import ROOT_CATEGORY, Group
from quarterdeck.core.ids import GroupId, NodeId, parse_revised
from quarterdeck.core.inheritance import Inheritance, Inherited
from quarterdeck.services.categories import Shelf
from quarterdeck.services.context import Context
from quarterdeck.storage import node_queries

MIN_NAME = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGroup:
    """A group with its present members, sorted."""

    group: Group
    nodes: Sequence[NodeId]


def all_groups(ctx: Context) -> list[Group]:
    """Every group, the system's too, sorted by id."""
    return ctx.store.groups.all()


def get(ctx: Context, group_id: str) -> Group:
    """One group; an empty revision behind its id is the present. Raises NotFound, Invalid."""
    named = parse_revised(group_id)
    return ctx.store.groups.get(str(named))


def show(ctx: Context, some: Iterable[Group]) -> list[ShownGroup]:
    """Groups with their members."""
    shown = list(some)
    if len(shown) == 1:
        return [ShownGroup(group=shown[0], nodes=ctx.store.groups.members(shown[0].id))]
    members = ctx.store.groups.all_members()
    return [ShownGroup(group=group, nodes=sorted(members.get(group.id, ()))) for group in shown]


def create(ctx: Context, group: Group) -> Group:
    """Add a group. A dynamic one gets its members a moment later. Raises Invalid, AlreadyExists, NotFound."""
    _check(ctx, group)
    if ctx.store.groups.find(group.id) is not None or ctx.store.groups.having(name=group.name):
        raise AlreadyExists(
            f"Cannot create a group '{group.name}': a group with the same id ({group.id}) or name already exists"
        )
    ctx.store.groups.add(group)
    _fill_static(ctx, group)
    ctx.emit(GroupChanged(group.id))
    return group


def clone(ctx: Context, source: str, group_id: GroupId, changes: Mapping[str, Any]) -> Group:
    """Add a copy of a group with some fields changed. Raises NotFound and what `create` raises."""
    return create(ctx, replace(get(ctx, source), **{"system": False, **changes, "id": group_id}))


def update(ctx: Context, group_id: str, changes: Mapping[str, Any]) -> Group:
    """Change some fields of a group. Raises NotFound, Invalid, AlreadyExists, Conflict."""
    before = ctx.store.groups.get(group_id, lock=True)
    if before.system:
        raise Conflict(f"System group '{before.name}' ({before.id}) can not be modified")
    after = replace(before, **changes)
    _check(ctx, after)
    if any(other.id != after.id for other in ctx.store.groups.having(name=after.name)):
        raise AlreadyExists(
            f"Cannot change the group name to {after.name} : there is already a group with the same name"
        )
    if after != before:
        ctx.store.groups.replace(after)
        if after.query != before.query or after.dynamic != before.dynamic:
            _fill_static(ctx, after)
        ctx.emit(GroupChanged(after.id))
    return after


def delete(ctx: Context, group_id: str) -> ShownGroup | None:
    """Remove a group and take it out of every rule's targets; None when there was none. Raises Conflict."""
    group = ctx.store.groups.find(group_id, lock=True)
    if group is None:
        return None
    if group.system:
        raise Conflict(f"System group '{group.name}' ({group.id}) can not be modified")
    shown = show(ctx, [group])[0]
    for rule in ctx.store.rules.all():
        if group.id in targets.groups_in(rule.targets):
            kept = (targets.without_group(target, group.id) for target in rule.targets)
            ctx.store.rules.replace(replace(rule, targets=tuple(target for target in kept if target is not None)))
            ctx.emit(RuleChanged(rule.id, targets_before=rule.targets))
    ctx.store.groups.remove(group.id)
    ctx.emit(GroupChanged(group.id))
    return shown


def reload(ctx: Context, group_id: str) -> Group:
    """Compute the members of a group now. Raises NotFound."""
    group = get(ctx, group_id)
    if group.dynamic:
        _fill(ctx, group)
    return group


def inherited_properties(ctx: Context, group_id: str) -> tuple[Inherited, ...]:
    """The properties of a group with everything above it. Raises NotFound, Conflict."""
    get(ctx, group_id)
    inheritance = Inheritance(ctx.store.parameters.all(), ctx.store.groups.all())
    return inheritance.of_group(GroupId(group_id))


def _fill_static(ctx: Context, group: Group) -> None:
    if not group.dynamic:
        _fill(ctx, group)


def _fill(ctx: Context, group: Group) -> None:
    found = node_queries.match(ctx.store.connection, group.query) if group.query is not None else set()
    if ctx.store.memberships.set(group.id, found):
        ctx.emit(GroupMembersChanged(group.id))


def _check(ctx: Context, group: Group) -> None:
    if len(group.name) < MIN_NAME:
        # The peer's check, although its sentence says 3.
        problems = {"displayName": "is too short"}
        raise Invalid("'displayName' is mandatory and must be at least 3 char long", problems=problems)
    if ctx.store.group_categories.find(group.category) is None:
        raise NoSuchPlace(f"Entry with ID '{group.category}' was not found")


CATEGORIES = Shelf(
    root=ROOT_CATEGORY,
    table=lambda ctx: ctx.store.group_categories,
    placed=lambda ctx: ((group.category, group.id) for group in ctx.store.groups.all()),
    min_name=3,
    short_name="{name} must be at least have a 3 character size",
    twin_of_new="Cannot create the Node Group Category with name '{name}':",
    not_empty="Error when trying to delete category with ID '{id}'; cause was: ",
)
