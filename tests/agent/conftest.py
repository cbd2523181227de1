# SPDX-License-Identifier: Apache-2.0
"""A running server, and state directories with and without enrolment at it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.agent.server import FakeServer, serving

from quarterdeck_agent import keys
from quarterdeck_agent.state import StateDirectory


@pytest.fixture(scope="session")
def server_identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, rsa.RSAPrivateKey, str]:
    """A server certificate with its key in one file, the key, and the pin."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another-name.example")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + dt.timedelta(days=2))
    certificate = builder.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("server") / "server.pem"
    path.write_bytes(pem)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return path, key, "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()


@pytest.fixture
def server(server_identity: tuple[Path, rsa.RSAPrivateKey, str]) -> Iterator[FakeServer]:
    """A running server on loopback with TLS."""
    with serving(FakeServer(*server_identity)) as fake:
        yield fake


@pytest.fixture(scope="session")
def node_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a node's id, key and certificate, made once because keys are slow to make."""
    path = tmp_path_factory.mktemp("identity")
    state = StateDirectory(str(path))
    keys.generate(str(path), state.node_id())
    return path


@pytest.fixture
def state(tmp_path: Path, node_key: Path) -> StateDirectory:
    """A state directory with an identity, not enrolled."""
    made = StateDirectory(str(tmp_path / "state"))
    for name in ("node.id", keys.KEY_FILE, keys.CERTIFICATE_FILE):
        target = Path(made.at(name))
        target.write_bytes((node_key / name).read_bytes())
        target.chmod(0o600)
    return made


@pytest.fixture
def enrolled(state: StateDirectory, server: FakeServer) -> StateDirectory:
    """A state directory as enrolment leaves it, the inventory sent; enrolment itself is tested elsewhere."""
    settings = {"server": server.url, "pin": server.pin, "policy_key": server.policy_key_pem(), "status": "accepted"}
    state.save_settings(settings)
    state.remember(last_inventory=int(time.time()))
    server.nodes[state.node_id()] = keys.load(state.path).public_pem()
    return state
