# SPDX-License-Identifier: Apache-2.0
"""Both dialects on one database that holds a little of everything, and what every answer of theirs must keep to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives import serialization
from starlette.testclient import TestClient
from tests import agents
from tests.agents import Agent

from quarterdeck import __version__
from quarterdeck.core.accounts import SYSTEM
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.native import chapters as native_chapters
from quarterdeck.dialects.native import dialect as native_dialect
from quarterdeck.dialects.native.parts import Parts as NativeParts
from quarterdeck.dialects.rudder import chapters as rudder_chapters
from quarterdeck.dialects.rudder import not_yet
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.spool import Spool
from quarterdeck.services import accounts, initial, techniques
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.web import openapi
from quarterdeck.web.operation import Operation

RUDDER_PREFIX = "/rudder/api/latest"
NODE = Agent(node="c1d2e3f4-0000-4000-8000-000000000001", hostname="fuzzed.example.com")
#: Objects that exist when a test begins; operations may delete them.
KNOWN = ("known", NODE.node, "motdConfiguration", "1.0", "GroupRoot", "rootRuleCategory")
_MAKING: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/parameters", {"id": "known", "value": {"a": [1, 2]}}),
    (
        "PUT",
        "/techniques",
        {
            "id": "known",
            "version": "1.0",
            "name": "Known",
            "parameters": [{"id": "p", "name": "path", "mayBeEmpty": True}],
            "calls": [
                {
                    "type": "call",
                    "id": "c",
                    "method": "file_present",
                    "component": "A file",
                    "condition": "any",
                    "parameters": {"path": "${known.path}"},
                }
            ],
        },
    ),
    (
        "PUT",
        "/directives",
        {"id": "known", "displayName": "Known", "techniqueName": "known", "techniqueVersion": "1.0"},
    ),
    (
        "PUT",
        "/groups",
        {
            "id": "known",
            "displayName": "Known",
            "category": "GroupRoot",
            "query": {
                "select": "node",
                "composition": "And",
                "where": [{"objectType": "node", "attribute": "OS", "comparator": "eq", "value": "Linux"}],
            },
        },
    ),
    ("PUT", "/groups/categories", {"id": "known", "name": "Known", "parent": "GroupRoot"}),
    ("PUT", "/rules/categories", {"id": "known", "name": "Known", "parent": "rootRuleCategory"}),
    (
        "PUT",
        "/rules",
        {"id": "known", "displayName": "Known", "directives": ["known"], "targets": ["group:known", "special:all"]},
    ),
)


@dataclass(frozen=True)
class Fuzzed:
    """What tests throw requests at."""

    client: httpx.Client
    headers: dict[str, str]

    def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request with every right."""
        return self.client.request(method, path, headers=self.headers | arguments.pop("headers", {}), **arguments)


@contextmanager
def fuzzed(postgres_url: str, directory: Path) -> Iterator[Fuzzed]:
    """An application on this database, with `KNOWN` in it."""
    database = Database(postgres_url, pool_size=4)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=SYSTEM, store=store)
        initial.ensure(ctx, hostname="server.example.com")
        techniques.reload(ctx)
        _, token = accounts.create_token(ctx, "fuzz", access=None, roles=frozenset({"admin"}))
        ctx.store.nodes.add(NODE.as_node())
        store.commit()
    private = agents.private_key(99)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    native = NativeParts(
        signing_key=SigningKey(pem),
        spool=Spool(directory / "spool", reserve_bytes=0),
        started_at=datetime.now(UTC),
        facts={},
    )
    app = mount(
        {"/rudder/api": RudderDialect(), native_dialect.PREFIX: native_dialect.NativeDialect(native)},
        database,
        threads=4,
    )
    # An exception that leaves the application fails the test at once.
    with TestClient(app, base_url="https://server.example.com") as client:
        made = Fuzzed(client, {"X-API-Token": token})
        for method, path, document in _MAKING:
            answer = made.send(method, RUDDER_PREFIX + path, json=document)
            assert answer.status_code == 200, (path, answer.text)
        yield made
    database.close()


def rudder_operations() -> list[Operation]:
    """Those that are done."""
    return [one for one in rudder_chapters.OPERATIONS if one not in not_yet.section.operations]


def native_operations() -> list[Operation]:
    return list(native_chapters.OPERATIONS)


def described(operations: list[Operation], prefix: str) -> dict[str, Any]:
    """The OpenAPI document of these operations, as plain objects."""
    document = openapi.document(
        operations, title="fuzz", version=__version__, prefix=prefix, login_header="X-API-Token"
    )
    return dict(msgspec.json.decode(msgspec.json.encode(document)))


def check(answer: httpx.Response) -> None:
    """Fails unless the answer is one of ours: a success, or an error in its dialect's envelope, without a fault."""
    told = f"{answer.request.method} {answer.request.url} -> {answer.status_code} {answer.text[:2000]}"
    if answer.headers.get("Content-Type") != "application/zip":  # the agent, which has words of its own
        assert "internal error" not in answer.text.lower(), told
    assert "Traceback" not in answer.text, told
    if answer.status_code < 400:
        return
    assert answer.headers["Content-Type"].startswith("application/json"), told
    document = json.loads(answer.text)
    path = answer.request.url.path
    if path.startswith("/rudder/"):
        assert document["result"] == "error", told
        assert document["errorDetails"], told
    elif path.startswith("/quarterdeck/agent/"):
        assert set(document) == {"code", "message", "server_time"}, told
    else:
        assert document["error"], told
