# SPDX-License-Identifier: Apache-2.0
"""Keys, signatures and certificates: three providers that agree, checked against other implementations."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as reference

from quarterdeck_agent import der, keys, rsa
from quarterdeck_agent.errors import AgentError, NoProvider

NODE = "9a2c2f4e-0000-4000-8000-000000000123"
MESSAGES = [b"", b"hello", "été\n".encode(), b"x" * 100_000]


def _providers() -> list[Any]:
    kinds: list[Any] = [rsa.LibCrypto, rsa.PurePython]
    if shutil.which("openssl"):
        kinds.append(rsa.OpenSslProgram)
    return [pytest.param(kind, id=kind.name) for kind in kinds]


@pytest.fixture(scope="module")
def private() -> bytes:
    """A key that another implementation made, 2048 bits to be fast."""
    key = reference.generate_private_key(65537, 2048)
    shape = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.DER, shape, serialization.NoEncryption())


@pytest.mark.parametrize("provider", _providers())
@pytest.mark.parametrize("message", MESSAGES, ids=["empty", "short", "utf8", "long"])
def test_every_provider_signs_as_the_reference_does(provider: Any, message: bytes, private: bytes) -> None:
    key = serialization.load_der_private_key(private, None)
    assert isinstance(key, reference.RSAPrivateKey)
    expected = key.sign(message, padding.PKCS1v15(), hashes.SHA512())
    assert provider().sign(private, message) == expected
    assert provider().verify(rsa.public_of(private), message, expected) is True


def _spoil(signature: bytes, how: str) -> bytes:
    spoilt = {
        "one bit": bytes([signature[0] ^ 1]) + signature[1:],
        "short": signature[:-1],
        "long": signature + b"\0",
        "empty": b"",
        "zeros": bytes(len(signature)),
        "huge": b"\xff" * len(signature),
    }
    return spoilt[how]


@pytest.mark.parametrize("provider", _providers())
@pytest.mark.parametrize("how", ["one bit", "short", "long", "empty", "zeros", "huge"])
def test_every_provider_refuses_a_wrong_signature(provider: Any, how: str, private: bytes) -> None:
    signature = _spoil(rsa.PurePython().sign(private, b"hello"), how)
    assert provider().verify(rsa.public_of(private), b"hello", signature) is False


@pytest.mark.parametrize("provider", _providers())
def test_every_provider_refuses_another_message(provider: Any, private: bytes) -> None:
    signature = rsa.PurePython().sign(private, b"hello")
    assert provider().verify(rsa.public_of(private), b"hellp", signature) is False


def test_a_signature_with_another_digest_is_refused(private: bytes) -> None:
    key = serialization.load_der_private_key(private, None)
    assert isinstance(key, reference.RSAPrivateKey)
    signature = key.sign(b"hello", padding.PKCS1v15(), hashes.SHA256())
    assert rsa.PurePython().verify(rsa.public_of(private), b"hello", signature) is False


def test_a_damaged_private_key_signs_nothing(private: bytes) -> None:
    numbers = rsa.private_numbers(private)
    numbers[6] ^= 2  # dp
    inner = der.element(der.SEQUENCE, *[der.integer(number) for number in numbers])
    damaged = rsa.private_from_pem(der.to_pem("RSA PRIVATE KEY", inner))
    with pytest.raises(rsa.ProviderFailed, match="inconsistent"):
        rsa.PurePython().sign(damaged, b"hello")


@pytest.mark.parametrize("provider", [item for item in _providers() if item.values[0] is not rsa.PurePython])
def test_a_generated_key_has_4096_bits_and_is_read_by_others(provider: Any) -> None:
    key = serialization.load_der_private_key(provider().generate(), None)
    assert isinstance(key, reference.RSAPrivateKey)
    assert key.key_size == 4096


def test_the_certificate_names_the_node_and_is_valid_for_ten_years(node_key: Path) -> None:
    loaded = keys.load(str(node_key))
    certificate = x509.load_pem_x509_certificate(loaded.certificate.encode())
    uid = certificate.subject.get_attributes_for_oid(x509.ObjectIdentifier("0.9.2342.19200300.100.1.1"))
    assert [attribute.value for attribute in uid] == [(node_key / "node.id").read_text().strip()]
    certificate.verify_directly_issued_by(certificate)
    years = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days / 365.25
    assert 9.9 < years < 10.1
    assert certificate.version is x509.Version.v3


def test_a_certificate_beyond_2049_has_a_readable_end(private: bytes) -> None:
    text = keys.certificate(private, NODE, 2_400_000_000)  # 2046
    assert x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc.year == 2056


def test_the_private_key_is_readable_by_its_owner_only(node_key: Path, tmp_path: Path) -> None:
    keys.certify(str(tmp_path), keys.load_private(str(node_key)), NODE)
    assert (node_key / keys.KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program")
def test_openssl_reads_the_key_and_verifies_its_signature(node_key: Path, tmp_path: Path) -> None:
    key = keys.load(str(node_key))
    (tmp_path / "public").write_text(key.public_pem())
    (tmp_path / "signature").write_bytes(key.sign(b"hello"))
    command = ["openssl", "dgst", "-sha512", "-verify", str(tmp_path / "public")]
    done = subprocess.run(
        [*command, "-signature", str(tmp_path / "signature")], input=b"hello", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert keys.verify(key.public_pem(), b"hello", key.sign(b"hello"))


def test_both_forms_of_private_pem_are_the_same_key(private: bytes) -> None:
    key = serialization.load_der_private_key(private, None)
    shape = serialization.PrivateFormat.TraditionalOpenSSL
    text = key.private_bytes(serialization.Encoding.PEM, shape, serialization.NoEncryption()).decode()
    assert rsa.private_from_pem(text) == private


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"])
def test_a_key_that_cannot_be_read_verifies_nothing(text: str) -> None:
    assert keys.verify(text, b"hello", b"x" * 512) is False


def test_a_missing_key_says_that_the_node_must_enrol(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="enrol it first"):
        keys.load(str(tmp_path))


def test_the_certificate_of_another_key_is_refused(node_key: Path, private: bytes, tmp_path: Path) -> None:
    (tmp_path / keys.KEY_FILE).write_bytes((node_key / keys.KEY_FILE).read_bytes())
    (tmp_path / keys.CERTIFICATE_FILE).write_text(keys.certificate(private, NODE, 1_700_000_000))
    with pytest.raises(AgentError, match="another key"):
        keys.load(str(tmp_path))


_WITHOUT_PROVIDERS = """
import ctypes
from quarterdeck_agent import rsa
def refuse(*_):
    raise OSError("no such library")
ctypes.CDLL = refuse
try:
    rsa.generate()
except rsa.NoProvider as error:
    print(error)
print(rsa.PurePython.name in [provider.name for provider in rsa.providers()], len(list(rsa.providers())))
"""


def test_without_any_provider_the_error_names_the_package(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": "src", "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PROVIDERS], env=environment, capture_output=True, text=True, check=True
    )
    assert "install the package openssl" in done.stdout
    assert done.stdout.endswith("True 1\n")
    assert issubclass(NoProvider, AgentError)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no block", "no PEM block"),
        ("-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n", "base64"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n", "not an unencrypted"),
    ],
)
def test_a_malformed_private_key_is_named_as_such(text: str, reason: str) -> None:
    with pytest.raises(der.Malformed, match=reason):
        rsa.private_from_pem(text)


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x05\x02\x01", b"\x30\x82\xff\xff\x00", b"\x04\x00", b"\x30\x00"])
def test_truncated_keys_are_malformed_never_a_crash(data: bytes) -> None:
    with pytest.raises(der.Malformed):
        rsa.private_numbers(data)
