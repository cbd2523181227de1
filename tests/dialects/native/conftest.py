# SPDX-License-Identifier: Apache-2.0
"""The native dialect on a database of its own, and agents that talk to it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from starlette.testclient import TestClient
from tests import agents
from tests.agents import Agent

from quarterdeck.core.accounts import SYSTEM, Access
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.native import dialect
from quarterdeck.dialects.native.parts import Parts
from quarterdeck.engine.following import Follower
from quarterdeck.formats import agent
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import spool
from quarterdeck.relaying.spool import Spool
from quarterdeck.services import accounts, enrolment
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

SERVER_KEY = 99
# A worker in this process loads it in another order than the API does, and at the same time.
importlib.import_module("pgqueuer.queries")


@dataclass(frozen=True)
class Native:
    """What stories need of the server."""

    client: httpx.Client
    database: Database
    parts: Parts
    tokens: Mapping[str, str]

    @contextmanager
    def unit_of_work(self) -> Iterator[Context]:
        """A committed look behind the scenes."""
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            yield Context(account=SYSTEM, store=store)
            store.commit()

    def add(self, one: Agent, **changes: Any) -> None:
        with self.unit_of_work() as ctx:
            ctx.store.nodes.add(one.as_node(**changes))

    def enrolment_token(self, *, accept: bool = False, uses: int | None = None) -> str:
        with self.unit_of_work() as ctx:
            return enrolment.create_token(ctx, "machines", accept=accept, uses=uses)

    def enroll(self, one: Agent, token: str) -> httpx.Response:
        return self.post(one, agent.PATH_ENROLL, agent.canonical(one.enrolment(token)))

    def post(self, one: Agent, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.client.post(path, content=body, headers=headers or one.headers("POST", path, body))

    def policy(self, one: Agent, known_id: str = "") -> httpx.Response:
        headers = one.headers("GET", agent.PATH_POLICY)
        if known_id:
            headers["If-None-Match"] = f'"{known_id}"'
        return self.client.get(agent.PATH_POLICY, headers=headers)

    def ask(self, method: str, path: str, who: str, document: Any = None) -> httpx.Response:
        return self.client.request(
            method, f"/quarterdeck/api/1{path}", json=document, headers={"X-API-Token": self.tokens[who]}
        )

    def spooled(self) -> list[bytes]:
        return [record for path in spool.pending(self.parts.spool.directory) for record in spool.records(path)]


@pytest.fixture
def native(fresh_postgres_url: str, tmp_path: Path) -> Iterator[Native]:
    database = Database(fresh_postgres_url, pool_size=6, secret_key=bytes(32))
    tokens = {"nobody": ""}
    roles: dict[str, tuple[Access | None, frozenset[str]]] = {
        "read": (Access.READ, frozenset()),
        "write": (Access.WRITE, frozenset()),
        "admin": (None, frozenset({"admin"})),
    }
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=SYSTEM, store=store)
        for name, (access, some) in roles.items():
            tokens[name] = accounts.create_token(ctx, name, access=access, roles=some)[1]
        store.commit()
    pem = agents.private_key(SERVER_KEY).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    follower = Follower(database)
    parts = Parts(
        signing_key=SigningKey(pem),
        spool=Spool(tmp_path / "spool", reserve_bytes=0),
        started_at=datetime.now(UTC),
        facts={"pin": "sha256//x"},
        follow=follower.follow,
    )
    app = mount(
        {dialect.PREFIX: dialect.NativeDialect(parts)}, database, threads=4, lifespan=lambda _: follower.listening()
    )
    with TestClient(app, base_url="https://server.example.com", raise_server_exceptions=False) as client:
        yield Native(client, database, parts, tokens)
    database.close()
