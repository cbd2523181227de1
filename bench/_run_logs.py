# SPDX-License-Identifier: Apache-2.0
"""Run logs of genuine agents for benchmarks: 74 lines each, signed by the `openssl` program with RSA-4096, compressed.

And the nodes that they are of, with a policy that expects what they report.
"""

from __future__ import annotations

import gzip
import subprocess
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests import agents
from tests.agents import give_policy, item
from tests.common import run_logs

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node
from quarterdeck.formats import agent
from quarterdeck.services import compliance
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

KEYS = 4
_SIGN = ("openssl", "smime", "-sign", "-text", "-nocerts")


class Subject(NamedTuple):
    """A node: its certificate (PEM), and which of the few keys it has."""

    node: str
    certificate: str
    key: int


class File(NamedTuple):
    """What an agent puts."""

    name: str
    content: bytes


class Signers:
    """Some keys and certificates in a directory, and runs that are signed with them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys = [rsa.generate_private_key(public_exponent=65537, key_size=4096) for _ in range(KEYS)]
        for number, key in enumerate(self._keys):
            text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (directory / f"key-{number}.pem").write_bytes(text)

    def subjects(self, count: int) -> list[Subject]:
        """So many nodes."""
        made = []
        for number in range(count):
            node, key = str(uuid.uuid4()), number % KEYS
            made.append(Subject(node, agents.certificate(self._keys[key], node), key))
            (self._directory / f"{node}.pem").write_text(made[-1].certificate)
        return made

    def runs(self, subjects: Sequence[Subject], start: datetime, *, changed: int = 0) -> list[File]:
        """A run of each node, of whose 68 reports `changed` say something else than usual."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda one: self._run(one, start, changed), subjects))

    def _run(self, one: Subject, start: datetime, changed: int) -> File:
        text = run_logs.usual(one.node, start).replace("result_success", "result_error", changed)
        files = ["-signer", f"{one.node}.pem", "-inkey", f"key-{one.key}.pem"]
        signed = subprocess.run(
            [*_SIGN, *files], cwd=self._directory, input=text.encode(), capture_output=True, check=True
        ).stdout
        return File(run_logs.file_name(one.node, start, ".log.gz"), gzip.compress(signed, mtime=0))


def add_nodes(database: Database, subjects: Sequence[Subject], begin: datetime, server: str = ROOT) -> None:
    """Accept these nodes, below a policy server, with a policy that expects what they report, from a moment on."""
    calls: dict[tuple[str, str], list[agent.Call]] = {}
    for line in run_logs.usual("x", begin).splitlines():
        fields = line.partition("R: @@")[2].split("@@")
        if len(fields) > 6 and fields[1] != "control":
            _, _, rule, directive, report_id, component, value, *_ = fields
            made: agent.Call = {
                "type": "call",
                "id": report_id,
                "component": component,
                "method": "package_present",
                "value": value,
                "params": {},
                "condition": "any",
                "report": True,
            }
            calls.setdefault((rule, directive), []).append(made)
    items = [item(*some, rule=rule, directive=directive) for (rule, directive), some in calls.items()]
    with database.unit_of_work(Provenance(actor="bench")) as store:
        ctx = Context(account=SYSTEM, store=store)
        for one in subjects:
            key = AgentKey(pem=one.certificate, status=KeyStatus.CERTIFIED)
            name = f"{one.node[:8]}.example.com"
            store.nodes.add(Node(id=NodeId(one.node), hostname=name, key=key, policy_server=NodeId(server)))
        nodes = [one.node for one in subjects]
        give_policy(ctx, nodes, items, config_id=run_logs.CONFIG_ID, begin=begin)
        compliance.configuration_changed(ctx, nodes)
        store.commit()


def moments(count: int) -> list[datetime]:
    """Starts of so many runs, five minutes apart, the last one just over."""
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=10)
    return [last - timedelta(minutes=5 * number) for number in reversed(range(count))]
