# SPDX-License-Identifier: Apache-2.0
"""Genuine agents behind a real web server, as the page about it configures both: who gets in, and who does not.

Statements 8, 10, 16 and 65 of the reference, with real TLS clients.
"""

from __future__ import annotations

import io
import urllib.parse
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from tests.agents import Agent, call, give_policy, item
from tests.common import run_logs
from tests.daemon import web_servers
from tests.daemon.web_servers import INSIDE, OUTSIDE, PROXY, Front
from tests.dialects.relay.conftest import shared
from tests.postgres import database_from

from quarterdeck.core.accounts import SYSTEM, Access
from quarterdeck.formats import agent, signature
from quarterdeck.services import accounts
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

pytestmark = pytest.mark.xdist_group("web servers")

NEAR = Agent(node="3c000000-0000-4000-8000-000000000001", hostname="near.example.com", key_number=1)
FAR = Agent(node="3c000000-0000-4000-8000-000000000002", hostname="far.example.com", key_number=2)
STRANGER = Agent(node="3c000000-0000-4000-8000-000000000009", hostname="stranger.example.com", key_number=5)
API = "/rudder/relay-api"
FOLDER = f"{API}/shared-folder/app/motd"
HEADER = "X-SSL-Client-Cert"


@dataclass
class Site:
    """A running server with two nodes, and a token that may read."""

    data: Path
    port: int
    token: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres_server: str, postgres_template: str) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("site") / "data"
    with made(data, postgres_server, postgres_template) as site:
        yield site


@contextmanager
def made(data: Path, server: str, template: str, *, tls: bool = False) -> Iterator[Site]:
    """A running server with what the tests need."""
    with database_from(server, template, "site") as url, web_servers.quarterdeck(data, url, tls=tls) as port:
        database = Database(url, pool_size=1)
        with database.unit_of_work(Provenance(actor="tests")) as store:
            ctx = Context(account=SYSTEM, store=store)
            for one in (NEAR, FAR):
                store.nodes.add(one.as_node())
            give_policy(ctx, [NEAR.node, FAR.node], [item(call(1))])
            token = accounts.create_token(ctx, "scraper", access=Access.READ, roles=frozenset())[1]
            store.commit()
        database.close()
        (data / "shared-folder" / "app").mkdir()
        (data / "shared-folder" / "app" / "motd").write_bytes(b"hello")
        (data / "share" / "common").mkdir()
        (data / "share" / "common" / "library").write_bytes(b"library")
        yield Site(data, port, token)


@pytest.fixture(scope="module", params=sorted(web_servers.KINDS))
def front(request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("front") / request.param
    with Front(request.param, directory, site.data).running(site.port) as running:
        yield running


def status(client: httpx.Client, path: str, method: str = "GET", **headers: str) -> int:
    return client.request(method, path, headers=headers).status_code


def minted(victim: Agent, by: Agent) -> Agent:
    """A certificate that names the victim, made and signed by another node as an authority would, for its own key."""
    made = replace(victim, key_number=by.key_number)
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, victim.node)])
    issuer = x509.Name([x509.NameAttribute(NameOID.USER_ID, by.node)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(by.key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    signed = builder.not_valid_after(datetime(2040, 1, 1, tzinfo=UTC)).sign(by.key, hashes.SHA256())
    made.__dict__["certificate"] = signed.public_bytes(serialization.Encoding.PEM).decode()
    return made


def test_statement_16_the_shared_folder_is_for_known_certificates_from_allowed_networks(front: Front) -> None:
    got = front.client(NEAR).get(FOLDER)

    assert (got.status_code, got.content) == (200, b"hello")
    assert status(front.client(NEAR), FOLDER, "HEAD") == 200
    for method in ("GET", "HEAD"):
        assert status(front.client(), FOLDER, method) == 403
        assert status(front.client(STRANGER), FOLDER, method) == 403
        assert status(front.client(NEAR, OUTSIDE), FOLDER, method) == 403


def test_statement_16_ranges_and_conditions_get_through(front: Front) -> None:
    client = front.client(NEAR)
    stamp = client.get(FOLDER).headers["Last-Modified"]

    assert client.get(FOLDER, headers={"Range": "bytes=1-2"}).content == b"el"
    assert status(client, FOLDER, **{"If-Modified-Since": stamp}) == 304


def test_statement_65_a_node_gets_its_own_policies_and_nobody_elses(front: Front) -> None:
    path = f"/policies/{NEAR.node}/rules/dsc/rudder.zip"

    got = front.client(NEAR).get(path)

    assert got.status_code == 200
    assert status(front.client(NEAR), path, **{"If-None-Match": got.headers["ETag"]}) == 304
    for client in (front.client(FAR), front.client(), front.client(STRANGER), front.client(NEAR, OUTSIDE)):
        assert status(client, path) == status(client, path, "HEAD") == status(client, f"{API}{path}") == 403


def test_statement_65_the_archive_is_what_an_agent_of_ours_would_get(front: Front) -> None:
    target = agent.PATH_POLICY
    fetched = front.client().get(target, headers=NEAR.headers("GET", target))

    archive = zipfile.ZipFile(io.BytesIO(front.client(NEAR).get(f"/policies/{NEAR.node}/rules/dsc/rudder.zip").content))

    assert fetched.status_code == 200
    body, signed = archive.read("policy.json"), archive.read("policy.signature").decode().strip()
    assert (body, signed) == (fetched.content, fetched.headers[agent.HEADER_SIGNATURE])
    message = agent.policy_message(NEAR.node, body)
    assert signature.verify(archive.read("policy-key.pem").decode(), message, signature.decode_base64(signed))


@pytest.mark.parametrize("other", [FAR.node, NEAR.node[:-1], f"{NEAR.node}0", ""])
def test_statement_65_no_certificate_opens_another_id_also_not_one_that_begins_alike(other: str, front: Front) -> None:
    named = replace(NEAR, node=other) if other else None

    assert status(front.client(NEAR), f"/policies/{other}/rules/dsc/rudder.zip") == 403
    if named is not None:
        assert status(front.client(named), f"/policies/{NEAR.node}/rules/dsc/rudder.zip") == 403


def test_statement_65_a_certificate_that_another_node_made_for_itself_is_refused(front: Front) -> None:
    attacker = front.client(minted(NEAR, by=FAR))

    for path in (f"/policies/{NEAR.node}/rules/dsc/rudder.zip", f"/policies/{FAR.node}/rules/dsc/rudder.zip", FOLDER):
        assert status(attacker, path) == 403


def test_statement_65_paths_do_not_climb_on_their_way_through(front: Front, site: Site) -> None:
    (site.data / "share" / FAR.node).mkdir(exist_ok=True)
    (site.data / "share" / FAR.node / "file").write_bytes(b"secret")

    for path in (f"..%2f{FAR.node}%2ffile", f"rules/%2e%2e/%2e%2e/{FAR.node}/file", f"%2e%2e/{FAR.node}/file"):
        answer = front.client(NEAR).get(f"/policies/{NEAR.node}/{path}")
        assert (answer.status_code in (400, 403, 404), b"secret" in answer.content) == (True, False)


def test_a_header_that_the_client_sends_itself_is_overwritten(front: Front) -> None:
    path = f"/policies/{NEAR.node}/rules/dsc/rudder.zip"
    forged = {HEADER: urllib.parse.quote(NEAR.certificate)}

    for client in (front.client(), front.client(FAR), front.client(STRANGER)):
        assert status(client, path, **forged) == 403
    assert status(front.client(), FOLDER, **forged) == 403
    assert status(front.client(), FOLDER, **{HEADER.lower().replace("-", "_"): forged[HEADER]}) == 403


def test_a_client_cannot_say_that_it_comes_from_elsewhere(front: Front, site: Site) -> None:
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Proto"):
        for value in (INSIDE, "127.0.0.1", PROXY, f"for={INSIDE}", "", f"{INSIDE}, {PROXY}"):
            assert status(front.client(NEAR, OUTSIDE), FOLDER, **{name: value}) == 403
            assert status(front.client(NEAR, OUTSIDE), "/metrics", **{name: value}) == 403


def test_who_calls_the_server_directly_shows_no_certificate(site: Site) -> None:
    forged = {HEADER: urllib.parse.quote(NEAR.certificate)}

    def ask(path: str, at: str, **headers: str) -> int:
        with httpx.Client(transport=httpx.HTTPTransport(local_address=at), trust_env=False) as client:
            return client.get(f"http://127.0.0.1:{site.port}{path}", headers=headers).status_code

    assert ask(FOLDER, INSIDE, **forged) == ask(FOLDER, "127.0.0.1", **forged) == 403
    assert ask(FOLDER, PROXY, **forged, **{"X-Forwarded-For": INSIDE}) == 200
    assert ask("/metrics", "127.0.0.1") == 200
    assert (
        ask("/metrics", PROXY) == ask(f"{API}/system/status", PROXY) == ask("/metrics", PROXY, Host="localhost") == 403
    )


def test_statement_10_system_and_metrics_are_not_for_those_in_front(front: Front, site: Site) -> None:
    for path in ("/metrics", f"{API}/system/status", f"{API}/system/info", f"{API}/1/system/info"):
        for client in (front.client(), front.client(NEAR), front.client(NEAR, "127.0.0.1")):
            assert status(client, path) == 403
        assert status(front.client(at=OUTSIDE), path, Authorization=f"Bearer {site.token}") == 200
    assert status(front.client(NEAR), f"{API}/system/reload", "POST") == 403


@pytest.mark.parametrize("path", [f"nodes/{FAR.node}", "nodes", "all", f"nodes/{NEAR.node}"])
def test_remote_runs_are_not_for_nodes(path: str, front: Front) -> None:
    for client in (front.client(NEAR), front.client(), front.client(NEAR, "127.0.0.1")):
        assert client.post(f"{API}/remote-run/{path}", data={"nodes": FAR.node}).status_code == 403


def test_files_from_node_to_node_get_through_as_they_were_signed(front: Front) -> None:
    content = bytes(range(256)) * 1024
    body = shared(NEAR, content)
    name = f"shared-files/{FAR.node}/{NEAR.node}/{front.kind}.bin"
    digest = next(line for line in body.decode("latin-1").splitlines() if line.startswith("hash_value=")).partition("=")

    assert status(front.client(NEAR), f"{API}/{name}?hash={digest[2]}", "HEAD") == 404
    put = front.client(NEAR).put(f"{API}/{name}?ttl=1d+2h", content=body)
    assert (put.status_code, put.content) == (200, b"")
    for prefix in (API, f"{API}/1"):
        assert status(front.client(NEAR), f"{prefix}/{name}?hash={digest[2]}", "HEAD") == 200
    assert front.client(NEAR, OUTSIDE).put(f"{API}/{name}?ttl=1d", content=body).status_code == 403
    assert front.client(NEAR).put(f"{API}/{name}?ttl=1d", content=body[:-1]).status_code == 500


def test_statement_8_paths_with_and_without_version_are_alike(front: Front) -> None:
    for path in ("shared-folder/app/motd", f"policies/{NEAR.node}/rules/dsc/rudder.zip"):
        plain, versioned = (front.client(NEAR).get(f"{prefix}/{path}") for prefix in (API, f"{API}/1"))
        assert (plain.status_code, plain.content) == (versioned.status_code, versioned.content)
        assert plain.status_code == 200


def test_reports_come_with_the_password_or_a_known_certificate(front: Front, site: Site) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    text = run_logs.run(run_logs.report(node=NEAR.node, start=start), node=NEAR.node, start=start)
    path = f"/reports/{urllib.parse.quote(run_logs.file_name(NEAR.node, start, '.log'))}"

    def put(client: httpx.Client, password: str = "") -> int:
        auth = httpx.BasicAuth("rudder", password) if password else httpx.Auth()
        return client.put(path, content=text, auth=auth).status_code

    assert put(front.client(), "secret") in (201, 204)
    assert put(front.client(NEAR)) in (201, 204)
    assert put(front.client(STRANGER), "secret") in (201, 204)
    assert put(front.client()) == put(front.client(STRANGER)) == put(front.client(), "wrong") == 401
    assert put(front.client(minted(NEAR, by=FAR))) == 401
    assert put(front.client(NEAR, OUTSIDE), "secret") == 403


def test_new_nodes_may_bring_their_inventory_before_anybody_knows_their_certificate(front: Front) -> None:
    path = f"/inventories/{STRANGER.node}_{front.kind}.ocs"

    assert front.client(STRANGER).put(path, content=b"<x/>", auth=("rudder", "rudder")).status_code in (201, 204)
    assert front.client(STRANGER).put(path, content=b"<x/>").status_code == 401


def test_common_files_are_for_allowed_networks_and_the_id_for_everybody(front: Front) -> None:
    assert front.client().get("/common/library").content == b"library"
    assert status(front.client(at=OUTSIDE), "/common/library") == 403
    assert front.client(at=OUTSIDE).get("/uuid").text == "root\n"


def test_agents_of_ours_get_through_with_what_they_signed(front: Front) -> None:
    path = f"{API}/shared-folder/app%2Fmotd?hash=&x=%20"

    assert status(front.client(), path, **NEAR.headers("GET", path)) == 200
    assert status(front.client(), path, **replace(NEAR, key_number=2).headers("GET", path)) == 401
    assert status(front.client(at=OUTSIDE), path, **NEAR.headers("GET", path)) == 403


@pytest.mark.parametrize("kind", sorted(web_servers.KINDS))
def test_what_is_behind_may_speak_tls_itself_as_relays_do(
    kind: str, tmp_path: Path, postgres_server: str, postgres_template: str
) -> None:
    data, directory = tmp_path / "data", tmp_path / kind
    with (
        made(data, postgres_server, postgres_template, tls=True) as site,
        Front(kind, directory, data, tls=True).running(site.port) as front,
    ):
        assert front.client(NEAR).get(FOLDER).content == b"hello"
        assert status(front.client(NEAR), f"/policies/{NEAR.node}/rules/dsc/rudder.zip") == 200
        for path in (FOLDER, f"/policies/{NEAR.node}/rules/dsc/rudder.zip"):
            assert status(front.client(minted(NEAR, by=FAR)), path) == 403
            assert status(front.client(), path, **{HEADER: urllib.parse.quote(NEAR.certificate)}) == 403
        assert status(front.client(NEAR, "127.0.0.1"), "/metrics") == 403
