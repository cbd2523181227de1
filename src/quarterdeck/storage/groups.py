# SPDX-License-Identifier: Apache-2.0
"""Groups and their members: rows <-> core objects."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.groups import Group
from quarterdeck.core.ids import CategoryId, GroupId, NodeId
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.storage import property_rows, tables
from quarterdeck.storage.versioned import VersionedTable

_members = tables.group_members


class GroupTable(VersionedTable[Group]):
    table = tables.groups
    kind = "group"
    #: The quote at the end is the peer's.
    not_found = "Group with id '{id}' was not found'"

    def members(self, group: str) -> list[NodeId]:
        """The nodes of a group, sorted."""
        query = sqlalchemy.select(_members.c.node_id).where(_members.c.group_id == group)
        return [NodeId(row.node_id) for row in self._store.rows(query.order_by(_members.c.node_id))]

    def all_members(self) -> dict[GroupId, set[NodeId]]:
        """Every group that has members, with them."""
        found: dict[GroupId, set[NodeId]] = {}
        for row in self._store.rows(sqlalchemy.select(_members.c.group_id, _members.c.node_id)):
            found.setdefault(GroupId(row.group_id), set()).add(NodeId(row.node_id))
        return found

    def of_node(self, node: str) -> list[GroupId]:
        """The groups that a node is in, sorted."""
        query = sqlalchemy.select(_members.c.group_id).where(_members.c.node_id == node)
        return [GroupId(row.group_id) for row in self._store.rows(query.order_by(_members.c.group_id))]

    def to_row(self, thing: Group) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.name,
            "description": thing.description,
            "category": thing.category,
            "query": _query_row(thing.query),
            "dynamic": thing.dynamic,
            "enabled": thing.enabled,
            "system": thing.system,
            "properties": property_rows.to_json(thing.properties),
        }

    def from_row(self, row: Row[Any]) -> Group:
        return Group(
            id=GroupId(row.id),
            name=row.name,
            description=row.description,
            category=CategoryId(row.category),
            query=_query(row.query),
            dynamic=row.dynamic,
            enabled=row.enabled,
            system=row.system,
            properties=property_rows.from_json(row.properties),
        )


def _query_row(query: NodeQuery | None) -> dict[str, Any] | None:
    if query is None:
        return None
    return {
        "with_policy_servers": query.with_policy_servers,
        "composition": query.composition,
        "inverted": query.inverted,
        "criteria": [[one.object_type, one.attribute, one.comparator, one.value] for one in query.criteria],
    }


def _query(row: dict[str, Any] | None) -> NodeQuery | None:
    if row is None:
        return None
    criteria = tuple(
        Criterion(object_type=kind, attribute=attribute, comparator=comparator, value=value)
        for kind, attribute, comparator, value in row["criteria"]
    )
    return NodeQuery(
        with_policy_servers=row["with_policy_servers"],
        composition=row["composition"],
        inverted=row["inverted"],
        criteria=criteria,
    )
