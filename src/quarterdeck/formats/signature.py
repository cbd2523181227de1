# SPDX-License-Identifier: Apache-2.0
"""RSA signatures (PKCS#1 v1.5, SHA-512) by nodes and by the server, node certificates, and `.sign` files.

Keys travel as PEM: a public key or a certificate. Parsed ones are cached by their text.
"""

from __future__ import annotations

import base64
import functools
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from quarterdeck.core.errors import Invalid

MIN_KEY_BITS = 2048
MAX_KEY_BITS = 8192
_MAX_PEM = 32 * 1024
_CACHED_KEYS = 20_000


@functools.lru_cache(maxsize=_CACHED_KEYS)
def public_key(pem: str) -> rsa.RSAPublicKey:
    """The RSA key of a PEM public key or certificate. Raises Invalid."""
    if len(pem) > _MAX_PEM:
        raise Invalid("The key is too long.")
    try:
        key: object
        if "BEGIN CERTIFICATE" in pem:
            key = x509.load_pem_x509_certificate(pem.encode()).public_key()
        else:
            key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("The key is neither a PEM certificate nor a PEM public key.", detail=str(error)) from error
    if not isinstance(key, rsa.RSAPublicKey) or not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        raise Invalid(f"The key is not an RSA key of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits.")
    return key


def verify(pem: str, message: bytes, signature: bytes) -> bool:
    """Whether the key of `pem` signed the message. Raises Invalid for a key that cannot be read."""
    try:
        public_key(pem).verify(signature, message, padding.PKCS1v15(), hashes.SHA512())
    except InvalidSignature:
        return False
    return True


def same_key(one: str, other: str) -> bool:
    """Whether two PEM texts hold the same public key, however they are wrapped. Raises Invalid."""
    return public_key(one).public_numbers() == public_key(other).public_numbers()


def certified_node(pem: str) -> str:
    """The node id that a certificate names: the UID of its subject. Raises Invalid."""
    try:
        names = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.USER_ID)
    except ValueError as error:
        raise Invalid("The certificate cannot be read.", detail=str(error)) from error
    if len(names) != 1:
        raise Invalid("The certificate's subject has no UID.")
    return str(names[0].value)


class SigningKey:
    """The server's own key, that signs policies."""

    def __init__(self, pem: bytes) -> None:
        """Raises Invalid when it is not a PEM RSA private key without a password."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Invalid("The policy-signing key cannot be read.", detail=str(error)) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Invalid("The policy-signing key is not an RSA key.")
        self._key = key
        self.public_pem = (
            key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        return self._key.sign(message, padding.PKCS1v15(), hashes.SHA512())


class SignFile(NamedTuple):
    """A `.sign` file; the signature is over the uncompressed inventory."""

    signature: bytes


_HEADER = "rudder-signature-v1"


def parse_sign_file(content: bytes) -> SignFile:
    """Read a `.sign` file: `key=value` lines. Raises Invalid, in words that name the line at fault."""
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise Invalid("The signature file is not text.") from None
    pairs = [line.partition("=") for line in lines if "=" in line]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if fields.get("header") != _HEADER:
        raise Invalid(f"The signature file does not begin with header={_HEADER}.")
    algorithm = fields.get("algorithm", "")
    if algorithm.lower() != "sha512":
        raise Invalid(f"The algorithm '{algorithm}' contains in the digest file is not authorized, only 'sha512' is.")
    try:
        return SignFile(bytes.fromhex(fields.get("digest", "")))
    except ValueError:
        raise Invalid("The digest of the signature file is not hexadecimal.") from None


def decode_base64(text: str) -> bytes:
    """The signature in a header; empty when the text is not base64, which no key verifies."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
