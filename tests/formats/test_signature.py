# SPDX-License-Identifier: Apache-2.0
"""Signatures and certificates of nodes, as our agent and as genuine ones make them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.agents import Agent, certificate, private_key, sign

from quarterdeck.core.errors import Invalid
from quarterdeck.formats import signature
from quarterdeck_agent import der, documents, keys, rsa

NODE = "0a1b2c3d-0000-4000-8000-000000000001"


def pkcs8(number: int = 0) -> bytes:
    return private_key(number).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_what_our_agent_signs_is_verified() -> None:
    message = documents.parcel_message("report", NODE, b"body")
    pem = keys.certificate(pkcs8(), NODE, 1_700_000_000)

    signed = rsa.sign(pkcs8(), message)

    assert signature.verify(pem, message, signed)
    assert not signature.verify(pem, message + b"x", signed)
    assert not signature.verify(pem, message, signed[:-1] + bytes([signed[-1] ^ 1]))
    assert not signature.verify(pem, message, b"")
    assert signature.certified_node(pem) == NODE


def test_what_the_server_signs_our_agent_verifies() -> None:
    pem = private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = signature.SigningKey(pem)

    assert keys.verify(key.public_pem, b"policy", key.sign(b"policy"))


def test_a_key_and_its_certificate_are_the_same_key() -> None:
    public = der.to_pem("PUBLIC KEY", rsa.public_of(pkcs8()))

    assert signature.same_key(public, certificate(private_key(), NODE))
    assert not signature.same_key(public, certificate(private_key(1), NODE))


def _elliptic() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN CERTIFICATE-----\n", _elliptic(), "-----BEGIN" + "x" * 40_000])
def test_what_is_no_rsa_key_is_refused(pem: str) -> None:
    with pytest.raises(Invalid):
        signature.verify(pem, b"", b"")


def test_a_sign_file_holds_the_signature_in_hexadecimal() -> None:
    one = Agent()
    signed = sign(one.key, b"<xml/>")
    content = f"header=rudder-signature-v1\nalgorithm=sha512\ndigest={signed.hex()}\n".encode()

    assert signature.verify(one.certificate, b"<xml/>", signature.parse_sign_file(content).signature)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"algorithm=sha512\ndigest=00\n", "header"),
        (b"header=rudder-signature-v1\nalgorithm=md5\ndigest=00\n", "The algorithm 'md5'"),
        (b"header=rudder-signature-v1\nalgorithm=sha512\ndigest=xyz\n", "hexadecimal"),
        (b"\xff\xfe", "not text"),
    ],
)
def test_a_wrong_sign_file_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        signature.parse_sign_file(content)
