# SPDX-License-Identifier: Apache-2.0
"""The tree of policy servers as the nodes' rows tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
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


class RelayTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def listed(self) -> list[ListedRow]:
        """Every accepted node."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.hostname, _nodes.c.policy_server, _nodes.c.key_pem)
        accepted = query.where(_nodes.c.status == NodeStatus.ACCEPTED.value)
        return [
            ListedRow(NodeId(row.id), row.hostname, NodeId(row.policy_server), row.key_pem)
            for row in self._store.rows(accepted)
        ]
