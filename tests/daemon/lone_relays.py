# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd relay` in a process of its own, which was enrolled and got its nodes list before the test began."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from tests.agents import Agent
from tests.daemon.servers import PROGRAM, environment, eventually, free_port

from quarterdeck.core.ids import ROOT
from quarterdeck.formats import relay_documents
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry

RELAY = Agent(hostname="relay.example.com", key_number=3)
NEAR = Agent(hostname="near.example.com", key_number=1)
#: Nobody listens there.
AWAY = "http://127.0.0.1:9"


def enrolled(data: Path, server: str = AWAY) -> Path:
    """The data directory of RELAY below this server, with NEAR behind it."""
    state = data / "agent"
    state.mkdir(mode=0o700, parents=True)
    pem = RELAY.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    settings = {"server": server, "pin": "", "policy_key": "", "status": "accepted"}
    files = {
        "node.id": f"{RELAY.node}\n",
        "node.key": pem.decode(),
        "node.cert": RELAY.certificate,
        "settings.json": json.dumps(settings),
    }
    for name, content in files.items():
        (state / name).write_text(content)
        (state / name).chmod(0o600)
    (data / "mirror").mkdir()
    document = NodesDocument(
        ServerEntry(ROOT, (RELAY.certificate,)),
        {NEAR.node: NodeEntry(NEAR.hostname, RELAY.node, (NEAR.certificate,))},
    )
    (data / "mirror" / "nodes.json").write_bytes(relay_documents.encode(document))
    return data


class LoneRelay:
    """One process."""

    def __init__(self, data: Path, **more: str) -> None:
        self.data = data
        self.port = free_port()
        self.log = data.parent / f"{data.name}.log"
        command = [*PROGRAM, "relay", "--data-dir", str(data), "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment() | more
            )

    def wait(self) -> None:
        """Until it answers."""
        answers = eventually(lambda: self.process.poll() is not None or self.answers())
        assert answers, self.log.read_text()
        assert self.process.poll() is None, self.log.read_text()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/rudder/relay-api/1/system/info").status_code == 200
        except (OSError, httpx.TransportError):
            return False

    def ask(self, method: str, path: str, body: bytes = b"", **more: Any) -> httpx.Response:
        """A request of its own machine, over TLS that its authority vouches for."""
        trusting = ssl.create_default_context(cafile=str(self.data / "keys" / "ca.pem"))
        with httpx.Client(base_url=f"https://127.0.0.1:{self.port}", verify=trusting, trust_env=False) as client:
            return client.request(method, path, content=body or None, timeout=20, **more)

    def said(self, text: str) -> bool:
        """Whether it has written this to its log."""
        return text in self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Stop it as an administrator does; its exit status."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def relaying(data: Path, settings: str = "", more: Mapping[str, str] | None = None) -> Iterator[LoneRelay]:
    """A relay that answers, ended afterwards."""
    (data / "quarterdeck.toml").write_text(settings)
    relay = LoneRelay(data, **(more or {}))
    try:
        relay.wait()
        yield relay
    finally:
        if relay.process.poll() is None:
            relay.process.kill()
            relay.process.wait()
