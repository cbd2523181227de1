# SPDX-License-Identifier: Apache-2.0
"""What relays and the servers above them say to each other: paths, documents, and the bytes that are signed.

It stands below the agent protocol and is signed like it, by the relay's node key; `formats/agent.py` has the rest.
A relay that passes a node's request on unaltered adds a voucher, which says through whom the node came.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.formats import agent, signature

PATH_NODES = agent.PATH_PREFIX + "/relay/nodes"
PATH_POLICIES = agent.PATH_PREFIX + "/relay/policies"
PATH_PARCELS = agent.PATH_PREFIX + "/relay/parcels"
PATH_TREE = agent.PATH_PREFIX + "/relay/tree"
PATH_FILES = agent.PATH_PREFIX + "/relay/files"
#: Files of single nodes, and common ones: their tree, and below it each by its digest.
PATH_SHARE = agent.PATH_PREFIX + "/relay/share"
PATH_RESOURCES = agent.PATH_PREFIX + "/relay/resources"

#: Relay, Unix time, nonce and signature (base64) of the relay that a node's request came through first.
HEADER_VOUCHER = "Quarterdeck-Relay"
#: With the request for the nodes list: where the server above reaches this relay.
HEADER_ADDRESS = "Quarterdeck-Relay-Address"
#: With the same: what `relay_states.py` writes.
HEADER_STATE = "Quarterdeck-Relay-State"
#: The longest batch of parcels, in bytes: a full spool file, and the longest parcel behind it.
MAX_BATCH_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


class ServerEntry(msgspec.Struct, frozen=True):
    """The server above, and the keys (PEM) that it signs its requests to a relay with."""

    id: str
    keys: tuple[str, ...]


class NodeEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node below a relay, at any depth."""

    hostname: str
    policy_server: str
    keys: tuple[str, ...] = ()
    relay: bool = False


class NodesDocument(msgspec.Struct, frozen=True):
    """A relay's nodes list."""

    server: ServerEntry
    nodes: dict[str, NodeEntry]


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a tree; the time of its last change in nanoseconds."""

    sha256: str
    size: int
    modified: int


class TreeDocument(msgspec.Struct, frozen=True):
    """The shared folder, or what a relay gets of the files of nodes, by paths with slashes."""

    files: dict[str, FileEntry]


class Slip(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a relay says of a parcel that it carries: whose it is, and when it arrived (Unix time).

    A genuine agent's run log has the name of its `file`; it is no parcel, and what is in it is looked at when it is
    kept.
    """

    kind: Literal["report", "inventory", "run-log"]
    node: str
    at: float
    file: str = ""


class Refused(msgspec.Struct, frozen=True):
    """A parcel that can never be taken, by its position in the batch; `invalid`: of nobody who is known."""

    position: int
    reason: str
    kind: Literal["error", "invalid"] = "error"


class Taken(msgspec.Struct, frozen=True):
    """What became of a batch: all are kept but these."""

    refused: tuple[Refused, ...] = ()


def encode(document: Any) -> bytes:
    """JSON with sorted keys, so that equal documents have equal bytes."""
    return msgspec.json.encode(document, order="sorted")


def decode(body: bytes, kind: type[T]) -> T:
    """A document. Raises Invalid."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Invalid(f"The document of the server above cannot be read: {error}") from error


def etag(body: bytes) -> str:
    """Tells one document from another, with its quotes."""
    return f'"{agent.digest(body)}"'


def pack_slip(slip: Slip, parcel: bytes) -> bytes:
    """A record of a relay's spool."""
    return msgspec.json.encode(slip) + b"\n" + parcel


def unpack_slip(record: bytes) -> tuple[Slip, bytes]:
    """Slip and parcel of a record. Raises Invalid."""
    line, _, parcel = record.partition(b"\n")
    return decode(line, Slip), parcel


def pack_batch(records: Sequence[bytes]) -> bytes:
    """Several records as one body."""
    return msgspec.msgpack.encode(list(records))


def unpack_batch(body: bytes) -> list[bytes]:
    """The records of a body. Raises Invalid."""
    try:
        return msgspec.msgpack.decode(body, type=list[bytes])
    except msgspec.MsgspecError as error:
        raise Invalid(f"The batch cannot be read: {error}") from error


def voucher_message(relay: str, time: str, nonce: str, node_signature: str) -> bytes:
    """The bytes that a relay signs for a node's request, which is all in that one's signature."""
    return f"quarterdeck-relayed-v1\n{relay}\n{time}\n{nonce}\n{node_signature}\n".encode()


def written_voucher(relay: str, time: str, nonce: str, signed: bytes) -> str:
    """The value of HEADER_VOUCHER."""
    return " ".join((relay, time, nonce, base64.b64encode(signed).decode()))


def read_voucher(text: str) -> tuple[str, str, str, bytes]:
    """Relay, time, nonce and signature. Raises Invalid."""
    parts = text.split()
    if len(parts) != 4:
        raise Invalid(f"The header {HEADER_VOUCHER} cannot be read.")
    relay, time, nonce, signed = parts
    return relay, time, nonce, signature.decode_base64(signed)
