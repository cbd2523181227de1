# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: AES-GCM under the server's secret key, and keyed digests that stand for them in the history."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarterdeck.core.errors import Unavailable

_NONCE_BYTES = 12
_DIGEST_BYTES = 16


class WrongKey(Unavailable):
    """What was sealed was sealed with another key than the one that is there: trying again does not help."""


class Sealer:
    """Seals with one key of 16, 24 or 32 bytes. Without a key nothing can be sealed or opened."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def seal(self, plain: bytes) -> bytes:
        """The bytes, encrypted. Raises Unavailable."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._needed()).encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises WrongKey, and Unavailable without a key."""
        try:
            return AESGCM(self._needed()).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except InvalidTag as error:
            message = "A secret was encrypted with another key than the present keys/secret.key."
            raise WrongKey(message) from error

    def digest(self, plain: bytes) -> str:
        """What may be shown in place of a secret: equal for equal secrets, and no way back. Raises Unavailable."""
        found = hmac.new(self._needed(), plain, hashlib.sha256).digest()
        return f"sealed:{found[:_DIGEST_BYTES].hex()}"

    def _needed(self) -> bytes:
        if self._key is None:
            raise Unavailable("This process has no key for secrets.")
        return self._key
