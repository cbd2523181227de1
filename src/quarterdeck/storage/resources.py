# SPDX-License-Identifier: Apache-2.0
"""Resources: those of projects' documents, rows <-> core objects, and nodes of the inventory as resources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.core.resources import Resource, is_own
from quarterdeck.storage import property_rows
from quarterdeck.storage.runbook_tables import resources
from quarterdeck.storage.tables import group_members, groups, nodes

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class ResourceTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, project: str) -> list[Resource]:
        """The resources of a project's document, sorted by name."""
        query = sqlalchemy.select(resources).where(resources.c.project == project).order_by(resources.c.name)
        return [_from_row(row) for row in self._store.rows(query)]

    def replace(self, project: str, some: Iterable[Resource]) -> None:
        """These and no others are the project's from now on."""
        self._store.run(sqlalchemy.delete(resources).where(resources.c.project == project))
        rows = [_to_row(project, one) for one in some]
        if rows:
            self._store.run(sqlalchemy.insert(resources), rows)

    def of_inventory(self, group: str | None = None) -> list[tuple[NodeId, Resource]]:
        """Accepted nodes, the root node left out, of a group or all, sorted by id; named by their host names.

        Their groups are tags; properties that hold a plain value are attributes.
        """
        groups_of = (
            sqlalchemy.select(sqlalchemy.func.array_agg(groups.c.name))
            .join(group_members, group_members.c.group_id == groups.c.id)
            .where(group_members.c.node_id == nodes.c.id, ~groups.c.system)
            .scalar_subquery()
        )
        query = sqlalchemy.select(*_INVENTORY, groups_of.label("groups")).where(
            nodes.c.status == NodeStatus.ACCEPTED.value, nodes.c.id != ROOT
        )
        if group is not None:
            members = sqlalchemy.select(group_members.c.node_id).where(group_members.c.group_id == group)
            query = query.where(nodes.c.id.in_(members))
        return [(NodeId(row.id), _from_node(row)) for row in self._store.rows(query.order_by(nodes.c.id))]


_INVENTORY = (
    *(nodes.c.id, nodes.c.hostname, nodes.c.description, nodes.c.properties),
    *(nodes.c.os_type, nodes.c.os_name, nodes.c.os_version, nodes.c.architecture),
)
#: The families that clients know, by the kind of system that an inventory tells.
_FAMILIES = {"linux": "unix", "windows": "windows"}


def _from_node(row: Row[Any]) -> Resource:
    plain = {
        one.name: str(one.value)
        for one in property_rows.from_json(row.properties)
        if isinstance(one.value, str | int) and not is_own(one.name)
    }
    return Resource(
        row.hostname,
        hostname=row.hostname,
        username=plain.pop("ssh-user", ""),
        description=row.description,
        tags=frozenset(row.groups or ()),
        os_arch=row.architecture,
        os_family=_FAMILIES.get(row.os_type.lower(), row.os_type.lower()),
        os_name=row.os_name,
        os_version=row.os_version,
        attributes={**plain, "node-id": row.id},
        node=NodeId(row.id),
    )


def _to_row(project: str, one: Resource) -> dict[str, Any]:
    return {
        "project": project,
        "name": one.name,
        "hostname": one.hostname,
        "username": one.username,
        "description": one.description,
        "tags": sorted(one.tags),
        "os_arch": one.os_arch,
        "os_family": one.os_family,
        "os_name": one.os_name,
        "os_version": one.os_version,
        "attributes": dict(one.attributes),
    }


def _from_row(row: Row[Any]) -> Resource:
    return Resource(
        row.name,
        hostname=row.hostname,
        username=row.username,
        description=row.description,
        tags=frozenset(row.tags),
        os_arch=row.os_arch,
        os_family=row.os_family,
        os_name=row.os_name,
        os_version=row.os_version,
        attributes=row.attributes,
    )
