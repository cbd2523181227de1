# SPDX-License-Identifier: Apache-2.0
"""A relay put together as it runs, below a server that tests play: whom it believes, what it keeps, what it passes up."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.agents import Agent, report
from tests.daemon.wired_relays import DEEP, INNER, NEAR, RELAY, STRANGER, Above, Below, identity, refused, wired

from quarterdeck.core.errors import Unavailable
from quarterdeck.daemon import config, relay_process, tls
from quarterdeck.daemon.config import WrongSettings
from quarterdeck.formats import agent, nodes_list, relay_documents, signature
from quarterdeck.formats.relay_documents import NodeEntry


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    commands = [{"name": "echo", "command": ["/bin/echo", "by", "{hostname}"]}]
    told = {"public_url": "https://relay.example.com:8443", "relay.remote_run_commands": commands}
    with wired(Above(), tmp_path, told) as made:
        yield made


# -- nodes ---------------------------------------------------------------------------------


def test_a_node_gets_its_own_policy_with_the_roots_signature_and_keeps_getting_it(below: Below) -> None:
    first = below.get(NEAR, agent.PATH_POLICY)
    same = below.get(NEAR, agent.PATH_POLICY, '"id-1"')
    below.above.away = True
    kept = below.get(NEAR, agent.PATH_POLICY)

    assert (first.status_code, first.content) == (200, b"policy of " + NEAR.node.encode())
    assert first.headers[agent.HEADER_SIGNATURE] == "c2ln"
    assert same.status_code == 304
    assert kept.content == first.content
    assert refused(below.get(DEEP, agent.PATH_POLICY)) == (503, "unavailable")


def test_reports_and_inventories_of_known_nodes_are_kept_here(below: Below) -> None:
    below.above.away = True
    sent = [
        ("report", agent.PATH_REPORTS, NEAR.run([report()])),
        ("inventory", agent.PATH_INVENTORIES, NEAR.inventory()),
    ]

    answers = [below.post(NEAR, path, NEAR.parcel(kind, payload)) for kind, path, payload in sent]

    assert [answer.status_code for answer in answers] == [202, 202]
    slips = [relay_documents.unpack_slip(record)[0] for record in below.spooled()]
    assert [(slip.kind, slip.node) for slip in slips] == [("report", NEAR.node), ("inventory", NEAR.node)]
    assert below.above.passed == []


def test_what_is_forged_altered_late_or_another_nodes_is_refused_and_not_kept(below: Below) -> None:
    thief = Agent(node=NEAR.node, key_number=9)
    late = Agent(node=NEAR.node, key_number=1, ahead=-4000)
    good = NEAR.parcel("report", NEAR.run([report()]))

    assert refused(below.post(thief, agent.PATH_REPORTS, good)) == (401, "bad_signature")
    assert refused(below.post(late, agent.PATH_REPORTS, good)) == (401, "clock_skew")
    assert refused(below.post(DEEP, agent.PATH_REPORTS, good)) == (400, "invalid")
    assert refused(below.post(NEAR, agent.PATH_REPORTS, good[:-8] + b"altered!")) == (400, "invalid")
    assert refused(below.post(NEAR, agent.PATH_INVENTORIES, good)) == (400, "invalid")
    assert refused(below.post(NEAR, agent.PATH_REPORTS, b"nothing of the kind")) == (400, "invalid")
    headers = NEAR.headers("POST", agent.PATH_REPORTS, good)
    assert below.post(NEAR, agent.PATH_REPORTS, good, headers).status_code == 202
    assert refused(below.post(NEAR, agent.PATH_REPORTS, good, headers)) == (401, "bad_signature")
    assert below.client.post(agent.PATH_REPORTS, content=good).status_code == 401
    assert len(below.spooled()) == 1


def test_what_a_stranger_sends_goes_up_unaltered_with_a_voucher(below: Below) -> None:
    body = agent.canonical(STRANGER.enrolment("token"))
    headers = STRANGER.headers("POST", agent.PATH_ENROLL, body)

    answer = below.post(STRANGER, agent.PATH_ENROLL, body, headers)
    below.get(STRANGER, agent.PATH_POLICY)

    assert refused(answer) == (404, "not_accepted")
    enrolment, policy = below.above.passed
    assert (enrolment.method, enrolment.target, enrolment.body) == ("POST", agent.PATH_ENROLL, body)
    assert {name: enrolment.headers[name.lower()] for name in headers} == headers
    relay, moment, nonce, signed = relay_documents.read_voucher(
        enrolment.headers[relay_documents.HEADER_VOUCHER.lower()]
    )
    message = relay_documents.voucher_message(relay, moment, nonce, headers[agent.HEADER_SIGNATURE])
    assert relay == RELAY.node
    assert verified(message, signed)
    assert policy.target == agent.PATH_POLICY


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_relay_whose_clock_is_off_goes_by_that_of_the_server_above(below: Below, ahead: int) -> None:
    below.above.ahead = ahead
    in_time, late = Agent(node=NEAR.node, key_number=1, ahead=ahead), Agent(node=NEAR.node, key_number=1)
    parcel = NEAR.parcel("report", NEAR.run([report()]))
    below.relay.mirror.refresh_nodes()

    assert below.post(in_time, agent.PATH_REPORTS, parcel).status_code == 202
    answer = below.post(late, agent.PATH_REPORTS, parcel)

    assert refused(answer) == (401, "clock_skew")
    now = time.time() + ahead
    assert abs(answer.json()["server_time"] - now) < 30
    (record,) = below.spooled()
    assert abs(relay_documents.unpack_slip(record)[0].at - now) < 30
    path = "/rudder/relay-api/1/shared-files/x/y/z?hash=0"
    answers = [below.client.head(path, headers=one.headers("HEAD", path)) for one in (in_time, late)]
    assert answers[0].status_code != 401
    assert (answers[1].status_code, abs(int(answers[1].headers[agent.HEADER_TIME]) - now) < 30) == (401, True)


def test_a_relay_whose_clock_is_off_vouches_in_time(below: Below) -> None:
    below.above.ahead = 3600
    one = Agent(node=STRANGER.node, key_number=5, ahead=3600)
    body = agent.canonical(one.enrolment("token"))
    headers = one.headers("POST", agent.PATH_ENROLL, body)

    answer = below.post(one, agent.PATH_ENROLL, body, headers)

    assert refused(answer) == (404, "not_accepted"), "as this server says to all who enrol"
    (enrolment,) = below.above.passed
    assert {name: enrolment.headers[name.lower()] for name in headers} == headers


def verified(message: bytes, signed: bytes) -> bool:
    return signature.verify(RELAY.certificate, message, signed)


def test_a_node_that_was_just_accepted_is_known_at_its_next_request(below: Below) -> None:
    below.above.listed[STRANGER.node] = NodeEntry("new", RELAY.node, (STRANGER.certificate,))

    assert below.get(STRANGER, agent.PATH_POLICY).status_code == 200
    assert below.above.passed == []


def test_the_agent_comes_from_the_relay_itself(below: Below) -> None:
    below.above.away = True

    answer = below.client.get(agent.PATH_AGENT_FILE)

    assert answer.content.startswith(b"#!/usr/bin/env python3\n")
    assert below.client.get(agent.PATH_AGENT_FILE, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


# -- relays below --------------------------------------------------------------------------


def test_a_relay_below_gets_its_part_of_the_list_and_says_where_it_is(below: Below) -> None:
    path = relay_documents.PATH_NODES
    headers = INNER.headers("GET", path) | {relay_documents.HEADER_ADDRESS: "https://inner.example.com:8443"}

    document = json.loads(below.client.get(path, headers=headers).content)

    assert set(document["nodes"]) == {DEEP.node}
    assert document["server"] == {"id": RELAY.node, "keys": [RELAY.certificate]}
    assert json.loads((below.data / "relays.json").read_bytes()) == {INNER.node: "https://inner.example.com:8443"}


@pytest.mark.parametrize("one", [NEAR, DEEP, STRANGER], ids=["near", "deep", "stranger"])
def test_who_is_no_relay_gets_nothing_of_relays(below: Below, one: Agent) -> None:
    paths = (
        relay_documents.PATH_NODES,
        relay_documents.PATH_POLICIES,
        f"{relay_documents.PATH_POLICIES}/{NEAR.node}",
        relay_documents.PATH_TREE,
        f"{relay_documents.PATH_FILES}/0",
    )

    assert [below.get(one, path).status_code for path in paths] == [403] * len(paths)
    assert below.post(one, relay_documents.PATH_PARCELS, relay_documents.pack_batch([b"x"])).status_code == 403


def test_a_relay_below_gets_policies_of_its_own_nodes_only_and_its_parcels_are_kept(below: Below) -> None:
    slip = relay_documents.Slip("report", DEEP.node, 1.0)
    record = relay_documents.pack_slip(slip, DEEP.parcel("report", DEEP.run([report()])))

    own = below.get(INNER, f"{relay_documents.PATH_POLICIES}/{DEEP.node}")
    others = below.get(INNER, f"{relay_documents.PATH_POLICIES}/{NEAR.node}")
    batch = relay_documents.pack_batch([record, b"no slip"])
    taken = below.post(INNER, relay_documents.PATH_PARCELS, batch)

    assert (own.status_code, others.status_code) == (200, 404)
    assert taken.status_code == 202
    assert [one["position"] for one in taken.json()["refused"]] == [1]
    assert below.spooled() == [record]


# -- the rest ------------------------------------------------------------------------------


def test_metrics_and_status_are_for_its_own_machine(below: Below) -> None:
    with TestClient(below.relay.application, client=("127.0.0.1", 4711)) as here:
        text = here.get("/metrics").text
        status = here.get("/rudder/relay-api/1/system/status").json()

    assert "rudder_relayd_sub_nodes_total 3.0" in text
    assert "rudder_relayd_managed_nodes_total 2.0" in text
    assert "database" not in status["data"]
    assert "quarterdeck_waiting_agents 0.0" in text
    assert "quarterdeck_command_agents 0.0" in text
    assert status["data"]["remoteRun"] == {"status": "success", "ways": ["agent", "echo"], "waitingAgents": 0}
    assert below.client.get("/metrics").status_code == 403


def test_its_nodes_are_reached_by_the_commands_of_its_settings(below: Below) -> None:
    with TestClient(below.relay.application, client=("127.0.0.1", 4711)) as here:
        fields = {"nodes": NEAR.node, "keep_output": "true"}
        answer = here.post("/rudder/relay-api/1/remote-run/nodes", data=fields)

    assert answer.text == "by near\n"


def test_the_pin_of_a_relay_is_the_hash_of_its_node_key(tmp_path: Path) -> None:
    pem = RELAY.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    kept = tls.initialise_relay(tmp_path, "https://relay.example.com:8443", datetime.now(UTC), pem)

    hash_ = nodes_list.hash_of(RELAY.certificate)
    assert hash_ is not None
    pin = tls.spki_pin(kept.server_certificate.read_bytes())
    assert pin == f"sha256//{base64.b64encode(hash_.digest).decode()}"
    assert not kept.policy_key.exists()
    assert not kept.secret_key.exists()
    assert tls.names_in(certificate(kept.server_certificate)) >= {"relay.example.com", "localhost"}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_relay_that_was_never_enrolled_says_what_to_do(tmp_path: Path) -> None:
    settings = config.load({"data_dir": str(tmp_path), "listen": "127.0.0.1:18099"}, {})

    with pytest.raises(Unavailable, match="relay enroll --upstream"):
        relay_process.serve(settings, print)


def test_a_certificate_that_cannot_be_renewed_now_is_renewed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relay_process, "_RENEWAL_SECONDS", 0.05)
    keys = tmp_path / "keys"
    keys.write_text("in the way")
    settings = config.load({"data_dir": str(tmp_path), "public_url": "https://relay.example.com:8443"}, {})
    server = uvicorn.Server(uvicorn.Config(Starlette(), log_config=None))
    server.config.load()
    arguments = (settings, identity("https://server.example.com"), server)

    threading.Thread(target=relay_process._renew, args=arguments, daemon=True).start()
    soon(lambda: "cannot be renewed now" in caplog.text)
    keys.unlink()

    soon((keys / "server.pem").exists)


def soon(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_relay_without_tls_is_refused(tmp_path: Path) -> None:
    settings = config.load({"data_dir": str(tmp_path), "listen": "127.0.0.1:18099", "tls": False}, {})

    with pytest.raises(WrongSettings, match="leave the setting tls out"):
        relay_process.serve(settings, print)


def test_a_relay_that_nodes_could_not_reach_over_tls_is_refused(tmp_path: Path) -> None:
    told = {"data_dir": str(tmp_path), "listen": "127.0.0.1:18099", "public_url": "http://relay.example.org:8443"}

    with pytest.raises(WrongSettings, match="correct the setting public_url"):
        relay_process.serve(config.load(told, {}), print)


def test_statement_65_a_relay_gives_each_node_its_own_policy_as_the_server_signed_it(below: Below) -> None:
    def archive(one: Agent, of: Agent) -> httpx.Response:
        return below.get(one, f"/policies/{of.node}/rules/dsc/rudder.zip")

    fresh = archive(NEAR, NEAR)
    below.above.away = True
    kept = archive(NEAR, NEAR)

    with zipfile.ZipFile(io.BytesIO(fresh.content)) as found:
        assert found.read("policy.json") == b"policy of " + NEAR.node.encode()
        assert found.read("policy.signature") == b"c2ln\n"
    assert (kept.content, kept.headers["ETag"]) == (fresh.content, fresh.headers["ETag"])
    assert archive(NEAR, DEEP).status_code == archive(DEEP, NEAR).status_code == 403
    assert archive(DEEP, DEEP).status_code == 503
    assert archive(STRANGER, STRANGER).status_code == 401


def test_a_relay_gives_what_its_site_placed_there_and_tells_who_it_is(below: Below) -> None:
    for name in (f"{NEAR.node}/rules/dsc", "common"):
        (below.data / "share" / name).mkdir(parents=True)
        (below.data / "share" / name / "rudder.zip").write_bytes(b"made by the site")
    below.above.away = True

    assert below.get(NEAR, f"/policies/{NEAR.node}/rules/dsc/rudder.zip").content == b"made by the site"
    assert below.client.get("/uuid").text == f"{RELAY.node}\n"
    assert below.client.get("/common/rudder.zip").status_code == 403  # it has no allowed networks
