# SPDX-License-Identifier: Apache-2.0
"""A relay put together as it runs, in the process of the test: the server above it, and the nodes below, are played."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from starlette.testclient import TestClient
from tests.agents import Agent
from tests.relaying.upstreams import Asked, Said, conditional, upstream

from quarterdeck.core.ids import ROOT
from quarterdeck.daemon import config, relay_process
from quarterdeck.daemon.relay_process import Relay
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.agent_client import Identity
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.relaying import spool

RELAY = Agent(hostname="relay.example.com", key_number=3)
NEAR = Agent(hostname="near.example.com", key_number=1)
INNER = Agent(hostname="inner.example.com", key_number=2)
DEEP = Agent(hostname="deep.example.com", key_number=4)
STRANGER = Agent(hostname="stranger.example.com", key_number=5)


def listed() -> dict[str, NodeEntry]:
    """A node and a relay below RELAY, and a node below that relay."""
    return {
        NEAR.node: NodeEntry("near", RELAY.node, (NEAR.certificate,)),
        INNER.node: NodeEntry("inner", RELAY.node, (INNER.certificate,), relay=True),
        DEEP.node: NodeEntry("deep", INNER.node, (DEEP.certificate,)),
    }


@dataclass
class Above:
    """The server above: the nodes it lists, their policies, and what it says to whatever is passed on."""

    listed: dict[str, NodeEntry] = field(default_factory=listed)
    passed: list[Asked] = field(default_factory=list)
    away: bool = False
    #: its clock minus ours, in seconds
    ahead: int = 0

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        now = int(time.time()) + self.ahead
        if any(abs(int(moment) - now) > 300 for moment in _moments(asked)):
            return Said(401, b'{"code":"clock_skew","server_time":%d}' % now)
        if asked.target == relay_documents.PATH_NODES:
            document = NodesDocument(ServerEntry(ROOT, (RELAY.certificate,)), self.listed)
            return conditional(asked, relay_documents.encode(document))
        if asked.target.startswith(f"{relay_documents.PATH_POLICIES}/"):
            node = asked.target.rpartition("/")[2].encode()
            return Said(200, b"policy of " + node, {"ETag": '"id-1"', agent.HEADER_SIGNATURE: "c2ln"})
        self.passed.append(asked)
        return Said(404, b'{"code":"not_accepted","message":"Wait."}', {"Content-Type": "application/json"})


def _moments(asked: Asked) -> list[str]:
    """When a request was signed, and its voucher."""
    voucher = asked.headers.get(relay_documents.HEADER_VOUCHER.lower(), "")
    return [asked.headers[agent.HEADER_TIME.lower()], *([relay_documents.read_voucher(voucher)[1]] if voucher else [])]


@dataclass
class Below:
    """The relay as those below it meet it."""

    relay: Relay
    client: httpx.Client
    above: Above
    data: Path

    def get(self, one: Agent, path: str, tag: str = "") -> httpx.Response:
        extra = {"If-None-Match": tag} if tag else {}
        return self.client.get(path, headers=one.headers("GET", path) | extra)

    def post(self, one: Agent, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.client.post(path, content=body, headers=headers or one.headers("POST", path, body))

    def spooled(self) -> list[bytes]:
        directory = self.data / "spool" / "parcels"
        return [record for path in spool.pending(directory) for record in spool.records(path)]


def identity(server: str, policy_key: str = "") -> Identity:
    """What RELAY is at a server, which signs with `policy_key`."""
    pem = RELAY.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(RELAY.node, pem, RELAY.certificate, server, "", policy_key)


@contextmanager
def wired(above: Above, data: Path, settings: dict[str, Any], policy_key: str = "") -> Iterator[Below]:
    """The relay with these settings, below a server that answers as `above` does; it knows of its nodes."""
    with upstream() as server:
        server.answer = above.answer
        loaded = config.load({"data_dir": str(data), **settings}, {})
        relay = relay_process.assemble(loaded, identity(server.url, policy_key))
        try:
            relay.mirror.refresh_nodes()
            with TestClient(relay.application, client=("192.0.2.7", 4711), raise_server_exceptions=False) as client:
                yield Below(relay, client, above, data)
        finally:
            for link in relay.links:
                link.close()


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]
