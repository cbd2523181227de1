# SPDX-License-Identifier: Apache-2.0
"""What checking an agent's request needs: the nodes' keys, and the nonces that came already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import KeyStatus, NodeStatus
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_nodes = tables.nodes
_nonces = tables.agent_nonces


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """The key that speaks for a node, PEM; empty when none is known."""

    pem: str
    key_status: KeyStatus
    status: NodeStatus


class AgentRequestTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, nodes: Iterable[str]) -> dict[NodeId, KnownKey]:
        """The keys of those of these nodes that exist and were not deleted."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.key_pem, _nodes.c.key_status, _nodes.c.status).where(
            _nodes.c.id.in_(list(nodes)), _nodes.c.status != NodeStatus.DELETED.value
        )
        return {
            NodeId(row.id): KnownKey(
                pem=row.key_pem, key_status=KeyStatus(row.key_status), status=NodeStatus(row.status)
            )
            for row in self._store.rows(query)
        }

    def claim_nonce(self, node: str, nonce: str) -> bool:
        """Remember a nonce; whether it is new."""
        statement = insert(_nonces).values(node_id=node, nonce=nonce, seen_at=self._store.now)
        return self._store.run(statement.on_conflict_do_nothing().returning(_nonces.c.nonce)).first() is not None

    def remember_nonces(self, nonces: Iterable[tuple[str, str, datetime]]) -> None:
        """Remember many at once: (node, nonce, seen at) each."""
        rows = [{"node_id": node, "nonce": nonce, "seen_at": at} for node, nonce, at in sorted(nonces)]
        if rows:
            self._store.run(insert(_nonces).on_conflict_do_nothing(), rows)

    def nonces_since(self, moment: datetime) -> list[tuple[str, str]]:
        """(node, nonce) of everything seen since a moment."""
        query = sqlalchemy.select(_nonces.c.node_id, _nonces.c.nonce).where(_nonces.c.seen_at >= moment)
        return [(row.node_id, row.nonce) for row in self._store.rows(query)]

    def forget_nonces(self, before: datetime) -> int:
        """Drop those whose time is no longer acceptable; how many."""
        return self._store.run(sqlalchemy.delete(_nonces).where(_nonces.c.seen_at < before)).rowcount
