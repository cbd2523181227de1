# SPDX-License-Identifier: Apache-2.0
"""The node's identity: its RSA key, and the self-signed certificate that ties the key to the node id.

The files are `node.key` (PKCS#8, mode 600) and `node.cert`. The arithmetic is in `rsa.py`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Optional

from quarterdeck_agent import der, documents, rsa, storing
from quarterdeck_agent.errors import AgentError

KEY_FILE = "node.key"
CERTIFICATE_FILE = "node.cert"

_VALIDITY_SECONDS = 3653 * 24 * 3600
_SIGNATURE_ALGORITHM = der.element(der.SEQUENCE, der.oid("1.2.840.113549.1.1.13"), der.element(der.NULL))
_UID = der.oid("0.9.2342.19200300.100.1.1")


@dataclass(frozen=True)
class Key:
    """A private key and its certificate (PEM)."""

    private: bytes
    certificate: str

    def sign(self, message: bytes) -> bytes:
        """RSA PKCS#1 v1.5 with SHA-512. Raises NoProvider."""
        return rsa.sign(self.private, message)

    def public_pem(self) -> str:
        """The public key, SubjectPublicKeyInfo PEM."""
        return der.to_pem("PUBLIC KEY", rsa.public_of(self.private))


def generate(directory: str, node_id: str) -> Key:
    """Make a key and a certificate for `node_id` and keep them in `directory`. Raises NoProvider, OSError."""
    private = rsa.generate()
    storing.write(os.path.join(directory, KEY_FILE), der.to_pem("PRIVATE KEY", private).encode(), mode=0o600)
    return certify(directory, private, node_id)


def certify(directory: str, private: bytes, node_id: str) -> Key:
    """Give an existing private key a new certificate for `node_id`."""
    text = certificate(private, node_id, time.time())
    storing.write(os.path.join(directory, CERTIFICATE_FILE), text.encode(), mode=0o644)
    return Key(private, text)


def load(directory: str) -> Key:
    """The key kept in `directory`.

    Raises AgentError when there is none, when it cannot be read, or when the certificate is another key's.
    """
    private = load_private(directory)
    try:
        with open(os.path.join(directory, CERTIFICATE_FILE)) as stream:
            text = stream.read()
        if documents.spki_of_certificate(der.from_pem(text)[1]) != rsa.public_of(private):
            raise AgentError(f"The certificate in {directory} belongs to another key; run `quarterdeck-agent check`.")
    except (OSError, ValueError) as error:
        raise AgentError(
            f"The node's certificate in {directory} cannot be read ({error}); run `quarterdeck-agent check`."
        ) from error
    return Key(private, text)


def load_private(directory: str) -> bytes:
    """The private key kept in `directory`, PKCS#8 DER. Raises AgentError when there is none to read."""
    try:
        with open(os.path.join(directory, KEY_FILE)) as stream:
            private = rsa.private_from_pem(stream.read())
        rsa.private_numbers(private)
    except FileNotFoundError as error:
        raise AgentError(f"This node has no key yet ({error.filename} is missing); enrol it first.") from error
    except (OSError, ValueError) as error:
        raise AgentError(f"The node's key in {directory} cannot be read: {error}") from error
    return private


def verify(public_pem: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the public key's (PEM) for `message`; False for a key that cannot be read."""
    try:
        return rsa.PurePython().verify(der.from_pem(public_pem)[1], message, signature)
    except der.Malformed:
        return False


def certificate(private: bytes, node_id: str, now: float) -> str:
    """A self-signed X.509 certificate (PEM), subject UID = `node_id`, valid for ten years from `now`."""
    uid = der.element(der.SEQUENCE, _UID, der.element(der.UTF8, node_id.encode()))
    name = der.element(der.SEQUENCE, der.element(der.SET, uid))
    signed = der.element(
        der.SEQUENCE,
        der.element(0xA0, der.integer(2)),  # version 3
        der.integer(int.from_bytes(os.urandom(15), "big") | 1),
        _SIGNATURE_ALGORITHM,
        name,
        der.element(der.SEQUENCE, der.moment(now - 3600), der.moment(now + _VALIDITY_SECONDS)),
        name,
        rsa.public_of(private),
    )
    signature = der.element(der.BIT_STRING, b"\0", rsa.sign(private, signed))
    return der.to_pem("CERTIFICATE", der.element(der.SEQUENCE, signed, _SIGNATURE_ALGORITHM, signature))


def certified_node(certificate_pem: str) -> Optional[str]:
    """The node id that a certificate names as its subject; None when it names none."""
    try:
        outer = der.children(der.only(der.SEQUENCE, der.from_pem(certificate_pem)[1]))
        subject = der.children(outer[0][1])[5][1]
        for _, relative in der.children(subject):
            kind, text = der.children(der.only(der.SEQUENCE, relative))
            if der.element(*kind) == _UID:
                return text[1].decode()
    except (der.Malformed, IndexError, ValueError):
        pass
    return None
