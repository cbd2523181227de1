# SPDX-License-Identifier: Apache-2.0
"""The tree of policy servers as the nodes' rows tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeKind, NodeStatus
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_nodes = tables.nodes
_KINDS = {kind.value: kind for kind in NodeKind}


class ListedRow(NamedTuple):
    """What a nodes list is made of; `key_pem` is empty where no key is known."""

    node: NodeId
    hostname: str
    policy_server: NodeId
    key_pem: str
    kind: NodeKind = NodeKind.NODE


class KnownKeys:
    """The keys of nodes as they were read last, which are nearly all of what is read for a list. Safe for threads.

    One for each database. A version of a node's row never comes twice, so what was read with it stays right.
    """

    def __init__(self) -> None:
        #: version and key (PEM) by node; replaced, never changed
        self.present: Mapping[str, tuple[int, str]] = {}


class RelayTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def listed(self) -> list[ListedRow]:
        """Every accepted node."""
        query = sqlalchemy.select(
            _nodes.c.id, _nodes.c.hostname, _nodes.c.policy_server, _nodes.c.kind, _nodes.c.version
        )
        rows = [tuple(row) for row in self._store.rows(query.where(_nodes.c.status == NodeStatus.ACCEPTED.value))]
        keys = self._keys([(node, version) for node, _, _, _, version in rows])
        return [
            ListedRow(NodeId(node), hostname, NodeId(policy_server), keys[node][1], _KINDS[kind])
            for node, hostname, policy_server, kind, _ in rows
            if node in keys  # else it went away between the two queries
        ]

    def _keys(self, nodes: Sequence[tuple[str, int]]) -> Mapping[str, tuple[int, str]]:
        """The keys of nodes, with the versions of their rows. Only what is not known is read."""
        known = self._store.known_keys
        before, keys, missing = known.present, dict[str, tuple[int, str]](), list[str]()
        for node, version in nodes:
            key = before.get(node)
            if key is not None and key[0] == version:
                keys[node] = key
            else:
                missing.append(node)
        if missing:
            query = sqlalchemy.select(_nodes.c.id, _nodes.c.version, _nodes.c.key_pem)
            of_these = _nodes.c.id == sqlalchemy.any_(sqlalchemy.literal(missing, ARRAY(Text)))
            keys |= {row.id: (row.version, row.key_pem) for row in self._store.rows(query.where(of_these))}
        known.present = keys
        return keys

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
