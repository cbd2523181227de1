# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a request of an agent, told apart as the agent tells it apart.

Unauthenticated
├── ClockSkew       signed at a time that differs too much from ours; trying again with our time may help
├── BadSignature    not signed by the key we know, or a nonce that came before
├── UnknownNode     no node has this id
└── BadToken        an enrolment token that is wrong, used up or expired
Conflict
└── NotAccepted     the node waits for an administrator, or has no policy yet
"""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.errors import Conflict, Invalid, Unauthenticated
from quarterdeck.core.ids import NodeId


class ClockSkew(Unauthenticated):
    """The request's time is not close enough to ours, which was `now` (Unix time)."""

    def __init__(self, message: str, now: int) -> None:
        super().__init__(message)
        self.now = now


class BadSignature(Unauthenticated):
    """The node's key did not sign this, or not for the first time."""


class UnknownNode(Unauthenticated):
    """No node has this id."""


class BadToken(Unauthenticated):
    """The enrolment token does not open anything."""


class NotAccepted(Conflict):
    """The node may not have what it asks for yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signed request claims; nothing of it is believed before its signature was verified."""

    node: NodeId
    #: Unix time, seconds, as sent
    time: str
    #: 32 hex digits
    nonce: str
    signature: bytes
    #: the bytes that the signature covers
    message: bytes


def check_time(claimed: str, now: float, tolerance_seconds: int) -> None:
    """Raises ClockSkew unless the claimed Unix time is close enough to `now`, Invalid when it is not a number."""
    if not (claimed.isascii() and claimed.isdecimal() and len(claimed) <= 12):
        raise Invalid("The request's time is not a Unix time in seconds.")
    difference = int(claimed) - now
    if abs(difference) > tolerance_seconds:
        direction = "ahead of" if difference > 0 else "behind"
        raise ClockSkew(f"The node's clock is {abs(difference):.0f} s {direction} the server's.", int(now))
