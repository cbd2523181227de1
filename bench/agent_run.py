# SPDX-License-Identifier: Apache-2.0
"""How long one agent run takes when nothing is to be changed, and what memory it needs at most.

    python bench/agent_run.py [--resources 50] [--rounds 15] [--python INTERPRETER]... [--json]

A whole process each time: interpreter start, TLS with pin, policy asked for (unchanged), all resources
audited by real methods on real files, report signed, kept and delivered to a server on loopback.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.agent.server import FakeServer, call, policy, serving
from tools import build_agent

from quarterdeck_agent import keys
from quarterdeck_agent.state import StateDirectory

_ROOT = Path(__file__).resolve().parent.parent
_METHODS = ("file_present", "file_content", "file_lines_present", "permissions", "file_lines_absent")
#: The child's own peak: what the parent used before it became the child does not count.
_PEAK = "import sys,subprocess,resource;subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);"
_PEAK += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


class Row(NamedTuple):
    form: str
    python: str
    median_seconds: float
    worst_seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--python", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    interpreters = options.python or [sys.executable]
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), options.resources, options.rounds, interpreters)
    if options.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print(f"{options.resources} resources, nothing to change; {os.cpu_count()} cores, {platform.platform()}")
    print(f"{'form':<10} {'median':>8} {'worst':>8} {'peak':>8}  interpreter")
    for row in rows:
        times = f"{row.median_seconds:>6.3f} s {row.worst_seconds:>6.3f} s"
        print(f"{row.form:<10} {times} {row.peak_mb:>5.1f} MB  {row.python}")


def measure(scratch: Path, resources: int, rounds: int, interpreters: list[str]) -> list[Row]:
    """Enrol a node at a server on loopback and run it: as an installed package, and as the single file."""
    state = StateDirectory(str(scratch / "state"))
    keys.generate(state.path, state.node_id())
    archive = scratch / "agent.pyz"
    build_agent.build(archive)
    with serving(_server(scratch)) as server:
        settings = {"server": server.url, "pin": server.pin, "policy_key": server.policy_key_pem()}
        state.save_settings(settings)
        state.remember(last_inventory=int(time.time()))
        server.nodes[state.node_id()] = keys.load(state.path).public_pem()
        server.publish(policy(state.node_id(), *[_resource(scratch, number) for number in range(resources)]))
        forms = {"installed": ["-m", "quarterdeck_agent"], "one file": [str(archive)]}
        return [
            _run(form, [python, *start, "run", "--state-dir", state.path], rounds)
            for python in interpreters
            for form, start in forms.items()
        ]


def _run(form: str, command: list[str], rounds: int) -> Row:
    environment = {"PYTHONPATH": str(_ROOT / "src"), "PATH": os.environ["PATH"]}
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    probe = subprocess.run(
        [sys.executable, "-S", "-c", _PEAK, *command], env=environment, check=True, capture_output=True, text=True
    )
    warm = times[1:]  # the first run unpacks and compiles
    return Row(form, command[0], statistics.median(warm), max(warm), int(probe.stdout) / 1024)


def _resource(scratch: Path, number: int) -> Any:
    path = scratch / f"file{number}"
    path.write_text(f"line {number}\n")
    path.chmod(0o644)
    method = _METHODS[number % len(_METHODS)]
    lines = "nothing like it" if method == "file_lines_absent" else f"line {number}"
    params = {"path": str(path), "lines": lines, "enforce": "true", "mode": "644"}
    return call(method, str(path), params=params)


def _server(scratch: Path) -> FakeServer:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = scratch / "server.pem"
    path.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return FakeServer(path, key, "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode())


if __name__ == "__main__":
    main()
