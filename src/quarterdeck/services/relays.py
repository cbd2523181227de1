# SPDX-License-Identifier: Apache-2.0
"""What the server knows of the tree of policy servers, as lists of nodes: its own, and each relay's."""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.core import relays
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.formats import nodes_list
from quarterdeck.relaying.nodes_list import Listing
from quarterdeck.services.context import Context


def listing(ctx: Context) -> Listing:
    """The root's own list: every accepted node at any depth, itself too, with the keys that are known."""
    nodes, keys = _known(ctx)
    return Listing(topology=Topology(ROOT, nodes), keys=keys)


def listing_below(ctx: Context, relay: NodeId) -> Listing:
    """The list that a relay gets: every accepted node below it at any depth, with their keys."""
    nodes, keys = _known(ctx)
    mine = relays.below(relay, nodes)
    return Listing(topology=Topology(relay, mine), keys={node: some for node, some in keys.items() if node in mine})


def _known(ctx: Context) -> tuple[dict[NodeId, ListedNode], Mapping[NodeId, tuple[str, ...]]]:
    nodes: dict[NodeId, ListedNode] = {}
    keys: dict[NodeId, tuple[str, ...]] = {}
    for row in ctx.store.relays.listed():
        nodes[row.node] = ListedNode(row.hostname, row.policy_server, nodes_list.hash_of(row.key_pem))
        if row.key_pem:
            keys[row.node] = (row.key_pem,)
    return nodes, keys
