# SPDX-License-Identifier: Apache-2.0
"""Relays as administrators see them: what relays said when they asked, and only what they may say."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.agents import Agent
from tests.dialects.native.conftest import Native

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeKind, NodeStatus
from quarterdeck.formats import relay_documents, relay_states
from quarterdeck.formats.relay_states import Below, State, Told
from quarterdeck.relaying.addresses import Addresses

RELAY = Agent(hostname="relay.example.com", key_number=1)
INNER = Agent(hostname="inner.example.com", key_number=2)
NEAR = Agent(hostname="near.example.com", key_number=3)
DEEP = Agent(hostname="deep.example.com", key_number=4)
OTHER = Agent(hostname="other.example.com", key_number=5)
WAITING = Agent(hostname="waiting.example.com", key_number=6)


@pytest.fixture
def tree(native: Native, tmp_path: Path) -> Native:
    """root <- RELAY <- INNER <- DEEP, RELAY <- NEAR, root <- OTHER (a relay); one that waits at RELAY."""
    native.parts.addresses = Addresses(tmp_path / "relays.json")
    with native.unit_of_work() as ctx:
        for one, kind, server in (
            (RELAY, NodeKind.RELAY, "root"),
            (INNER, NodeKind.RELAY, RELAY.node),
            (NEAR, NodeKind.NODE, RELAY.node),
            (DEEP, NodeKind.NODE, INNER.node),
            (OTHER, NodeKind.RELAY, "root"),
        ):
            ctx.store.nodes.add(replace(one.as_node(), kind=kind, policy_server=NodeId(server)))
        waiting = WAITING.as_node(status=NodeStatus.PENDING)
        ctx.store.nodes.add(replace(waiting, policy_server=NodeId(RELAY.node)))
    return native


def tell(native: Native, one: Agent, told: Told, address: str) -> None:
    """The relay asks for its nodes list."""
    headers = one.headers("GET", relay_documents.PATH_NODES) | {
        relay_documents.HEADER_ADDRESS: address,
        relay_documents.HEADER_STATE: relay_states.written(told),
    }
    assert native.client.get(relay_documents.PATH_NODES, headers=headers).status_code == 200


def listed(native: Native) -> list[dict[str, Any]]:
    answer = native.ask("GET", "/relays", "read")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def test_relays_are_told_with_their_nodes_and_keys_though_they_were_never_heard_of(tree: Native) -> None:
    found = {one["hostname"]: one for one in listed(tree)}

    assert {name: (one["policyServerId"], one["nodes"], one["nodesBelow"]) for name, one in found.items()} == {
        "relay.example.com": ("root", 2, 3),
        "inner.example.com": (RELAY.node, 1, 1),
        "other.example.com": ("root", 0, 0),
    }
    public = x509.load_pem_x509_certificate(RELAY.certificate.encode()).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert found["relay.example.com"]["pin"] == "sha256//" + base64.b64encode(hashlib.sha256(der).digest()).decode()
    unknown = ("address", "lastContact", "version", "waitingFiles", "waitingSeconds")
    assert {one[field] for one in found.values() for field in unknown} == {None}


def test_a_relay_below_another_comes_after_it(tree: Native) -> None:
    order = [one["id"] for one in listed(tree)]

    assert order.index(INNER.node) == order.index(RELAY.node) + 1


def test_what_relays_say_of_themselves_and_of_those_below_is_shown(tree: Native) -> None:
    inner = Below(State(version="1.1", waiting=2, oldest=30.0), 4.0, "https://inner:8443")
    tell(tree, RELAY, Told(State(version="1.2"), {INNER.node: inner}), "https://relay:8443")

    found = {one["hostname"]: one for one in listed(tree)}

    fields = ("address", "version", "waitingFiles", "waitingSeconds")
    assert [found["relay.example.com"][field] for field in fields] == ["https://relay:8443", "1.2", 0, 0.0]
    assert [found["inner.example.com"][field] for field in fields] == ["https://inner:8443", "1.1", 2, 30.0]
    assert found["inner.example.com"]["lastContact"] < found["relay.example.com"]["lastContact"]


def test_a_relay_says_nothing_of_relays_that_are_not_below_it(tree: Native) -> None:
    lie = Told(below={OTHER.node: Below(State(version="9"), 0.0, "https://elsewhere"), RELAY.node: Below(State(), 0.0)})
    tell(tree, RELAY, lie, "https://relay:8443")

    (other,) = [one for one in listed(tree) if one["id"] == OTHER.node]

    assert (other["lastContact"], other["address"], other["version"]) == (None, None, None)


def test_a_relay_that_says_nothing_was_still_heard_of(tree: Native) -> None:
    headers = RELAY.headers("GET", relay_documents.PATH_NODES) | {relay_documents.HEADER_ADDRESS: "https://relay"}
    tree.client.get(relay_documents.PATH_NODES, headers=headers)

    (found,) = [one for one in listed(tree) if one["id"] == RELAY.node]

    assert found["lastContact"] is not None
    assert found["waitingFiles"] is None


def test_one_relay_is_shown_with_the_nodes_that_it_serves(tree: Native) -> None:
    found = tree.ask("GET", f"/relays/{RELAY.node}", "read").json()

    assert found["served"] == [
        {"id": INNER.node, "hostname": "inner.example.com", "relay": True},
        {"id": NEAR.node, "hostname": "near.example.com", "relay": False},
    ]
    assert tree.ask("GET", f"/relays/{NEAR.node}", "read").status_code == 404
    assert tree.ask("GET", "/relays", "nobody").status_code == 401
