# SPDX-License-Identifier: Apache-2.0
"""Commands for nodes on the wire: orders, sealed by the server for one node, and what is told of them, line by line.

An order is a parcel that the agent opens (`agent.py`); on its way nobody needs to look inside. What is told is a JSON
object a line; an empty line means that there is nothing new.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.node_commands import Begun, End, Ending, Event, Order, Output, Stream
from quarterdeck.formats import agent
from quarterdeck.formats.signature import SigningKey

KIND = "command"
NOTHING_NEW = b"\n"


class _Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line: that it begins, a piece of output (base64), or the end."""

    begun: bool = False
    stream: Stream | None = None
    data: str = ""
    end: Ending | None = None
    status: int | None = None
    reason: str = ""


def seal(order: Order, key: SigningKey) -> bytes:
    """The order as its node takes it. Raises Invalid for text that is none, TooLarge."""
    document: agent.Order = {
        "format": agent.FORMAT,
        "node": order.node,
        "id": order.id,
        "expires": order.expires,
        "line": order.line,
        "stdin": base64.b64encode(order.stdin).decode(),
        "environment": dict(order.environment),
        "seconds": order.seconds,
        "user": order.user,
    }
    try:
        body = agent.pack_payload(document)
    except UnicodeEncodeError:
        raise Invalid("A command line or its environment is not text.") from None
    signed = base64.b64encode(key.sign(agent.parcel_message(KIND, order.node, body))).decode()
    parcel = agent.wrap_parcel(KIND, order.node, signed, body)
    if len(parcel) > agent.MAX_ORDER_BYTES:
        raise TooLarge(f"The command with its script is longer than {agent.MAX_ORDER_BYTES} bytes.")
    return parcel


def encode(event: Event) -> bytes:
    """The line of an event."""
    match event:
        case Begun():
            line = _Line(begun=True)
        case Output(stream, data):
            line = _Line(stream=stream, data=base64.b64encode(data).decode())
        case End(ending, status, reason):
            line = _Line(end=ending, status=status, reason=reason)
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes) -> Event | None:
    """The event of a line; None when there is nothing new. Raises Invalid."""
    if not text.strip():
        return None
    try:
        line = msgspec.json.decode(text, type=_Line)
        if line.begun:
            return Begun()
        if line.stream is not None:
            return Output(line.stream, base64.b64decode(line.data, validate=True))
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise Invalid("What is told of a command cannot be read.", detail=str(error)) from error
    if line.end is None:
        raise Invalid("What is told of a command says nothing.")
    return End(line.end, line.status, line.reason)
