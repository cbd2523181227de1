# SPDX-License-Identifier: Apache-2.0
"""The fleet as policy generation reads it: plain rows of many nodes at once, all of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import aggregate_order_by

from quarterdeck.core.ids import GroupId, NodeId
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_nodes = tables.nodes
_members = tables.group_members
_accepted = _nodes.c.status == "accepted"


class FleetReader:
    def __init__(self, store: Store) -> None:
        self._store = store

    def freeze(self) -> None:
        """Let every later statement of this unit of work see one moment. Must be its first statement."""
        self._store.run(sqlalchemy.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))

    def nodes(self, only: Sequence[str] | None) -> Sequence[Row[Any]]:
        """Accepted nodes, or those among `only`, sorted by id: what generation needs of them."""
        columns = ("id", "hostname", "kind", "state", "mode", "policy_server", "schedule", "properties")
        query = sqlalchemy.select(*(_nodes.c[name] for name in columns)).where(_accepted).order_by(_nodes.c.id)
        return self._store.rows(query if only is None else query.where(_nodes.c.id.in_(list(only))))

    def memberships(self, only: Sequence[str] | None) -> dict[NodeId, tuple[GroupId, ...]]:
        """The groups of each node that is in any, sorted; equal tuples are one object."""
        groups = sqlalchemy.func.array_agg(aggregate_order_by(_members.c.group_id, _members.c.group_id))
        query = sqlalchemy.select(_members.c.node_id, groups.label("groups")).group_by(_members.c.node_id)
        if only is not None:
            query = query.where(_members.c.node_id.in_(list(only)))
        shared: dict[tuple[GroupId, ...], tuple[GroupId, ...]] = {}
        found = {}
        for row in self._store.rows(query):
            some = tuple(row.groups)
            found[NodeId(row.node_id)] = shared.setdefault(some, some)
        return found

    def members_of(self, groups: Iterable[str]) -> dict[GroupId, set[NodeId]]:
        """The members of these groups; groups without any are left out."""
        query = sqlalchemy.select(_members.c.group_id, _members.c.node_id)
        found: dict[GroupId, set[NodeId]] = {}
        for row in self._store.rows(query.where(_members.c.group_id.in_(list(groups)))):
            found.setdefault(GroupId(row.group_id), set()).add(NodeId(row.node_id))
        return found

    def servers(self) -> dict[NodeId, str]:
        """The host names of accepted policy servers."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.hostname).where(_accepted, _nodes.c.kind != "node")
        return {NodeId(row.id): row.hostname for row in self._store.rows(query)}
