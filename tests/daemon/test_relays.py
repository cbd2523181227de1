# SPDX-License-Identifier: Apache-2.0
"""The root server as a relay: what its database knows is what the relay API knows, and proxies are believed or not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.agents import Agent

from quarterdeck.core.accounts import SYSTEM, Access
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import NodeKind, NodeStatus
from quarterdeck.daemon import config, relay_edges, relays
from quarterdeck.daemon.config import Config
from quarterdeck.daemon.http import mount
from quarterdeck.daemon.proxies import Proxied
from quarterdeck.dialects.relay.dialect import RelayEdge
from quarterdeck.dialects.rundeck.dialect import RundeckDialect
from quarterdeck.services import accounts, initial
from quarterdeck.services import relays as lists
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

RELAY = Agent(node="2b000000-0000-4000-8000-00000000000a", hostname="relay.example.com", key_number=1)
NEAR = Agent(node="2b000000-0000-4000-8000-000000000001", hostname="near.example.com", key_number=2)
FAR = Agent(node="2b000000-0000-4000-8000-000000000002", hostname="far.example.com", key_number=3)
PENDING = Agent(node="2b000000-0000-4000-8000-000000000003", hostname="pending.example.com", key_number=4)
INFO = "/rudder/relay-api/system/info"


@dataclass
class Root:
    settings: Config
    database: Database
    edge: RelayEdge
    token: str

    def client(self, address: str) -> TestClient:
        app = mount({"": RundeckDialect()}, self.database, threads=2, relay=self.edge)
        return TestClient(app, client=(address, 4711), raise_server_exceptions=False)


@pytest.fixture
def root(fresh_postgres_url: str, tmp_path: Path) -> Iterator[Root]:
    settings = config.load({"data_dir": str(tmp_path), "database_url": fresh_postgres_url}, {})
    database = Database(fresh_postgres_url, pool_size=2)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=SYSTEM, store=store)
        initial.ensure(ctx, hostname="server.example.com")
        token = accounts.create_token(ctx, "scraper", access=Access.READ, roles=frozenset())[1]
        for one in (
            replace(RELAY.as_node(), kind=NodeKind.RELAY),
            NEAR.as_node(),
            replace(FAR.as_node(), policy_server=NodeId(RELAY.node)),
            PENDING.as_node(NodeStatus.PENDING),
        ):
            store.nodes.add(one)
        store.commit()
    yield Root(settings, database, relays.root(settings, database), token)
    database.close()


def test_the_roots_list_has_every_accepted_node_at_any_depth_and_itself(root: Root) -> None:
    listing = root.edge.parts.nodes.current()

    assert set(listing.topology.nodes) == {ROOT, RELAY.node, NEAR.node, FAR.node}
    assert listing.topology.neighbours == {ROOT, RELAY.node, NEAR.node}
    assert listing.topology.next_hop(NodeId(FAR.node)) == RELAY.node
    assert listing.topology.nodes[NodeId(NEAR.node)].key_hash is not None
    assert listing.topology.nodes[ROOT].key_hash is None


def test_a_relays_list_has_what_is_below_it(root: Root) -> None:
    with root.database.unit_of_work(Provenance(actor="tests")) as store:
        listing = lists.listing_below(Context(account=SYSTEM, store=store), NodeId(RELAY.node))

    assert set(listing.topology.nodes) == listing.topology.neighbours == {FAR.node}
    assert set(listing.keys) == {FAR.node}


def test_the_relay_answers_before_the_dialect_that_takes_every_path(root: Root) -> None:
    with root.client("127.0.0.1") as client:
        assert client.get(INFO).json()["action"] == "getSystemInfo"
        assert client.get("/rudder/relay-api/nothing").text == "NOT FOUND"
        assert "rudder_relayd_sub_nodes_total 4.0" in client.get("/metrics").text
        status = client.get("/rudder/relay-api/system/status").json()
        assert status["data"] == {
            "database": {"status": "success"},
            "configuration": {"status": "success"},
            "remoteRun": {"status": "success", "ways": ["agent"], "waitingAgents": 0},
        }


def test_statement_5_a_broken_settings_file_is_told(root: Root) -> None:
    (root.settings.data / "quarterdeck.toml").write_text("listen =")

    with root.client("127.0.0.1") as client:
        answer = client.get("/rudder/relay-api/system/status")

    assert (answer.status_code, answer.json()["result"]) == (200, "success")
    assert answer.json()["data"]["configuration"]["status"] == "error"
    assert str(root.settings.data / "quarterdeck.toml") in answer.json()["data"]["configuration"]["details"]


def test_nodes_are_reached_by_the_commands_of_the_settings(root: Root, tmp_path: Path) -> None:
    commands = [{"name": "echo", "command": ["/bin/echo", "by", "{hostname}", ["-D", "{conditions}"]]}]
    settings = config.load(
        {"data_dir": str(tmp_path), "database_url": root.settings.database_url, "relay.remote_run_commands": commands},
        {},
    )
    root.edge = relays.root(settings, root.database)

    with root.client("127.0.0.1") as client:
        fields = {"nodes": NEAR.node, "keep_output": "true", "classes": "a"}
        answer = client.post("/rudder/relay-api/remote-run/nodes", data=fields)
        status = client.get("/rudder/relay-api/system/status").json()

    assert answer.text == f"by {NEAR.hostname} -D a\n"
    assert status["data"]["remoteRun"]["ways"] == ["agent", "echo"]


def test_a_database_that_is_away_is_told(root: Root) -> None:
    root.edge = relays.root(root.settings, Database("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1))

    with root.client("127.0.0.1") as client:
        data = client.get("/rudder/relay-api/system/status").json()["data"]

    assert data["database"] == {"status": "error", "details": "The database does not answer."}


def test_statement_10_tokens_open_what_their_rights_allow(root: Root) -> None:
    bearer = {"Authorization": f"Bearer {root.token}"}
    with root.client("198.51.100.7") as client:
        assert client.get(INFO).status_code == 403
        assert client.get(INFO, headers={"X-API-Token": "wrong"}).status_code == 401
        assert client.get("/metrics", headers=bearer).status_code == 200
        assert client.post("/rudder/relay-api/system/reload", headers=bearer).status_code == 403


def test_an_accepted_node_fetches_files_without_any_setting(root: Root) -> None:
    (root.settings.data / "shared-folder" / "motd").write_text("hello")
    path = "/rudder/relay-api/shared-folder/motd"

    with root.client("198.51.100.7") as client:
        near, far, pending = (client.get(path, headers=one.headers("GET", path)) for one in (NEAR, FAR, PENDING))
        unsigned = client.get(path)

    assert (near.status_code, near.text, far.status_code) == (200, "hello", 200)
    assert (pending.status_code, unsigned.status_code) == (401, 403)


def test_a_reload_sees_new_nodes_at_once(root: Root) -> None:
    with root.client("127.0.0.1") as client:
        assert "sub_nodes_total 4.0" in client.get("/metrics").text
        with root.database.unit_of_work(Provenance(actor="tests")) as store:
            store.nodes.add(Agent(hostname="new.example.com").as_node())
            store.commit()

        client.post("/rudder/relay-api/system/reload")

        assert "sub_nodes_total 5.0" in client.get("/metrics").text


def test_shared_files_expire_by_themselves(root: Root) -> None:
    files = root.edge.parts.files
    kept = files.root / NEAR.node / "files" / NEAR.node
    kept.mkdir(parents=True)
    leftover = kept / "~killed"
    leftover.write_text("half")
    os.utime(leftover, (0, 0))

    async def play() -> None:
        async with relay_edges.tidying(files, 0.01):
            deadline = time.monotonic() + 10
            while leftover.exists() and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells of a removal
                await asyncio.sleep(0.01)

    asyncio.run(play())

    assert not leftover.exists()


Seen = dict[str, Any]


@pytest.fixture
def asked() -> Callable[..., Seen]:
    """What an application behind trusted proxies in 192.0.2.0/24 sees of a request."""

    def ask(peer: str, **headers: str) -> Seen:
        seen: Seen = {}

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.update(scope)

        scope = {
            "type": "http",
            "client": (peer, 4711),
            "scheme": "http",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        asyncio.run(Proxied(application, ["192.0.2.0/24"], "X-SSL-Client-Cert")(scope, None, None))  # type: ignore[arg-type]
        return seen

    return ask


def test_a_trusted_proxy_speaks_for_its_clients(asked: Callable[..., Seen]) -> None:
    seen = asked("192.0.2.1", x_forwarded_for="198.51.100.7", x_forwarded_proto="https", x_ssl_client_cert="PEM")

    assert (seen["client"][0], seen["scheme"]) == ("198.51.100.7", "https")
    assert (b"x-ssl-client-cert", b"PEM") in seen["headers"]


def test_nobody_else_does(asked: Callable[..., Seen]) -> None:
    seen = asked("198.51.100.9", x_forwarded_for="127.0.0.1", x_forwarded_proto="https", x_ssl_client_cert="PEM")

    assert (seen["client"][0], seen["scheme"]) == ("198.51.100.9", "http")
    assert [name for name, _ in seen["headers"]] == [b"x-forwarded-for", b"x-forwarded-proto"]


def test_a_wrong_network_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"relay\.allowed_networks"):
        config.load({"data_dir": str(tmp_path), "relay.allowed_networks": ["everywhere"]}, {})
