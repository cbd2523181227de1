# SPDX-License-Identifier: Apache-2.0
"""The server's own keys: made once, renewed in time, never half-written."""

from __future__ import annotations

import base64
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from quarterdeck.core.errors import Unavailable
from quarterdeck.daemon import tls

NOW = datetime.now(UTC).replace(microsecond=0)
URL = "https://quarterdeck.example.org:8443"


def contents(data_dir: Path) -> dict[str, bytes]:
    """Every key file's name and bytes."""
    return {path.name: path.read_bytes() for path in tls.files(data_dir).all()}


def certificate(data_dir: Path) -> x509.Certificate:
    """The server's certificate."""
    return x509.load_pem_x509_certificate(tls.files(data_dir).server_certificate.read_bytes())


@pytest.mark.parametrize(
    ("url", "names"),
    [
        (URL, ("quarterdeck.example.org", "localhost", "127.0.0.1", "::1")),
        ("https://localhost:8443", ("localhost", "127.0.0.1", "::1")),
        ("https://192.0.2.7", ("192.0.2.7", "localhost", "127.0.0.1", "::1")),
        ("https://[2001:DB8::7]:8443", ("2001:db8::7", "localhost", "127.0.0.1", "::1")),
        ("https://bücher.example", ("xn--bcher-kva.example", "localhost", "127.0.0.1", "::1")),
    ],
)
def test_the_names_follow_the_public_url(url: str, names: tuple[str, ...]) -> None:
    assert tls.names(url) == names


def test_all_files_are_private(tmp_path: Path) -> None:
    kept = tls.initialise(tmp_path, URL, NOW)

    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.all()} == {0o600}
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700
    assert len(base64.b64decode(kept.secret_key.read_text())) == 32
    policy = serialization.load_pem_private_key(kept.policy_key.read_bytes(), None)
    assert isinstance(policy, rsa.RSAPrivateKey)
    assert policy.key_size == 3072


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    tls.initialise(tmp_path, URL, NOW)
    before = contents(tmp_path)

    tls.initialise(tmp_path, URL, NOW + timedelta(days=300))

    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("url", "later"), [("https://other.example.org", timedelta(0)), (URL, timedelta(days=tls.SERVER_DAYS - 29))]
)
def test_a_renewed_certificate_keeps_its_pin(tmp_path: Path, url: str, later: timedelta) -> None:
    tls.initialise(tmp_path, URL, NOW)
    before, keys = certificate(tmp_path), contents(tmp_path)

    tls.initialise(tmp_path, url, NOW + later)

    after = certificate(tmp_path)
    assert after.serial_number != before.serial_number
    assert tls.names_in(after) == set(tls.names(url))
    assert tls.spki_pin(after) == tls.spki_pin(before)
    assert contents(tmp_path)["server.key"] == keys["server.key"]


@pytest.mark.parametrize("lost", ["ca.pem", "server.key", "server.pem", "policy.key", "secret.key"])
def test_a_start_after_a_kill_completes_what_is_missing(tmp_path: Path, lost: str) -> None:
    kept = tls.initialise(tmp_path, URL, NOW)
    before = contents(tmp_path)
    (kept.directory / lost).unlink()
    (kept.directory / f".{lost}.half").write_bytes(b"half")

    tls.initialise(tmp_path, URL, NOW)

    after = contents(tmp_path)
    authority = x509.load_pem_x509_certificate(after["ca.pem"])
    certificate(tmp_path).verify_directly_issued_by(authority)
    assert after["ca.key"] == before["ca.key"]
    assert not tls.server_certificate_is_due(tmp_path, URL, NOW)


def test_the_pin_is_the_one_openssl_computes(tmp_path: Path) -> None:
    kept = tls.initialise(tmp_path, URL, NOW)
    public = ["openssl", "x509", "-in", str(kept.server_certificate), "-pubkey", "-noout"]
    shell = f"{' '.join(public)} | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64"

    done = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True)

    assert tls.spki_pin(kept.server_certificate.read_bytes()) == f"sha256//{done.stdout.strip()}"


def test_a_strict_client_accepts_the_chain(tmp_path: Path) -> None:
    kept = tls.initialise(tmp_path, URL, NOW)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(kept.server_certificate, kept.server_key)
    client = ssl.create_default_context(cafile=str(kept.ca_certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with server.wrap_socket(theirs, server_side=True) as wrapped:
            wrapped.sendall(b"hello")

    thread = threading.Thread(target=answer)
    thread.start()
    with client.wrap_socket(ours, server_hostname="quarterdeck.example.org") as wrapped:
        received = wrapped.recv(5)
    thread.join()

    assert received == b"hello"


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        (NOW - timedelta(days=2), "before this server's keys were made: set the clock"),
        (NOW + timedelta(days=tls.CA_DAYS + 1), "authority has ended"),
    ],
)
def test_a_clock_that_contradicts_the_keys_is_refused(tmp_path: Path, when: datetime, sentence: str) -> None:
    tls.initialise(tmp_path, URL, NOW)

    with pytest.raises(Unavailable, match=sentence):
        tls.initialise(tmp_path, URL, when)


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    kept = tls.initialise(tmp_path, URL, NOW)
    kept.server_key.write_text("rubbish")

    with pytest.raises(Unavailable, match=f"{kept.server_key} is damaged"):
        tls.initialise(tmp_path, URL, NOW)
