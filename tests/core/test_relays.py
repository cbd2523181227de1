# SPDX-License-Identifier: Apache-2.0
"""The tree of policy servers: who is served here, and over which relay the others are reached."""

from __future__ import annotations

from quarterdeck.core import relays
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import MAX_LEVELS, ListedNode, Topology

ROOT = NodeId("root")


def tree(**servers: str) -> dict[NodeId, ListedNode]:
    """Nodes by their policy server."""
    return {NodeId(node): ListedNode(f"{node}.example.com", NodeId(server)) for node, server in servers.items()}


#: root serves n0 and r1; r1 serves n1 and r2; r2 serves n2; r3 serves nobody.
DEEP = tree(root="root", n0="root", r1="root", r3="root", n1="r1", r2="r1", n2="r2")


def test_the_root_is_its_own_neighbour() -> None:
    topology = Topology(ROOT, DEEP)

    assert topology.neighbours == {"root", "n0", "r1", "r3"}
    assert topology.sub_relays == {"r1"}
    assert [topology.next_hop(NodeId(node)) for node in ("n0", "n1", "r2", "n2", "ghost")] == [
        None,
        "r1",
        "r1",
        "r1",
        None,
    ]


def test_a_relay_sees_what_is_below_it() -> None:
    mine = relays.below(NodeId("r1"), DEEP)
    topology = Topology(NodeId("r1"), mine)

    assert set(mine) == {"n1", "r2", "n2"}
    assert topology.neighbours == {"n1", "r2"}
    assert topology.sub_relays == {"r2"}
    assert topology.next_hop(NodeId("n2")) == "r2"
    assert set(relays.below(ROOT, DEEP)) == set(DEEP)


def test_targets_are_split_by_the_way_to_them() -> None:
    wanted = [NodeId(node) for node in ("n2", "root", "ghost", "n0", "n1", "n0")]

    split = Topology(ROOT, DEEP).split(wanted)

    assert split.here == ("root", "n0")
    assert split.behind == {"r1": ("n2", "n1")}
    assert split.unknown == ("ghost",)


def test_everybody_is_each_neighbour_and_each_populated_relay_once() -> None:
    split = Topology(ROOT, DEEP).split_all()

    assert split.here == ("n0", "r1", "r3", "root")
    assert {hop: set(nodes) for hop, nodes in split.behind.items()} == {"r1": {"n1", "r2", "n2"}}


def test_statement_40_a_loop_leads_nowhere() -> None:
    topology = Topology(ROOT, tree(root="root", a="b", b="a", c="b", lone="lone", orphan="nobody"))

    assert topology.neighbours == {"root"}
    assert topology.sub_relays == frozenset()
    assert [topology.next_hop(NodeId(node)) for node in ("a", "b", "c", "lone", "orphan")] == [None] * 5


def test_more_levels_than_twenty_are_given_up_in_whatever_order_they_are_listed() -> None:
    chain = {"r0": "root", **{f"r{level}": f"r{level - 1}" for level in range(1, MAX_LEVELS + 3)}}

    for servers in (chain, dict(reversed(chain.items()))):
        topology = Topology(ROOT, tree(root="root", **servers))

        assert topology.next_hop(NodeId(f"r{MAX_LEVELS}")) == "r0"
        assert topology.next_hop(NodeId(f"r{MAX_LEVELS + 1}")) is None
        assert topology.next_hop(NodeId(f"r{MAX_LEVELS + 2}")) is None
