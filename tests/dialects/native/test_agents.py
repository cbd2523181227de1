# SPDX-License-Identifier: Apache-2.0
"""The agent protocol from outside: who gets in, what they get, and what nobody gets."""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.agents import Agent, call, give_policy, item, report
from tests.dialects.native.conftest import Native

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import KeyStatus, NodeStatus
from quarterdeck.formats import agent, agent_file, inventory_json, signature
from quarterdeck.services import nodes


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal in the form that agents read."""
    document = answer.json()
    assert set(document) == {"code", "message", "server_time"}
    assert document["message"]
    return answer.status_code, document["code"]


# -- enrolment ----------------------------------------------------------------------


def test_a_machine_with_a_token_becomes_a_pending_node(native: Native) -> None:
    one = Agent()

    answer = native.enroll(one, native.enrolment_token())

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"status": "pending", "policy_key": native.parts.signing_key.public_pem}
    with native.unit_of_work() as ctx:
        node = ctx.store.nodes.get(one.node)
        assert (node.status, node.hostname, node.key.status) == (
            NodeStatus.PENDING,
            one.hostname,
            KeyStatus.CERTIFIED,
        )
        assert ctx.store.history.of("node", one.node)[0].actor == "enrolment token machines"


def test_a_token_that_accepts_lets_the_node_in_at_once(native: Native) -> None:
    one = Agent()

    assert native.enroll(one, native.enrolment_token(accept=True)).json()["status"] == "accepted"


def test_a_second_node_of_the_same_host_name_waits_for_an_administrator(native: Native) -> None:
    token = native.enrolment_token(accept=True)
    native.enroll(Agent(), token)

    assert native.enroll(Agent(), token).json()["status"] == "pending"


def test_enrolling_again_with_the_same_key_says_how_things_are_and_uses_up_nothing(native: Native) -> None:
    token, one = native.enrolment_token(uses=2), Agent()
    native.enroll(one, token)

    assert native.enroll(one, token).json()["status"] == "pending"
    assert native.enroll(Agent(hostname="web2.example.com"), token).status_code == 200
    assert refused(native.enroll(Agent(hostname="web3.example.com"), token)) == (403, "bad_token")


def test_another_key_for_a_known_node_is_refused_until_the_key_is_reset(native: Native) -> None:
    token, one = native.enrolment_token(), Agent()
    native.enroll(one, token)
    thief = Agent(node=one.node, key_number=1)

    assert refused(native.enroll(thief, token)) == (401, "bad_signature")

    with native.unit_of_work() as ctx:
        changes = nodes.NodeChanges(fields={}, key_status=KeyStatus.UNDEFINED)
        nodes.accept(ctx, [one.node])
        nodes.update(ctx, one.node, changes)
    assert native.enroll(thief, token).json()["status"] == "accepted"


def test_a_certificate_of_another_node_is_refused(native: Native) -> None:
    one, other = Agent(), Agent()
    document = {**one.enrolment(native.enrolment_token()), "certificate": other.certificate}

    assert refused(native.post(one, agent.PATH_ENROLL, agent.canonical(document))) == (400, "invalid")


def test_a_request_not_signed_with_the_certificate_s_key_is_refused(native: Native) -> None:
    one = Agent()
    stolen = {**one.enrolment(native.enrolment_token()), "certificate": one.certificate}
    other_key = Agent(node=one.node, key_number=1)

    assert refused(native.post(other_key, agent.PATH_ENROLL, agent.canonical(stolen))) == (401, "bad_signature")


@pytest.mark.parametrize("token", ["", "wrong", "x" * 32])
def test_a_wrong_token_opens_nothing(native: Native, token: str) -> None:
    native.enrolment_token()

    assert refused(native.enroll(Agent(), token)) == (403, "bad_token")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"node": 1}', b"\xff\xfe"])
def test_an_enrolment_that_is_no_enrolment_is_refused_as_invalid(native: Native, body: bytes) -> None:
    assert refused(native.post(Agent(), agent.PATH_ENROLL, body)) == (400, "invalid")


# -- the policy -----------------------------------------------------------------------


def test_a_node_gets_its_own_policy_signed(native: Native) -> None:
    one = Agent()
    native.add(one)
    with native.unit_of_work() as ctx:
        give_policy(ctx, [one.node], [item(call(1))], config_id="20261121-120000-0000000a")

    answer = native.policy(one)

    assert answer.status_code == 200, answer.text
    signed = base64.b64decode(answer.headers[agent.HEADER_SIGNATURE])
    message = agent.policy_message(one.node, answer.content)
    assert signature.verify(native.parts.signing_key.public_pem, message, signed)
    document = answer.json()
    assert (document["node"], document["config_id"]) == (one.node, "20261121-120000-0000000a")
    assert document["policies"] == [item(call(1))]
    assert answer.headers["ETag"] == '"20261121-120000-0000000a"'


def test_a_node_that_has_the_configuration_gets_nothing(native: Native) -> None:
    one = Agent()
    native.add(one)
    with native.unit_of_work() as ctx:
        give_policy(ctx, [one.node], [item(call(1))], config_id="20261121-120000-0000000a")

    assert native.policy(one, "20261121-120000-0000000a").status_code == 304
    assert native.policy(one, "20261121-110000-0000000b").status_code == 200


def test_a_signature_of_an_earlier_key_is_made_anew(native: Native) -> None:
    one = Agent()
    native.add(one)
    with native.unit_of_work() as ctx:
        give_policy(ctx, [one.node], [item(call(1))], config_id="20261121-120000-0000000a")
        ctx.store.policies.sign(one.node, "20261121-120000-0000000a", b"made with a key that is gone")

    first, second = native.policy(one), native.policy(one)

    signed = base64.b64decode(first.headers[agent.HEADER_SIGNATURE])
    message = agent.policy_message(one.node, first.content)
    assert signature.verify(native.parts.signing_key.public_pem, message, signed)
    assert second.headers[agent.HEADER_SIGNATURE] == first.headers[agent.HEADER_SIGNATURE]


def test_a_pending_node_gets_no_policy(native: Native) -> None:
    one = Agent()
    native.add(one, status=NodeStatus.PENDING)

    assert refused(native.policy(one)) == (404, "not_accepted")


def test_an_accepted_node_without_a_policy_yet_is_told_so(native: Native) -> None:
    one = Agent()
    native.add(one)

    assert refused(native.policy(one)) == (404, "not_accepted")


def test_a_node_that_nobody_knows_gets_no_policy(native: Native) -> None:
    assert refused(native.policy(Agent())) == (404, "unknown_node")


def test_a_node_cannot_ask_in_another_s_name(native: Native) -> None:
    one, other = Agent(), Agent(key_number=1, hostname="other.example.com")
    native.add(one)
    native.add(other)
    impostor = replace(other, node=one.node)

    assert refused(native.policy(impostor)) == (401, "bad_signature")


def test_a_request_that_came_before_is_refused(native: Native) -> None:
    one = Agent()
    native.add(one)
    headers = one.headers("GET", agent.PATH_POLICY)
    first = native.client.get(agent.PATH_POLICY, headers=headers)

    again = native.client.get(agent.PATH_POLICY, headers=headers)

    assert refused(first) == (404, "not_accepted")
    assert refused(again) == (401, "bad_signature")


@pytest.mark.parametrize("ahead", [-301, 301, 86400])
def test_a_wrong_clock_is_told_the_right_time(native: Native, ahead: int) -> None:
    one = Agent(ahead=ahead + (2 if ahead > 0 else -2))
    native.add(one)

    answer = native.policy(one)

    assert refused(answer) == (401, "clock_skew")
    corrected = replace(one, ahead=0)
    assert abs(answer.json()["server_time"] - int(corrected.headers("GET", "/")[agent.HEADER_TIME])) <= 2


@pytest.mark.parametrize("ahead", [-290, 290])
def test_a_clock_that_is_a_little_wrong_does_not_matter(native: Native, ahead: int) -> None:
    one = Agent(ahead=ahead)
    native.add(one)

    assert refused(native.policy(one)) == (404, "not_accepted")


@pytest.mark.parametrize("name", [agent.HEADER_NODE, agent.HEADER_TIME, agent.HEADER_NONCE, agent.HEADER_SIGNATURE])
def test_an_unsigned_request_is_refused(native: Native, name: str) -> None:
    one = Agent()
    native.add(one)
    headers = one.headers("GET", agent.PATH_POLICY)
    del headers[name]

    assert refused(native.client.get(agent.PATH_POLICY, headers=headers)) == (401, "bad_signature")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (agent.HEADER_TIME, "yesterday"),
        (agent.HEADER_TIME, "-1"),
        (agent.HEADER_NONCE, "short"),
        (agent.HEADER_NONCE, "Z" * 32),
    ],
)
def test_nonsense_in_the_headers_is_invalid(native: Native, name: str, value: str) -> None:
    one = Agent()
    native.add(one)
    headers = {**one.headers("GET", agent.PATH_POLICY), name: value}

    assert refused(native.client.get(agent.PATH_POLICY, headers=headers)) == (400, "invalid")


# -- reports ----------------------------------------------------------------------------


def test_a_report_is_spooled_when_it_is_acknowledged(native: Native) -> None:
    one = Agent()
    native.add(one)
    parcel = one.parcel("report", one.run([report()]))

    answer = native.post(one, agent.PATH_REPORTS, parcel)

    assert (answer.status_code, answer.json()) == (202, {"status": "received"})
    assert [record.partition(b"\n")[2] for record in native.spooled()] == [parcel]


def test_a_report_that_is_sent_again_word_for_word_is_refused(native: Native) -> None:
    one = Agent()
    native.add(one)
    parcel = one.parcel("report", one.run([report()]))
    headers = one.headers("POST", agent.PATH_REPORTS, parcel)
    native.post(one, agent.PATH_REPORTS, parcel, headers)

    assert refused(native.post(one, agent.PATH_REPORTS, parcel, headers)) == (401, "bad_signature")
    assert len(native.spooled()) == 1


def test_a_node_cannot_report_for_another(native: Native) -> None:
    one, other = Agent(), Agent(key_number=1, hostname="other.example.com")
    native.add(one)
    native.add(other)
    about_other = other.parcel("report", other.run([report()]))

    assert refused(native.post(one, agent.PATH_REPORTS, about_other)) == (401, "bad_signature")
    assert native.spooled() == []


def test_a_parcel_that_was_tampered_with_is_refused_for_good(native: Native) -> None:
    one = Agent()
    native.add(one)
    line, _, body = one.parcel("report", one.run([report()])).partition(b"\n")
    tampered = gzip.compress(gzip.decompress(body).replace(b"result_success", b"result_repaired"))

    assert refused(native.post(one, agent.PATH_REPORTS, line + b"\n" + tampered)) == (400, "invalid")
    assert native.spooled() == []


def test_a_body_that_differs_from_what_was_signed_is_refused(native: Native) -> None:
    one = Agent()
    native.add(one)
    parcel = one.parcel("report", one.run([report()]))
    headers = one.headers("POST", agent.PATH_REPORTS, parcel)

    assert refused(native.post(one, agent.PATH_REPORTS, parcel + b"x", headers)) == (401, "bad_signature")


def test_a_pending_node_cannot_report(native: Native) -> None:
    one = Agent()
    native.add(one, status=NodeStatus.PENDING)

    assert refused(native.post(one, agent.PATH_REPORTS, one.parcel("report", one.run([])))) == (404, "not_accepted")


def test_a_node_reports_as_soon_as_it_is_accepted(native: Native) -> None:
    one = Agent()
    native.add(one, status=NodeStatus.PENDING)
    native.post(one, agent.PATH_REPORTS, one.parcel("report", one.run([])))
    with native.unit_of_work() as ctx:
        nodes.accept(ctx, [one.node])

    assert native.post(one, agent.PATH_REPORTS, one.parcel("report", one.run([]))).status_code == 202


def test_a_node_reports_with_its_new_key_at_once(native: Native) -> None:
    one = Agent()
    native.add(one)
    native.post(one, agent.PATH_REPORTS, one.parcel("report", one.run([])))
    renewed = Agent(node=one.node, key_number=1)
    with native.unit_of_work() as ctx:
        changes = nodes.NodeChanges(fields={}, key_pem=renewed.certificate, key_status=KeyStatus.CERTIFIED)
        nodes.update(ctx, one.node, changes)

    assert native.post(renewed, agent.PATH_REPORTS, renewed.parcel("report", one.run([]))).status_code == 202


@pytest.mark.parametrize("body", [b"", b"no line", b"{}\nx", b'{"format":1,"kind":"report","node":"a"}\n'])
def test_what_is_no_parcel_is_invalid(native: Native, body: bytes) -> None:
    one = Agent()
    native.add(one)

    assert refused(native.post(one, agent.PATH_REPORTS, body)) == (400, "invalid")


def test_an_inventory_among_the_reports_is_invalid(native: Native) -> None:
    one = Agent()
    native.add(one)

    answer = native.post(one, agent.PATH_REPORTS, one.parcel("inventory", one.inventory()))

    assert refused(answer) == (400, "invalid")


def test_a_report_of_more_bytes_than_are_read_is_refused(native: Native) -> None:
    one = Agent()
    native.add(one)
    body = b"x" * (8 * 1024 * 1024 + 1)

    assert refused(native.post(one, agent.PATH_REPORTS, body)) == (413, "invalid")


# -- inventories ------------------------------------------------------------------------


def test_an_inventory_tells_what_the_node_is(native: Native) -> None:
    one = Agent()
    native.enroll(one, native.enrolment_token())

    answer = native.post(one, agent.PATH_INVENTORIES, one.parcel("inventory", one.inventory()))

    assert answer.status_code == 202, answer.text
    with native.unit_of_work() as ctx:
        node = ctx.store.nodes.get(one.node)
        assert node.status is NodeStatus.PENDING
        assert node.inventory.os.name == "Debian"
        assert {element["name"] for element in node.inventory.lists["software"]} == {"bash", "curl"}


def test_an_inventory_bomb_is_refused_before_it_fills_the_memory(native: Native) -> None:
    one = Agent()
    native.add(one)
    bomb = gzip.compress(b'{"format": 1, "software": [' + b"{}," * (agent.MAX_PAYLOAD_BYTES // 4) + b"{}]}")

    answer = native.post(one, agent.PATH_INVENTORIES, one.wrap("inventory", bomb))

    assert refused(answer) == (400, "invalid")
    assert answer.json()["message"] == f"The inventory is larger than {inventory_json.MAX_BYTES} bytes."


@pytest.mark.parametrize(
    "body",
    [b"garbage", gzip.compress(b"{}")[:-4], gzip.compress(b"[1]"), gzip.compress(b"{"), gzip.compress(b"\xff")],
    # Named: the bytes hold the time, which differs between the processes that collect the tests.
    ids=["garbage", "cut off", "not an object", "not JSON", "not UTF-8"],
)
def test_an_inventory_that_cannot_be_read_is_invalid(native: Native, body: bytes) -> None:
    one = Agent()
    native.add(one)

    assert refused(native.post(one, agent.PATH_INVENTORIES, one.wrap("inventory", body))) == (400, "invalid")


def test_an_inventory_about_another_node_is_refused(native: Native) -> None:
    one, other = Agent(), Agent(hostname="other.example.com")
    native.add(one)
    native.add(other)

    answer = native.post(one, agent.PATH_INVENTORIES, one.parcel("inventory", one.inventory(node=other.node)))

    assert refused(answer) == (400, "invalid")
    with native.unit_of_work() as ctx:
        assert ctx.store.nodes.get(other.node).inventory.os.name == ""


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"software": "bash"}, {"ram": "8 GB"}, {"fqdn": "a b"}, {"date": "now"}, {"node": "root; drop"}],
)
def test_an_inventory_with_wrong_fields_is_invalid(native: Native, changes: dict[str, Any]) -> None:
    one = Agent()
    native.add(one)

    answer = native.post(one, agent.PATH_INVENTORIES, one.parcel("inventory", one.inventory(**changes)))

    assert refused(answer) == (400, "invalid")


# -- the agent's file ----------------------------------------------------------------------


def test_the_agent_is_downloaded_as_the_file_whose_digest_is_announced(native: Native) -> None:
    answer = native.client.get(agent.PATH_AGENT_FILE)

    assert answer.content == agent_file.agent_file()
    announced = native.ask("GET", "/server", "read").json()["agentDigest"]
    assert agent.digest(answer.content) == announced
    signed = base64.b64decode(answer.headers[agent.HEADER_SIGNATURE])
    assert signature.verify(native.parts.signing_key.public_pem, agent.agent_file_message(announced), signed)
    again = native.client.get(agent.PATH_AGENT_FILE, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_an_unknown_path_is_refused_as_agents_read_it(native: Native) -> None:
    assert refused(native.client.get(f"{agent.PATH_PREFIX}/nothing")) == (404, "invalid")


def test_nonces_survive_a_restart_of_the_server(native: Native) -> None:
    one = Agent()
    native.add(one)
    with native.unit_of_work() as ctx:
        give_policy(ctx, [one.node], [item(call(1))])
    headers = one.headers("GET", agent.PATH_POLICY)
    first = native.client.get(agent.PATH_POLICY, headers=headers)
    native.parts.gate = type(native.parts.gate)()

    again = native.client.get(agent.PATH_POLICY, headers=headers)

    assert first.status_code == 200
    assert refused(again) == (401, "bad_signature")


def test_node_ids_are_told_apart_from_other_text(native: Native) -> None:
    one = Agent(node=f"{uuid.uuid4()}; --")
    token = native.enrolment_token()

    assert refused(native.post(one, agent.PATH_ENROLL, json.dumps(one.enrolment(token)).encode())) == (400, "invalid")
    with native.unit_of_work() as ctx:
        assert ctx.store.nodes.find(NodeId(one.node)) is None
