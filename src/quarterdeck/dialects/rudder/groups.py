# SPDX-License-Identifier: Apache-2.0
"""Groups chapter: groups, their categories and their tree."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from quarterdeck.core import groups as core_groups
from quarterdeck.core import node_queries, properties
from quarterdeck.core.categories import CategoryTree
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import CategoryId, GroupId, parse_revised
from quarterdeck.core.targets import SPECIALS
from quarterdeck.dialects.rudder import body, reasons
from quarterdeck.dialects.rudder.category_shapes import CategoryFields, encode_category, encode_tree
from quarterdeck.dialects.rudder.shapes import (
    Fields,
    Flag,
    PropertyFields,
    Text,
    chosen_id,
    encode_inherited,
    encode_property,
)
from quarterdeck.services import categories, groups
from quarterdeck.services.context import Context
from quarterdeck.services.groups import ShownGroup
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Groups")

#: What the tree shows beside groups, at the root: (target, name, description)
_SPECIAL_TARGETS = dict(
    zip(
        SPECIALS,
        (
            ("All nodes", "All nodes, policy servers included"),
            ("All managed nodes", "All nodes without policy servers"),
            ("All policy servers", "The root server and all relays"),
        ),
        strict=True,
    )
)


class GroupFields(Fields):
    id: Text = UNSET
    display_name: Text = UNSET
    description: Text = UNSET
    category: Text = UNSET
    query: dict[str, Any] | UnsetType = UNSET
    properties: list[PropertyFields] | UnsetType = UNSET
    dynamic: Flag = UNSET
    enabled: Flag = UNSET
    source: Text = UNSET

    def changes(self, present: Group | None = None) -> dict[str, Any]:
        """The fields that were sent, as core calls them; properties laid over the present ones. Raises Invalid."""
        given = self.given(
            display_name="name", description="description", category="category", dynamic="dynamic", enabled="enabled"
        )
        if "category" in given:
            given["category"] = CategoryId(given["category"])
        if self.query is not UNSET:
            given["query"] = node_queries.parse(self.query) if self.query else None
        if self.properties is not UNSET:
            sent = [one.to_property() for one in self.properties]
            given["properties"] = properties.update(present.properties if present else (), sent)
        return given


@section.operation("listGroups", "GET", "/groups", right="group.read", wrap="groups")
def list_groups(ctx: Context, request: Request) -> Reply:
    """List all groups."""
    return Reply([encode_group(shown) for shown in groups.show(ctx, groups.all_groups(ctx))])


@section.operation(
    "createGroup",
    "PUT",
    "/groups",
    right="group.write",
    body=GroupFields,
    wrap="groups",
    hint="Error when creating new group",
)
def create_group(ctx: Context, request: Request) -> Reply:
    """Create a group, or clone one when `source` is given."""
    fields = body.decode(request, GroupFields)
    group_id = GroupId(parse_revised(chosen_id(fields.id)).uid)
    if fields.source is not UNSET:
        return _reply(ctx, groups.clone(ctx, fields.source, group_id, fields.changes()), action="cloneGroup")
    return _reply(ctx, groups.create(ctx, Group(**{"name": "", **fields.changes(), "id": group_id})))


@section.operation("groupDetails", "GET", "/groups/{id}", right="group.read", wrap="groups")
def group_details(ctx: Context, request: Request) -> Reply:
    """Get one group."""
    return _reply(ctx, groups.get(ctx, request.params["id"]))


@section.operation("updateGroup", "POST", "/groups/{id}", right="group.write", body=GroupFields, wrap="groups")
def update_group(ctx: Context, request: Request) -> Reply:
    """Change the fields of a group that are sent."""
    present = groups.get(ctx, request.params["id"])
    changes = body.decode(request, GroupFields).changes(present)
    return _reply(ctx, groups.update(ctx, present.id, changes))


@section.operation("deleteGroup", "DELETE", "/groups/{id}", right="group.write", wrap="groups")
def delete_group(ctx: Context, request: Request) -> Reply:
    """Delete a group; deleting an unknown one succeeds."""
    wanted = GroupId(request.params["id"])
    deleted = groups.delete(ctx, wanted)
    return Reply([encode_group(deleted) if deleted is not None else _blank(wanted)], id=wanted)


def _blank(wanted: GroupId) -> dict[str, Any]:
    """What is said of a group that does not exist."""
    group = Group(id=wanted, name="", category=CategoryId(""), enabled=False, dynamic=False)
    return encode_group(ShownGroup(group=group, nodes=())) | {"groupClass": [], "target": ""}


@section.operation("reloadGroup", "POST", "/groups/{id}/reload", right="group.write", wrap="groups")
@section.operation("reloadGroup", "GET", "/groups/{id}/reload", right="group.write", wrap="groups", documented=False)
def reload_group(ctx: Context, request: Request) -> Reply:
    """Compute the members of a dynamic group now."""
    return _reply(ctx, groups.reload(ctx, request.params["id"]))


@section.operation(
    "groupInheritedProperties",
    "GET",
    "/groups/{id}/inheritedProperties",
    right="group.read",
    since=11,
    documented=False,
)
def group_inherited_properties(ctx: Context, request: Request) -> Reply:
    """The properties of a group with everything above it."""
    wanted = request.params["id"]
    found = groups.inherited_properties(ctx, wanted)
    return Reply([{"groupId": wanted, "properties": [encode_inherited(one) for one in found]}])


@section.operation("getGroupTree", "GET", "/groups/tree", right="group.read", wrap="groupCategories")
def get_group_tree(ctx: Context, request: Request) -> Reply:
    """The whole tree of categories with full groups."""
    shown = {str(one.group.id): encode_group(one) for one in groups.show(ctx, groups.all_groups(ctx))}
    tree = categories.tree(ctx, groups.CATEGORIES)

    def stands_in(part: CategoryTree) -> dict[str, Any]:
        return {"groups": [shown[group] for group in part.members], "targets": _targets(part)}

    return Reply(encode_tree(tree, stands_in))


@section.operation(
    "createGroupCategory",
    "PUT",
    "/groups/categories",
    right="group.write",
    body=CategoryFields,
    wrap="groupCategories",
    style="old",
    hint="Could not create group category",
)
def create_group_category(ctx: Context, request: Request) -> Reply:
    """Create a group category."""
    reasons.take(ctx, request)
    draft = body.decode(request, CategoryFields).draft(groups.CATEGORIES.root)
    return Reply(_encode(categories.create(ctx, groups.CATEGORIES, draft)))


@section.operation(
    "getGroupCategoryDetails",
    "GET",
    "/groups/categories/{id}",
    right="group.read",
    wrap="groupCategories",
    style="old",
    hint="Could not get Group category '{id}'",
)
def get_group_category_details(ctx: Context, request: Request) -> Reply:
    """Get one group category."""
    wanted = request.params["id"]
    return Reply(_encode(categories.get(ctx, groups.CATEGORIES, wanted)), id=wanted)


@section.operation(
    "updateGroupCategory",
    "POST",
    "/groups/categories/{id}",
    right="group.write",
    body=CategoryFields,
    wrap="groupCategories",
    style="old",
    hint="Could not update Group category '{id}'",
)
def update_group_category(ctx: Context, request: Request) -> Reply:
    """Rename, redescribe or move a group category."""
    reasons.take(ctx, request)
    wanted, changes = request.params["id"], body.decode(request, CategoryFields).changes()
    return Reply(_encode(categories.update(ctx, groups.CATEGORIES, wanted, changes)), id=wanted)


@section.operation(
    "deleteGroupCategory",
    "DELETE",
    "/groups/categories/{id}",
    right="group.write",
    wrap="groupCategories",
    style="old",
    hint="Could not delete Group category '{id}'",
)
def delete_group_category(ctx: Context, request: Request) -> Reply:
    """Delete an empty group category."""
    reasons.take(ctx, request)
    wanted = request.params["id"]
    return Reply(_encode(categories.delete(ctx, groups.CATEGORIES, wanted)), id=wanted)


def _encode(tree: CategoryTree) -> dict[str, Any]:
    names = [target["target"] for target in _targets(tree)]
    return encode_category(tree) | {"groups": list(tree.members), "targets": names}


def _targets(tree: CategoryTree) -> list[dict[str, Any]]:
    if tree.category.id != core_groups.SYSTEM_CATEGORY:
        return []
    return [
        {"id": target, "displayName": name, "description": description, "enabled": True, "target": target}
        for target, (name, description) in sorted(_SPECIAL_TARGETS.items())
    ]


def _reply(ctx: Context, group: Group, action: str | None = None) -> Reply:
    return Reply([encode_group(groups.show(ctx, [group])[0])], id=group.id, action=action)


def encode_group(shown: ShownGroup) -> dict[str, Any]:
    """A group with its members; `query` is left out when there is none."""
    group = shown.group
    encoded: dict[str, Any] = {
        "id": group.id,
        "displayName": group.name,
        "description": group.description,
        "category": group.category,
    }
    if group.query is not None:
        encoded["query"] = node_queries.show(group.query)
    return encoded | {
        "nodeIds": list(shown.nodes),
        "dynamic": group.dynamic,
        "enabled": group.enabled,
        "groupClass": list(core_groups.condition_names(group)),
        "properties": [encode_property(one) for one in group.properties],
        "target": f"group:{group.id}",
        "system": group.system,
    }
