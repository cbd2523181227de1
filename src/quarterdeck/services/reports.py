# SPDX-License-Identifier: Apache-2.0
"""Reports of agents: taken onto the spool at once, into the database in batches.

What a request proved is checked before the spool; what can only be known from the database when a batch is kept
(does the node exist, is its key still the one) is checked again there.
"""

from __future__ import annotations

import hashlib

import msgspec

from quarterdeck.core.agent_requests import BadSignature, Signed
from quarterdeck.core.errors import Invalid
from quarterdeck.formats import agent, signature
from quarterdeck.relaying.spool import Spool
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context


class Slip(msgspec.Struct, frozen=True):
    """What stands in front of a spooled parcel. `key` is the digest of the key that verified it."""

    node: str
    nonce: str
    #: Unix time of arrival
    at: float
    key: str


def key_digest(pem: str) -> str:
    """Tells one key from another."""
    return hashlib.sha256(pem.encode()).hexdigest()[:32]


def receive(ctx: Context, gate: Gate, spool: Spool, signed: Signed, data: bytes) -> None:
    """Take a report parcel; it is durable when this returns.

    Raises the errors of `Gate.admit_reporter`, Invalid when the parcel itself is at fault, Unavailable.
    """
    known = gate.admit_reporter(ctx, signed)
    try:
        parcel = agent.open_parcel(data)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    if parcel.kind != "report":
        raise Invalid(f"The parcel is a {parcel.kind}, not a report.")
    if parcel.node != signed.node:
        raise BadSignature("A node can only report about itself.")
    if not signature.verify(known.pem, parcel.message(), signature.decode_base64(parcel.signature)):
        raise Invalid("The report is not signed with this node's key.")
    slip = Slip(node=signed.node, nonce=signed.nonce, at=gate.clock(), key=key_digest(known.pem))
    spool.append(pack(slip, data))


def pack(slip: Slip, parcel: bytes) -> bytes:
    """A record of the spool."""
    return msgspec.json.encode(slip) + b"\n" + parcel


def unpack(record: bytes) -> tuple[Slip, bytes]:
    """Slip and parcel of a record. Raises Invalid."""
    line, _, parcel = record.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Slip), parcel
    except msgspec.MsgspecError as error:
        raise Invalid(f"The record's first line is not a slip: {error}") from error
