# SPDX-License-Identifier: Apache-2.0
"""Public keys of hosts as OpenSSH writes them: `ssh-ed25519 AAAA...`, perhaps with a comment; and fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from quarterdeck.core.errors import Invalid

_PREFIX = "SHA256:"


def normalised(text: str) -> str:
    """Type and key without the comment. Raises Invalid when it is no public key of a host."""
    kind, _, rest = text.strip().partition(" ")
    blob = (rest.split() or [""])[0]
    key = f"{kind} {blob}"
    try:
        load_ssh_public_key(key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("A host's key is written as in its ssh_host_*_key.pub: 'ssh-ed25519 AAAA...'.") from error
    return key


def kind(key: str) -> str:
    """The type of a key text, `ssh-ed25519` for one."""
    return key.partition(" ")[0]


def fingerprint(key: str) -> str:
    """What `ssh-keygen -l` shows of a key text: `SHA256:` and the digest; "" for what is no key."""
    _, blob, *_ = [*key.split(), "", ""]
    try:
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except (binascii.Error, ValueError):
        return ""
    return _PREFIX + base64.b64encode(digest).decode().rstrip("=") if blob else ""
