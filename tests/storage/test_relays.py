# SPDX-License-Identifier: Apache-2.0
"""What nodes lists are made of: every accepted node as it is now, though keys that are known are not read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy

from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node, NodeKind, NodeStatus
from quarterdeck.storage.database import Database, Provenance, Store

US = Provenance(actor="Ann")


def node(number: int, pem: str = "") -> Node:
    return Node(
        id=NodeId(f"11111111-aaaa-4444-8888-{number:012d}"),
        hostname=f"node{number}.example.com",
        key=AgentKey(pem=pem or f"key {number}", status=KeyStatus.CERTIFIED),
    )


@pytest.fixture
def database(fresh_postgres_url: str) -> Iterator[Database]:
    database = Database(fresh_postgres_url, pool_size=2)
    with database.unit_of_work(US) as store:
        for number in range(4):
            store.nodes.add(node(number))
        store.commit()
    yield database
    database.close()


def keys(store: Store) -> dict[str, str]:
    return {row.hostname.partition(".")[0]: row.key_pem for row in store.relays.listed() if row.node != ROOT}


def keys_in(database: Database) -> dict[str, str]:
    with database.unit_of_work(US) as store:
        return keys(store)


def test_a_list_has_each_key_as_it_is_now(database: Database) -> None:
    assert keys_in(database) == {f"node{number}": f"key {number}" for number in range(4)}

    with database.unit_of_work(US) as store:
        store.nodes.replace(node(1, "another key"))
        store.nodes.replace(replace(node(2), hostname="other2.example.com"))
        store.nodes.bury(node(3))
        store.nodes.add(node(4))
        store.commit()

    expected = {"node0": "key 0", "node1": "another key", "other2": "key 2", "node4": "key 4"}
    assert keys_in(database) == keys_in(database) == expected


def test_a_node_that_comes_back_with_another_key_has_that_one(database: Database) -> None:
    keys_in(database)
    for pem in ("second", "third"):
        with database.unit_of_work(US) as store:
            store.nodes.remove(node(1).id)
            store.nodes.add(node(1, pem))
            store.commit()

        assert keys_in(database)["node1"] == pem


def test_a_change_that_is_undone_leaves_nothing_in_later_lists(database: Database) -> None:
    keys_in(database)
    with database.unit_of_work(US) as store:
        store.nodes.replace(node(1, "not to be"))
        assert keys(store)["node1"] == "not to be"

    assert keys_in(database)["node1"] == "key 1"


def test_keys_that_are_known_are_not_read_again(database: Database) -> None:
    read: list[int] = []

    @sqlalchemy.event.listens_for(database.engine, "after_cursor_execute")
    def note(_connection: object, cursor: object, statement: str, *_: object) -> None:
        if "key_pem" in statement and statement.startswith("SELECT"):
            read.append(getattr(cursor, "rowcount", -1))

    keys_in(database)
    first = len(keys_in(database))
    with database.unit_of_work(US) as store:
        store.nodes.replace(node(1, "another key"))
        store.commit()
    before_change = read.copy()
    read.clear()
    keys_in(database)

    assert first == 4
    assert len(before_change) == 2  # the first list, and the change itself
    assert read == [1]


def test_only_accepted_nodes_are_listed_with_what_they_are(database: Database) -> None:
    with database.unit_of_work(US) as store:
        store.nodes.set_by_administrator(replace(node(1), kind=NodeKind.RELAY))
        store.nodes.add(replace(node(5), status=NodeStatus.PENDING))
        store.commit()

    with database.unit_of_work(US) as store:
        kinds = {row.hostname.partition(".")[0]: row.kind for row in store.relays.listed()}

    assert "node5" not in kinds
    assert [kinds[f"node{number}"] for number in range(4)] == [
        NodeKind.NODE,
        NodeKind.RELAY,
        NodeKind.NODE,
        NodeKind.NODE,
    ]
