# SPDX-License-Identifier: Apache-2.0
"""Nodes in the database: versions that never come twice, tombstones, software kept once, history of what people set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Inventory
from quarterdeck.core.nodes import Node, NodeState, NodeStatus
from quarterdeck.storage.database import Database, Provenance, Store

BASH = {"name": "bash", "version": "5.2", "editor": "Debian"}
VIM = {"name": "vim", "version": "9.0"}
NODE = Node(
    id=NodeId("11111111-aaaa-4444-8888-000000000001"),
    hostname="node1.example.com",
    inventory=Inventory(lists={"software": (BASH,), "processes": ({"pid": 1},)}, accounts=("root",)),
)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    """A unit of work that nobody commits."""
    database = Database(postgres_url, pool_size=1)
    with database.unit_of_work(Provenance(actor="Ann", reason="because")) as store:
        yield store
    database.close()


def version(store: Store, node: str = NODE.id) -> int:
    stamp = store.nodes.stamp(node)
    assert stamp is not None
    return stamp.version


def test_a_node_comes_back_as_it_was_kept(store: Store) -> None:
    store.nodes.add(NODE)

    assert store.nodes.get(NODE.id) == NODE


@pytest.mark.parametrize(
    "after",
    [
        replace(NODE, state=NodeState.IGNORED),
        replace(NODE, inventory=replace(NODE.inventory, ram=1)),
        replace(NODE, inventory=replace(NODE.inventory, lists={**NODE.inventory.lists, "software": (BASH, VIM)})),
    ],
    ids=["state", "inventory", "software"],
)
def test_every_change_gives_a_new_version(after: Node, store: Store) -> None:
    store.nodes.add(NODE)
    before = version(store)

    store.nodes.replace(after)

    assert version(store) != before
    assert store.nodes.get(NODE.id) == after


def test_a_change_of_nothing_keeps_the_version(store: Store) -> None:
    store.nodes.add(NODE)
    before = version(store)

    store.nodes.replace(NODE)
    store.nodes.set_by_administrator(NODE)

    assert version(store) == before


def test_a_node_that_comes_back_has_no_version_it_had_before(store: Store) -> None:
    store.nodes.add(NODE)
    first = version(store)
    store.nodes.remove(NODE.id)

    store.nodes.add(NODE)

    assert version(store) != first


def test_what_administrators_set_leaves_the_inventory_alone(store: Store) -> None:
    store.nodes.add(NODE)

    store.nodes.set_by_administrator(replace(NODE, state=NodeState.IGNORED, inventory=Inventory()))

    assert store.nodes.get(NODE.id) == replace(NODE, state=NodeState.IGNORED)


def test_history_keeps_what_people_set_and_not_what_inventories_say(store: Store) -> None:
    store.nodes.add(NODE)
    store.nodes.replace(replace(NODE, inventory=replace(NODE.inventory, ram=1)))
    store.nodes.set_by_administrator(replace(NODE, state=NodeState.IGNORED))

    changes = store.history.of("node", NODE.id)

    assert [(one.change, one.after["state"], one.actor, one.reason) for one in changes] == [
        ("created", "enabled", "Ann", "because"),
        ("modified", "ignored", "Ann", "because"),
    ]
    assert "ram" not in changes[0].after


def test_a_tombstone_keeps_the_inventory_and_nothing_that_hangs_on_the_node(store: Store) -> None:
    store.nodes.add(NODE)
    store.nodes.touch(NODE.id)
    before = version(store)

    store.nodes.bury(NODE)

    assert store.nodes.get(NODE.id) == replace(NODE, status=NodeStatus.DELETED)
    assert store.nodes.run_status([NODE.id]) == {}
    assert version(store) != before
    assert store.history.of("node", NODE.id)[-1].change == "deleted"


def test_a_slim_load_leaves_out_the_bulk(store: Store) -> None:
    store.nodes.add(NODE)

    [(slim, _)] = store.nodes.load([NODE.id], with_bulk=False, with_software=False)
    [(whole, number)] = store.nodes.load([NODE.id], with_bulk=True, with_software=True)

    assert slim == replace(NODE, inventory=Inventory())
    assert (whole, number) == (NODE, version(store))


def test_software_of_many_nodes_is_kept_once(store: Store) -> None:
    other = replace(NODE, id=NodeId("11111111-aaaa-4444-8888-000000000002"), hostname="other")
    store.nodes.add(NODE)
    store.nodes.add(other)

    assert store.nodes.set_software(other.id, [BASH]) is False
    assert store.nodes.set_software(other.id, [VIM]) is True
    assert store.nodes.software([NODE.id, other.id]) == {NODE.id: (BASH,), other.id: (VIM,)}
