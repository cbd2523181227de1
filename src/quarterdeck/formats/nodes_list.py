# SPDX-License-Identifier: Apache-2.0
"""A relay's nodes list (JSON), the notations of key hashes in it, and the nodes' certificates (PEM, one after another).

A hash that cannot be read counts as none: its node can do less, and the others are not held up.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import KeyHash, ListedNode

log = logging.getLogger(__name__)

#: algorithm -> bytes of its digest
ALGORITHMS = {"sha256": 32, "sha512": 64}
_NOTATION = re.compile(r"(sha256|sha512)(//|:)(.*)")
_CACHED_HASHES = _CACHED_CERTIFICATES = 20_000
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_PUBLIC = "-----BEGIN PUBLIC KEY-----"


class _Entry(msgspec.Struct):
    hostname: str
    policy_server: str = msgspec.field(name="policy-server")
    key_hash: Any = msgspec.field(name="key-hash", default=None)


_decoder = msgspec.json.Decoder(dict[str, _Entry])


def parse(content: bytes) -> dict[NodeId, ListedNode]:
    """Read a nodes list; of two entries for one node the last counts. Raises Invalid."""
    try:
        entries = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The nodes list cannot be read: {error}") from error
    return {
        NodeId(node): ListedNode(entry.hostname, NodeId(entry.policy_server), key_hash(entry.key_hash))
        for node, entry in entries.items()
    }


def written(nodes: Mapping[NodeId, ListedNode]) -> bytes:
    """A nodes list as text, sorted by id, so that equal lists have equal bytes."""
    document = {
        one: {
            "hostname": node.hostname,
            "key-hash": notation(node.key_hash) if node.key_hash is not None else "sha256:",
            "policy-server": node.policy_server,
        }
        for one, node in sorted(nodes.items())
    }
    return msgspec.json.encode(document)


def key_hash(text: object) -> KeyHash | None:
    """A key hash, `sha256:HEX` or `sha256//BASE64` (or sha512); None for what is none."""
    found = _NOTATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    algorithm, notation, digits = found.groups()
    try:
        digest = base64.b64decode(digits, validate=True) if notation == "//" else binascii.unhexlify(digits)
    except ValueError:
        return None
    return KeyHash(algorithm, digest) if len(digest) == ALGORITHMS[algorithm] else None


def notation(hash_: KeyHash) -> str:
    """A key hash as text, as `key_hash` reads it; pins are written the same way."""
    return f"{hash_.algorithm}//{base64.b64encode(hash_.digest).decode()}"


def fits(hash_: KeyHash, public: bytes) -> bool:
    """Whether this is the hash of a public key (DER, SubjectPublicKeyInfo)."""
    return hashlib.new(hash_.algorithm, public).digest() == hash_.digest


@functools.lru_cache(maxsize=_CACHED_HASHES)
def hash_of(pem: str) -> KeyHash | None:
    """The hash of the key in a PEM public key or certificate; None when there is none to be read."""
    try:
        if pem.lstrip().startswith(_PUBLIC):
            public = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
        else:
            public = public_key_of(x509.load_pem_x509_certificate(pem.encode()))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return KeyHash("sha256", hashlib.sha256(public).digest())


def public_key_of(certificate: x509.Certificate) -> bytes:
    """The public key of a certificate as DER. Raises ValueError or UnsupportedAlgorithm."""
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def parse_certificates(content: bytes) -> dict[NodeId, tuple[str, ...]]:
    """The certificates of a file, PEM each, by the node in their subject's UID, all of a node's. Raises Invalid.

    One without a UID is left out.
    """
    found: dict[NodeId, tuple[str, ...]] = {}
    # A regular expression takes a hundred times as long for thousands of them.
    head, *rest = content.split(_BEGIN)
    if not rest and head.strip():
        raise Invalid("The certificates cannot be read: there are none.")
    for body in rest:
        end = body.find(_END)
        piece = _BEGIN + (body[: end + len(_END)] if end >= 0 else body)
        node = _owner(piece)
        if node is None:
            log.warning("A certificate without a UID in its subject is left out.")
            continue
        found[node] = (*found.get(node, ()), piece.decode())
    return found


@functools.lru_cache(maxsize=_CACHED_CERTIFICATES)
def _owner(pem: bytes) -> NodeId | None:
    """Remembered: from one reading of a long file to the next few certificates change."""
    try:
        return certified_node(x509.load_pem_x509_certificate(pem))
    except ValueError as error:
        raise Invalid(f"The certificates cannot be read: {error}") from error


def certified_node(certificate: x509.Certificate) -> NodeId | None:
    """The one node that a certificate names; None when it names none."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.USER_ID)
    except ValueError:
        return None
    return NodeId(str(names[0].value)) if len(names) == 1 and names[0].value else None
