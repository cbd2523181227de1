# SPDX-License-Identifier: Apache-2.0
"""What relays may fetch and bring, for whom, and through whom a node came: from outside, with forged and foreign keys."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from tests import agents
from tests.agents import Agent, give_policy, report
from tests.dialects.native.conftest import Native

from quarterdeck.core.ids import ROOT
from quarterdeck.core.nodes import NodeKind, NodeStatus
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import NodesDocument, Slip, Taken
from quarterdeck.services import reports

RELAY = Agent(hostname="relay.example.com", key_number=1)
INNER = Agent(hostname="inner.example.com", key_number=2)
NEAR = Agent(hostname="near.example.com", key_number=3)
DEEP = Agent(hostname="deep.example.com", key_number=4)
ELSEWHERE = Agent(hostname="elsewhere.example.com", key_number=5)
LOOP = Agent(hostname="loop.example.com", key_number=6)
LOOP_TOO = Agent(hostname="loop-too.example.com", key_number=7)


@pytest.fixture
def tree(native: Native) -> Native:
    """root <- RELAY <- INNER <- DEEP, RELAY <- NEAR, root <- ELSEWHERE, and two nodes that serve each other."""
    add(native, RELAY, kind=NodeKind.RELAY)
    add(native, INNER, kind=NodeKind.RELAY, policy_server=RELAY.node)
    add(native, NEAR, policy_server=RELAY.node)
    add(native, DEEP, policy_server=INNER.node)
    add(native, ELSEWHERE)
    add(native, LOOP, policy_server=LOOP_TOO.node)
    add(native, LOOP_TOO, policy_server=LOOP.node)
    return native


def add(native: Native, one: Agent, **changes: Any) -> None:
    with native.unit_of_work() as ctx:
        ctx.store.nodes.add(replace(one.as_node(), **changes))


def get(native: Native, one: Agent, path: str, tag: str = "") -> httpx.Response:
    return native.client.get(path, headers=one.headers("GET", path) | ({"If-None-Match": tag} if tag else {}))


def listed(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return set(msgspec.json.decode(answer.content, type=NodesDocument).nodes)


def deliver(native: Native, one: Agent, records: list[bytes]) -> httpx.Response:
    return native.post(one, relay_documents.PATH_PARCELS, relay_documents.pack_batch(records))


def carried(one: Agent, *, of: Agent | None = None, kind: Any = "report", at: float = 0.0) -> bytes:
    """A parcel that `one` signed, said to be of `of`."""
    payload = one.run([report()]) if kind == "report" else one.inventory()
    return relay_documents.pack_slip(Slip(kind, (of or one).node, at or time.time()), one.parcel(kind, payload))


# -- the list ------------------------------------------------------------------------------


def test_a_relay_gets_all_that_is_below_it_with_keys_and_nothing_else(tree: Native) -> None:
    answer = get(tree, RELAY, relay_documents.PATH_NODES)
    document = msgspec.json.decode(answer.content, type=NodesDocument)

    assert set(document.nodes) == {INNER.node, NEAR.node, DEEP.node}
    assert document.nodes[DEEP.node].policy_server == INNER.node
    assert document.nodes[DEEP.node].keys == (DEEP.certificate,)
    assert [one for one, entry in document.nodes.items() if entry.relay] == [INNER.node]
    assert (document.server.id, document.server.keys) == (ROOT, (tree.parts.signing_key.public_pem,))
    assert listed(get(tree, INNER, relay_documents.PATH_NODES)) == {DEEP.node}
    assert get(tree, RELAY, relay_documents.PATH_NODES, answer.headers["etag"]).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        relay_documents.PATH_NODES,
        relay_documents.PATH_POLICIES,
        relay_documents.PATH_TREE,
        f"{relay_documents.PATH_FILES}/0",
    ],
)
def test_who_is_no_relay_gets_nothing(tree: Native, path: str) -> None:
    thief = Agent(node=RELAY.node, key_number=9)
    waiting = Agent(key_number=8, hostname="waiting.example.com")
    add(tree, waiting, status=NodeStatus.PENDING, kind=NodeKind.RELAY)

    answers = [get(tree, one, path) for one in (NEAR, thief, waiting, Agent(key_number=8))]

    assert [answer.status_code for answer in answers] == [403, 401, 404, 404]
    assert tree.client.get(path).status_code == 401


# -- policies ------------------------------------------------------------------------------


def test_a_relay_gets_the_signed_policies_of_nodes_below_it_only(tree: Native) -> None:
    with tree.unit_of_work() as ctx:
        give_policy(ctx, [DEEP.node, ELSEWHERE.node, LOOP.node], [])
    own = tree.policy(DEEP)

    found = get(tree, RELAY, f"{relay_documents.PATH_POLICIES}/{DEEP.node}")

    assert (found.status_code, found.content) == (200, own.content)
    assert found.headers[agent.HEADER_SIGNATURE] == own.headers[agent.HEADER_SIGNATURE]
    assert get(tree, RELAY, f"{relay_documents.PATH_POLICIES}/{DEEP.node}", found.headers["etag"]).status_code == 304
    assert get(tree, INNER, f"{relay_documents.PATH_POLICIES}/{DEEP.node}").status_code == 200
    for foreign in (ELSEWHERE.node, LOOP.node, RELAY.node, ROOT, "nobody"):
        assert get(tree, RELAY, f"{relay_documents.PATH_POLICIES}/{foreign}").status_code == 404, foreign
    assert set(get(tree, RELAY, relay_documents.PATH_POLICIES).json()) == {DEEP.node}


# -- parcels -------------------------------------------------------------------------------


def test_what_a_relay_brings_is_verified_one_by_one(tree: Native) -> None:
    records = [
        carried(NEAR),
        carried(ELSEWHERE),
        carried(NEAR, of=DEEP),
        b"no slip\nat all",
        carried(DEEP, at=time.time() + 10**6),
        carried(Agent(node=DEEP.node, key_number=9)),
        carried(DEEP, kind="inventory"),
        carried(Agent(node="../../../../etc/passwd")),
        carried(Agent(node="nobody\0")),
    ]

    answer = deliver(tree, RELAY, records)

    assert answer.status_code == 202, answer.text
    refused = {one.position: one.kind for one in msgspec.json.decode(answer.content, type=Taken).refused}
    assert refused == {1: "invalid", 2: "error", 3: "error", 5: "error", 7: "invalid", 8: "invalid"}
    slips = [reports.unpack(record)[0] for record in tree.spooled()]
    assert [slip.node for slip in slips] == [NEAR.node, DEEP.node]
    assert all(slip.at <= time.time() for slip in slips)
    with tree.unit_of_work() as ctx:
        assert ctx.store.nodes.get(DEEP.node).inventory_date is not None
        assert ctx.store.nodes.get(DEEP.node).policy_server == INNER.node


def test_run_logs_of_genuine_agents_come_in_numbers_each_by_its_name(tree: Native) -> None:
    def record(node: str, file: str = "", at: float = 5.0) -> bytes:
        name = file or f"2026-01-31T12:00:00+00:00@{node}.log.gz"
        return relay_documents.pack_slip(Slip("run-log", node, at, name), b"signed by " + node.encode())

    records = [
        record(NEAR.node),
        record(ELSEWHERE.node),
        record(NEAR.node, f"2026-01-31T12:00:00+00:00@{DEEP.node}.log.gz"),
        record(NEAR.node, f"../2026-01-31T12:00:00+00:00@{NEAR.node}.log"),
        record(NEAR.node, f"2026-01-31T12:00:00+00:00@{NEAR.node}.txt"),
        record(DEEP.node, at=time.time() + 10**6),
        carried(NEAR),
    ]

    answer = deliver(tree, RELAY, records)

    assert answer.status_code == 202, answer.text
    refused = {one.position: one.kind for one in msgspec.json.decode(answer.content, type=Taken).refused}
    assert refused == {1: "invalid", 2: "error", 3: "error", 4: "error"}
    spooled = [reports.unpack(record) for record in tree.spooled()]
    assert [(slip.node, slip.file[-7:], content[:10]) for slip, content in spooled[:2]] == [
        (NEAR.node, ".log.gz", b"signed by "),
        (DEEP.node, ".log.gz", b"signed by "),
    ]
    assert (spooled[2][0].node, spooled[2][0].file) == (NEAR.node, "")
    assert all(slip.at <= time.time() for slip, _ in spooled)


def test_an_inventory_that_the_database_cannot_hold_does_not_block_the_others(tree: Native) -> None:
    poison = NEAR.inventory(ram=10**30, architecture="nul \0 byte", environment={"A": "\0"})
    slip = Slip("inventory", NEAR.node, time.time())
    records = [
        relay_documents.pack_slip(slip, NEAR.parcel("inventory", poison)),
        carried(DEEP, kind="inventory"),
        carried(NEAR),
    ]

    answer = deliver(tree, RELAY, records)

    assert answer.status_code == 202, answer.text
    assert [one.position for one in msgspec.json.decode(answer.content, type=Taken).refused] == [0]
    assert len(tree.spooled()) == 1
    with tree.unit_of_work() as ctx:
        assert ctx.store.nodes.get(DEEP.node).inventory_date is not None
        assert ctx.store.nodes.get(NEAR.node).inventory_date is None


def test_parcels_of_who_is_no_relay_are_refused_and_not_kept(tree: Native) -> None:
    assert deliver(tree, NEAR, [carried(NEAR)]).status_code == 403
    assert tree.post(RELAY, relay_documents.PATH_PARCELS, b"no batch").status_code == 400
    assert tree.spooled() == []


# -- through whom a node came --------------------------------------------------------------


def voucher(relay: Agent, headers: dict[str, str], *, key: Agent | None = None, seconds: int = 0) -> dict[str, str]:
    """A node's headers with the voucher of a relay."""
    moment, nonce = str(int(time.time()) + seconds), os.urandom(16).hex()
    message = relay_documents.voucher_message(relay.node, moment, nonce, headers[agent.HEADER_SIGNATURE])
    signed = agents.sign((key or relay).key, message)
    return headers | {
        relay_documents.HEADER_VOUCHER: relay_documents.written_voucher(relay.node, moment, nonce, signed)
    }


def test_a_node_that_came_through_a_relay_is_served_by_it_until_it_enrols_elsewhere(tree: Native) -> None:
    one, token = Agent(hostname="new.example.com"), tree.enrolment_token(accept=True)
    body = agent.canonical(one.enrolment(token))

    answer = tree.post(one, agent.PATH_ENROLL, body, voucher(INNER, one.headers("POST", agent.PATH_ENROLL, body)))

    assert answer.json()["status"] == "accepted", answer.text
    assert server_of(tree, one) == INNER.node
    tree.post(one, agent.PATH_INVENTORIES, one.parcel("inventory", one.inventory()))
    assert server_of(tree, one) == INNER.node
    tree.enroll(one, token)
    assert server_of(tree, one) == ROOT


def server_of(native: Native, one: Agent) -> str:
    with native.unit_of_work() as ctx:
        return ctx.store.nodes.get(one.node).policy_server


def test_nobody_can_vouch_but_a_relay_for_this_very_request(tree: Native) -> None:
    one, token = Agent(hostname="new.example.com"), tree.enrolment_token(accept=True)
    body = agent.canonical(one.enrolment(token))

    def answers(vouching: dict[str, str]) -> int:
        return tree.post(one, agent.PATH_ENROLL, body, vouching).status_code

    def headers() -> dict[str, str]:
        return one.headers("POST", agent.PATH_ENROLL, body)

    of_another = voucher(INNER, headers())[relay_documents.HEADER_VOUCHER]
    refused = tree.post(one, agent.PATH_ENROLL, body, voucher(NEAR, headers()))
    assert refused.status_code == 403
    assert f"The relay {NEAR.node} may carry nothing to the server" in refused.text
    assert answers(voucher(INNER, headers(), key=NEAR)) == 401
    assert answers(voucher(INNER, headers(), seconds=-4000)) == 401
    assert answers(headers() | {relay_documents.HEADER_VOUCHER: of_another}) == 401
    assert answers(headers() | {relay_documents.HEADER_VOUCHER: "nonsense"}) == 400
    with tree.unit_of_work() as ctx:
        assert ctx.store.nodes.find(one.node) is None
