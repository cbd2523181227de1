# SPDX-License-Identifier: Apache-2.0
"""Relays as people look at them: who is behind which, when each was heard of, and what waits there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import ListedNode
from quarterdeck.formats import nodes_list
from quarterdeck.formats.relay_states import State
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.nodes_list import Listing
from quarterdeck.services import relays
from quarterdeck.services.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRelay:
    """A relay. `nodes` it serves itself, `below` all at any depth; None where it was never heard of.

    `pin` and `address` are empty where they are not known.
    """

    id: NodeId
    hostname: str
    policy_server: NodeId
    nodes: int
    below: int
    pin: str
    address: str = ""
    heard_at: datetime | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNode:
    """A node that a relay serves; it may be a relay itself."""

    id: NodeId
    hostname: str
    relay: bool


def listed(ctx: Context, addresses: Addresses | None) -> list[ShownRelay]:
    """Every relay at any depth, each behind the one it is behind."""
    return _listed(relays.listing(ctx), addresses)


def _listed(listing: Listing, addresses: Addresses | None) -> list[ShownRelay]:
    nodes = listing.topology.nodes
    serves = Counter(node.policy_server for node in nodes.values())
    below = _below(listing)
    ordered = sorted(listing.relays, key=lambda relay: _path(relay, nodes))
    return [_shown(relay, listing, serves[relay], below[relay], addresses) for relay in ordered]


def get(ctx: Context, addresses: Addresses | None, relay: str) -> tuple[ShownRelay, list[ServedNode]]:
    """One relay and the nodes that it serves, sorted by hostname. Raises NotFound."""
    listing = relays.listing(ctx)
    found = next((one for one in _listed(listing, addresses) if one.id == relay), None)
    if found is None:
        raise NotFound(f"There is no relay {relay}.")
    served = (
        ServedNode(id=one, hostname=node.hostname, relay=one in listing.relays)
        for one, node in listing.topology.nodes.items()
        if node.policy_server == relay
    )
    return found, sorted(served, key=lambda node: (node.hostname, node.id))


def _shown(relay: NodeId, listing: Listing, nodes: int, below: int, addresses: Addresses | None) -> ShownRelay:
    listed_node = listing.topology.nodes[relay]
    contact, address = None, None
    if addresses is not None:
        contact = addresses.contacts.of(relay, listing.topology.next_hop(relay))
        address = contact.address if contact is not None else None
        if listed_node.policy_server == ROOT:
            address = addresses.of(relay)
    return ShownRelay(
        id=relay,
        hostname=listed_node.hostname,
        policy_server=listed_node.policy_server,
        nodes=nodes,
        below=below,
        pin=nodes_list.notation(listed_node.key_hash) if listed_node.key_hash is not None else "",
        address=address or "",
        heard_at=datetime.fromtimestamp(contact.at, UTC) if contact is not None else None,
        state=contact.state if contact is not None else None,
    )


def _below(listing: Listing) -> Counter[NodeId]:
    """How many nodes are below each relay, at any depth."""
    nodes = listing.topology.nodes
    found: Counter[NodeId] = Counter()
    for node in nodes:
        found.update(_path(node, nodes)[:-1])
    return found


def _path(node: NodeId, nodes: Mapping[NodeId, ListedNode]) -> tuple[NodeId, ...]:
    """The relays from the root down to a node, and the node."""
    path: dict[NodeId, None] = {node: None}
    at = node
    while at in nodes and nodes[at].policy_server not in (ROOT, *path):
        at = nodes[at].policy_server
        path[at] = None
    return tuple(reversed(path))
