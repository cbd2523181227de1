# SPDX-License-Identifier: Apache-2.0
"""The tree of policy servers as one of them sees it: who is served here, and over which relay the others are reached.

A node's policy server is the relay (or the root) that serves it. *Neighbours* are the nodes served by this one;
*sub-relays* are neighbours that serve nodes themselves. Everything is worked out once, when a list is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from quarterdeck.core.ids import ROOT, NodeId

#: More levels than this are a mistake, or a loop.
MAX_LEVELS = 20


class KeyHash(NamedTuple):
    """A digest of a node's public key (DER, SubjectPublicKeyInfo); `algorithm` is sha256 or sha512."""

    algorithm: str
    digest: bytes


class ListedNode(NamedTuple):
    """One line of a nodes list; no key hash where no key is known."""

    hostname: str
    policy_server: NodeId
    key_hash: KeyHash | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Nodes by the way to them: served here, or behind a neighbouring relay; the others cannot be reached."""

    here: tuple[NodeId, ...] = ()
    behind: Mapping[NodeId, tuple[NodeId, ...]] = field(default_factory=dict)
    unknown: tuple[NodeId, ...] = ()


class Topology:
    """The tree below `me`, whose list has every node below it at any depth; the root lists itself, a relay does not."""

    def __init__(self, me: NodeId, nodes: Mapping[NodeId, ListedNode]) -> None:
        self.me = me
        self.nodes = nodes
        self.neighbours = frozenset(one for one, node in nodes.items() if node.policy_server == me)
        self._hops = _hops(self.neighbours, nodes)
        self.sub_relays = frozenset(
            node.policy_server
            for node in nodes.values()
            if node.policy_server in self.neighbours and node.policy_server != me
        )

    def __contains__(self, node: str) -> bool:
        return node in self.nodes

    def next_hop(self, node: NodeId) -> NodeId | None:
        """The neighbouring relay that leads to a node; None when it is served here, unknown, or not below us."""
        return self._hops.get(node)

    def split(self, wanted: Iterable[NodeId]) -> Split:
        """These nodes by the way to them, in the order asked for."""
        here: list[NodeId] = []
        behind: dict[NodeId, list[NodeId]] = {}
        unknown: list[NodeId] = []
        for node in dict.fromkeys(wanted):
            if node in self.neighbours:
                here.append(node)
            elif (hop := self._hops.get(node)) is not None:
                behind.setdefault(hop, []).append(node)
            else:
                unknown.append(node)
        return Split(
            here=tuple(here), behind={hop: tuple(some) for hop, some in behind.items()}, unknown=tuple(unknown)
        )

    def split_all(self) -> Split:
        """Everybody: neighbours here, and each neighbouring relay with all that is behind it; never this one itself."""
        behind: dict[NodeId, list[NodeId]] = {relay: [] for relay in sorted(self.sub_relays)}
        for node, hop in self._hops.items():
            behind[hop].append(node)
        return Split(here=tuple(sorted(self.neighbours)), behind={hop: tuple(some) for hop, some in behind.items()})


def below(relay: NodeId, nodes: Mapping[NodeId, ListedNode]) -> dict[NodeId, ListedNode]:
    """The part of a list that a relay gets: every node below it at any depth, and not itself; the root gets itself."""
    others = {one: node for one, node in nodes.items() if one != relay or relay == ROOT}
    topology = Topology(relay, others)
    return {
        one: node for one, node in others.items() if one in topology.neighbours or topology.next_hop(one) is not None
    }


def _hops(neighbours: frozenset[NodeId], nodes: Mapping[NodeId, ListedNode]) -> dict[NodeId, NodeId]:
    """The neighbour above each node that is no neighbour itself. Nodes in a loop, or too deep, have none."""
    found: dict[NodeId, tuple[NodeId | None, int]] = {}
    for start in nodes:
        climbed: dict[NodeId, None] = {}
        at = start
        while at in nodes and at not in neighbours and at not in found and at not in climbed:
            climbed[at] = None
            at = nodes[at].policy_server
        # What led nowhere, or into a loop, has no neighbour above it.
        hop, level = (at, 0) if at in neighbours else found.get(at, (None, 0))
        for node in reversed(climbed):
            level += 1
            found[node] = (hop if level <= MAX_LEVELS else None, level)
    return {node: hop for node, (hop, _) in found.items() if hop is not None}
