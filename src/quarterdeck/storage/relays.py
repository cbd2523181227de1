# SPDX-License-Identifier: Apache-2.0
"""The tree of policy servers as the nodes' rows tell it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeKind, NodeStatus
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_nodes = tables.nodes


class ListedRow(NamedTuple):
    """What a nodes list is made of; `key_pem` is empty where no key is known."""

    node: NodeId
    hostname: str
    policy_server: NodeId
    key_pem: str
    kind: NodeKind = NodeKind.NODE


class RelayTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def listed(self) -> list[ListedRow]:
        """Every accepted node."""
        query = sqlalchemy.select(
            _nodes.c.id, _nodes.c.hostname, _nodes.c.policy_server, _nodes.c.key_pem, _nodes.c.kind
        )
        accepted = query.where(_nodes.c.status == NodeStatus.ACCEPTED.value)
        return [
            ListedRow(NodeId(row.id), row.hostname, NodeId(row.policy_server), row.key_pem, NodeKind(row.kind))
            for row in self._store.rows(accepted)
        ]

    def kind(self, node: str) -> NodeKind | None:
        """What an accepted node is; None when there is none of this id."""
        query = sqlalchemy.select(_nodes.c.kind).where(
            _nodes.c.id == node, _nodes.c.status == NodeStatus.ACCEPTED.value
        )
        row = self._store.run(query).first()
        return NodeKind(row.kind) if row is not None else None

    def policy_servers_of(self, nodes: Iterable[str]) -> dict[NodeId, NodeId]:
        """Who serves each of these accepted nodes."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.policy_server).where(
            _nodes.c.id.in_(list(nodes)), _nodes.c.status == NodeStatus.ACCEPTED.value
        )
        return {NodeId(row.id): NodeId(row.policy_server) for row in self._store.rows(query)}

    def served_by(self, server: str) -> int:
        """How many nodes, pending ones too, are served by this one."""
        query = sqlalchemy.select(sqlalchemy.func.count()).where(
            _nodes.c.policy_server == server, _nodes.c.status != NodeStatus.DELETED.value
        )
        return int(self._store.run(query).scalar_one())
