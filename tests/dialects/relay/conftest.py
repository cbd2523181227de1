# SPDX-License-Identifier: Apache-2.0
"""A relay on files of its own, without a database, and nodes around it that sign what they send."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.agents import Agent

from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.ids import NodeId
from quarterdeck.daemon.http import relay_routes
from quarterdeck.dialects.relay import callers
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.dialects.relay.dialect import RelayDialect, RelayEdge
from quarterdeck.dialects.relay.parts import Check, Parts
from quarterdeck.relaying.copies import PolicyCopy
from quarterdeck.relaying.metrics import Metrics
from quarterdeck.relaying.nodes_list import ListFiles, NodesList
from quarterdeck.relaying.policy_archives import Archives
from quarterdeck.relaying.policy_files import PolicyFiles
from quarterdeck.relaying.shared_files import Pass, SharedFiles
from quarterdeck.relaying.shared_folder import SharedFolder

NEAR = Agent(node="1a000000-0000-4000-8000-000000000001", hostname="near.example.com", key_number=1)
FAR = Agent(node="1a000000-0000-4000-8000-000000000002", hostname="far.example.com", key_number=2)
RELAY = Agent(node="1a000000-0000-4000-8000-00000000000a", hostname="relay.example.com", key_number=3)
KEYLESS = Agent(node="1a000000-0000-4000-8000-000000000003", hostname="keyless.example.com", key_number=4)
STRANGER = Agent(node="1a000000-0000-4000-8000-000000000009", hostname="stranger.example.com", key_number=5)

API = "/rudder/relay-api/1"
NETWORK = "192.0.2.0/24"
INSIDE, OUTSIDE, LOOPBACK = "192.0.2.7", "198.51.100.7", "127.0.0.1"
UPSTREAM = "203.0.113.1"
POLICY_KEY = "-----BEGIN PUBLIC KEY-----\nTUlJQg==\n-----END PUBLIC KEY-----\n"


def listed(one: Agent, policy_server: str, key_hash: str | None = None) -> dict[str, str]:
    """A line of the nodes list."""
    return {
        "hostname": one.hostname,
        "policy-server": policy_server,
        "key-hash": key_hash_of(one) if key_hash is None else key_hash,
    }


def key_hash_of(one: Agent, algorithm: str = "sha256", *, hexadecimal: bool = False) -> str:
    public = one.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.new(algorithm, public).digest()
    return f"{algorithm}:{digest.hex()}" if hexadecimal else f"{algorithm}//{base64.b64encode(digest).decode()}"


def list_of_root() -> dict[str, dict[str, str]]:
    """NEAR, KEYLESS and RELAY are served by the root, FAR by RELAY."""
    return {
        "root": {"hostname": "server.example.com", "policy-server": "root", "key-hash": "sha256:"},
        NEAR.node: listed(NEAR, "root"),
        KEYLESS.node: listed(KEYLESS, "root", "sha256:"),
        RELAY.node: listed(RELAY, "root"),
        FAR.node: listed(FAR, RELAY.node),
    }


def shared(source: Agent, content: bytes, algorithm: str = "sha512", **changes: str) -> bytes:
    """What an agent sends to share a file; `changes` replace or add lines."""
    kinds = {"sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
    signature = source.key.sign(content, padding.PKCS1v15(), kinds[algorithm])
    public = source.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    lines = {
        "header": "rudder-signature-v1",
        "algorithm": algorithm,
        "digest": signature.hex(),
        "hash_value": hashlib.new(algorithm, content).hexdigest(),
        "short_pubkey": "".join(public.decode().splitlines()[1:-1]),
        "hostname": source.hostname,
        "keydate": "2026-01-01 00:00:00.000000000 +0000",
        "keyid": "0A1B2C3D",
        **changes,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items()).encode() + b"\n" + content


@dataclass
class Relay:
    """One relay, and requests to it from wherever one likes."""

    directory: Path
    edge: RelayEdge
    stack: ExitStack
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def ask(self, method: str, path: str, *, at: str = INSIDE, **arguments: Any) -> httpx.Response:
        """A request from an address; the path stands below the API's prefix unless it is absolute."""
        return self.client(at).request(method, path if path.startswith("/") else f"{API}/{path}", **arguments)

    def signed(
        self, one: Agent, method: str, path: str, body: bytes = b"", /, *, at: str = INSIDE, **headers: str
    ) -> httpx.Response:
        """A request that a node signs."""
        target = path if path.startswith("/") else f"{API}/{path}"
        return self.client(at).request(
            method, target, content=body or None, headers={**one.headers(method, target, body), **headers}
        )

    def client(self, address: str) -> httpx.Client:
        if address not in self.clients:
            app = Starlette(routes=relay_routes(self.edge))
            self.clients[address] = self.stack.enter_context(
                TestClient(app, client=(address, 4711), raise_server_exceptions=False)
            )
        return self.clients[address]

    def write_list(self, document: Mapping[str, Any] | bytes) -> None:
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        (self.directory / "nodeslist.json").write_bytes(raw)

    @property
    def folder(self) -> Path:
        return self.directory / "folder"

    def file(self, source: Agent, name: str, target: Agent = NEAR) -> Path:
        return self.directory / "files" / target.node / "files" / source.node / name

    def put(
        self, name: str, body: bytes, *, ttl: str = "1d", source: Agent = NEAR, target: Agent = NEAR, at: str = INSIDE
    ) -> httpx.Response:
        """Share a file."""
        path = f"shared-files/{target.node}/{source.node}/{name}?ttl={urllib.parse.quote_plus(ttl)}"
        return self.ask("PUT", path, at=at, content=body)

    def has(self, name: str, hash_: str, *, source: Agent = NEAR, target: Agent = NEAR) -> int:
        """The status that says whether a file is there."""
        return self.ask("HEAD", f"shared-files/{target.node}/{source.node}/{name}?hash={hash_}").status_code


Make = Callable[..., Relay]


def unsigned(node: NodeId) -> PolicyCopy:
    """No node has a policy."""
    raise NotAccepted("This node has no policy yet.")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes relays; each has a directory of its own."""
    with ExitStack() as stack:

        def relay(
            me: str = "root",
            document: Mapping[str, Any] | None = None,
            *,
            networks: tuple[str, ...] = (NETWORK,),
            upstream: tuple[str, ...] = (),
            pass_on: Pass | None = None,
            clock: Callable[[], float] | None = None,
            checks: Mapping[str, Check] | None = None,
            authorize: callers.Authorize | None = None,
            max_body: int = 1024 * 1024,
            signed: Callable[[NodeId], PolicyCopy] | None = None,
            resources: Mapping[str, bytes] | None = None,
            mirrored: bool = False,
        ) -> Relay:
            directory = tmp_path / me
            for name in ("folder", "bodies", "queue", "share", "mirrored"):
                (directory / name).mkdir(parents=True)
            (directory / "nodeslist.json").write_text(json.dumps(list_of_root() if document is None else document))
            (directory / "certs.pem").write_text("".join(one.certificate for one in (NEAR, FAR, RELAY)))
            files = ListFiles(me=NodeId(me), nodes=directory / "nodeslist.json", certificates=directory / "certs.pem")
            nodes = NodesList(files.load)
            clocked = {"clock": clock} if clock is not None else {}
            archives = Archives(directory=directory / "bodies", key=POLICY_KEY)
            stack.callback(archives.close)
            parts = Parts(
                nodes=nodes,
                folder=SharedFolder(directory / "folder"),
                files=SharedFiles(directory / "files", nodes, pass_on, **clocked),
                policies=PolicyFiles(
                    share=SharedFolder(directory / "share"),
                    signed=signed or unsigned,
                    resource=lambda _, digest: (resources or {})[digest],
                    archives=archives,
                    mirrored=SharedFolder(directory / "mirrored") if mirrored else None,
                ),
                metrics=Metrics(nodes, {"reports": directory / "queue"}),
                door=Door(
                    nodes=nodes,
                    networks=callers.networks(networks),
                    upstream=frozenset(upstream),
                    authorize=authorize,
                ),
                checks=checks or {},
            )
            edge = RelayEdge(
                grammar=RelayDialect(max_body=max_body),
                parts=parts,
                prefix="/rudder/relay-api",
                threads=anyio.CapacityLimiter(4),
                body_directory=directory / "bodies",
            )
            return Relay(directory, edge, stack)

        yield relay


@pytest.fixture
def root(make: Make) -> Relay:
    """The root of the tree."""
    return make()
