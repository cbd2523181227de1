# SPDX-License-Identifier: Apache-2.0
"""Agents for tests: nodes with keys that sign requests and parcels as the contract says. Keys are small, to be fast."""

from __future__ import annotations

import base64
import functools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from quarterdeck.core import policy_items
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node, NodeStatus
from quarterdeck.core.policies import NodePolicy
from quarterdeck.formats import agent
from quarterdeck.services.context import Context
from quarterdeck.storage.policies import Outline

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def private_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys; a number is the same key all through a run of the tests."""
    return _private_key(number)


@functools.cache
def _private_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey, node: str) -> str:
    """A self-signed certificate, PEM, whose subject is the node."""
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, node)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    )
    return builder.sign(key, hashes.SHA512()).public_bytes(serialization.Encoding.PEM).decode()


def sign(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    return key.sign(message, padding.PKCS1v15(), hashes.SHA512())


@dataclass(frozen=True)
class Agent:
    """A node's side of the protocol."""

    node: str = field(default_factory=lambda: str(uuid.uuid4()))
    hostname: str = "web1.example.com"
    key_number: int = 0
    #: what this agent's clock is ahead of the server's, in seconds
    ahead: int = 0

    @property
    def key(self) -> rsa.RSAPrivateKey:
        return private_key(self.key_number)

    @functools.cached_property
    def certificate(self) -> str:
        return certificate(self.key, self.node)

    def headers(self, method: str, target: str, body: bytes = b"", *, nonce: str = "") -> dict[str, str]:
        """The four headers of a signed request."""
        moment, nonce = str(int(time.time()) + self.ahead), nonce or uuid.uuid4().hex
        message = agent.request_message(method, target, self.node, moment, nonce, body)
        return {
            agent.HEADER_NODE: self.node,
            agent.HEADER_TIME: moment,
            agent.HEADER_NONCE: nonce,
            agent.HEADER_SIGNATURE: base64.b64encode(sign(self.key, message)).decode(),
        }

    def parcel(self, kind: str, payload: Any) -> bytes:
        """A signed parcel."""
        return self.wrap(kind, agent.pack_payload(payload))

    def wrap(self, kind: str, body: bytes) -> bytes:
        """A signed parcel of these bytes, whatever they are."""
        signature = base64.b64encode(sign(self.key, agent.parcel_message(kind, self.node, body))).decode()
        return agent.wrap_parcel(kind, self.node, signature, body)

    def enrolment(self, token: str) -> agent.Enrolment:
        """The body of an enrolment."""
        return {
            "node": self.node,
            "hostname": self.hostname,
            "certificate": self.certificate,
            "token": token,
            "agent_version": "0.1.0",
        }

    def run(
        self,
        reports: Sequence[agent.Report],
        *,
        start: datetime = START,
        config_id: str = "20261121-115900-00000001",
        node: str = "",
    ) -> agent.Run:
        """The payload of a report."""
        return {
            "format": agent.FORMAT,
            "node": node or self.node,
            "run_id": str(uuid.uuid4()),
            "config_id": config_id,
            "start": start.isoformat(),
            "end": (start + timedelta(seconds=1)).isoformat(),
            "agent_version": "0.1.0",
            "reports": list(reports),
            "log": [],
        }

    def inventory(self, **changes: Any) -> dict[str, Any]:
        """The payload of an inventory."""
        return {
            "format": agent.FORMAT,
            "node": self.node,
            "hostname": self.hostname,
            "fqdn": self.hostname,
            "date": "2026-11-21T12:00:00+00:00",
            "agent": {"version": "0.1.0"},
            "os": {
                "type": "Linux",
                "name": "Debian",
                "version": "12.8",
                "fullName": "Debian GNU/Linux 12 (bookworm)",
                "kernelVersion": "6.1.0",
            },
            "architecture": "x86_64",
            "ram": 8 * 1024**3,
            "machine": {"id": "m-1", "type": "Virtual", "provider": "qemu"},
            "timezone": {"name": "UTC", "offset": "+00"},
            "ip_addresses": ["127.0.0.1", "192.0.2.7"],
            "accounts": ["root"],
            "software": [{"name": "bash", "version": "5.2"}, {"name": "curl", "version": "8.0"}],
            "file_systems": [{"name": "ext4", "mountPoint": "/", "totalSpace": 10**10, "freeSpace": 10**9}],
            "processes": [{"pid": 1, "name": "init"}],
            **changes,
        }

    def as_node(self, status: NodeStatus = NodeStatus.ACCEPTED) -> Node:
        """The node as the server keeps it."""
        key = AgentKey(pem=self.certificate, status=KeyStatus.CERTIFIED)
        return Node(id=NodeId(self.node), hostname=self.hostname, status=status, key=key)

    def renamed(self, hostname: str) -> Agent:
        return replace(self, hostname=hostname)


def report(
    component: str = "File content",
    value: str = "/etc/motd",
    status: str = "result_success",
    *,
    message: str = "as it should be",
    rule: str = "rule-1",
    directive: str = "directive-1",
    id: str = "call-1",  # noqa: A002
) -> agent.Report:
    """One report."""
    return {
        "rule": rule,
        "directive": directive,
        "id": id,
        "component": component,
        "value": value,
        "status": status,
        "message": message,
    }


def call(number: int, *, component: str = "File content", value: str = "/etc/motd") -> agent.Call:
    """One method call of a policy; reports of `call-{number}` are about it."""
    return {
        "type": "call",
        "id": f"call-{number}",
        "component": component,
        "method": "file_content",
        "value": value,
        "params": {},
        "condition": "any",
        "report": True,
    }


def item(
    *calls: agent.Call | agent.Block, rule: str = "rule-1", directive: str = "directive-1", mode: str = "enforce"
) -> agent.PolicyItem:
    """One directive as a rule brings it."""
    return {
        "rule": rule,
        "directive": directive,
        "name": directive,
        "technique": "technique",
        "version": "1.0",
        "mode": mode,
        "items": list(calls),
    }


def give_policy(
    ctx: Context,
    nodes: Sequence[str],
    items: Sequence[agent.PolicyItem],
    *,
    config_id: str = "20261121-115900-00000001",
    begin: datetime = START - timedelta(minutes=1),
    interval: int = 5,
    reporting: str = "full-compliance",
    heartbeat: int = 1,
) -> None:
    """Let these nodes have a policy, as a generation would."""
    bodies = {agent.digest(body): body for body in (policy_items.canonical(one) for one in items)}
    outline = Outline(fragments=tuple(bodies), rules=(), groups=(), overridden=())
    ctx.store.policies.put_fragments(bodies)
    ctx.store.policies.put_outlines({outline.digest(): outline})
    rows = []
    for node in nodes:
        head = {
            "conditions": [],
            "format": agent.FORMAT,
            "heartbeat_runs": heartbeat,
            "node": node,
            "properties": {},
            "reporting": reporting,
            "schedule": {"interval_minutes": interval, "start_hour": 0, "start_minute": 0, "splay_minutes": 0},
        }
        policy = NodePolicy(
            node=NodeId(node),
            digest=agent.digest(policy_items.canonical([head, *bodies])),
            head=policy_items.canonical(head),
            fragments=tuple(bodies),
            values={},
            overridden=(),
        )
        rows.append((policy, config_id, outline.digest()))
    ctx.store.policies.put(rows, begin)
