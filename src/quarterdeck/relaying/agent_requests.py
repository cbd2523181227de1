# SPDX-License-Identifier: Apache-2.0
"""Signed requests of agents where no database is: checked with the keys of the nodes list.

Nonces are remembered as long as the process lives. What is asked for here may be asked for twice: a request that comes
again after a restart reads, or brings, what it read or brought before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from quarterdeck.core import agent_requests
from quarterdeck.core.agent_requests import BadSignature, Signed, UnknownNode
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, signature
from quarterdeck.relaying.nodes_list import NodesList

#: A nonce can come again as long as its time is acceptable, early or late.
NONCE_LIFE = timedelta(seconds=2 * agent.CLOCK_TOLERANCE_SECONDS)
_NONCE_LENGTH = 32


class Gate:
    """Checks signed requests. Safe for threads."""

    def __init__(self, nodes: NodesList, clock: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._clock = clock
        self._nonces = Nonces(clock)

    def admit(self, signed: Signed) -> NodeId:
        """The node that signed the request. Raises ClockSkew, UnknownNode, BadSignature, Invalid."""
        check_form(signed, self._clock())
        listing = self._nodes.current()
        if not listing.knows(signed.node):
            raise UnknownNode(f"There is no node {signed.node} below this server.")
        if not any(signature.verify(pem, signed.message, signed.signature) for pem in listing.keys_of(signed.node)):
            raise BadSignature("The request is not signed with this node's key.")
        if not self._nonces.claim(signed.node, signed.nonce):
            raise BadSignature("This request came before.")
        return signed.node


def check_form(signed: Signed, now: float) -> None:
    """Raises ClockSkew, and Invalid for headers that cannot be meant so."""
    agent_requests.check_time(signed.time, now, agent.CLOCK_TOLERANCE_SECONDS)
    if len(signed.nonce) != _NONCE_LENGTH or not set(signed.nonce) <= set("0123456789abcdef"):
        raise Invalid(f"The request's nonce is not {_NONCE_LENGTH} hexadecimal digits.")


class Nonces:
    """Those seen lately, in two generations: a whole generation is forgotten when it is too old to come again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._young: set[tuple[str, str]] = set()
        self._old: set[tuple[str, str]] = set()
        self._turn = clock() + NONCE_LIFE.total_seconds()

    def claim(self, node: str, nonce: str) -> bool:
        """Remember a nonce; whether it is new."""
        key = (node, nonce)
        with self._lock:
            if self._clock() >= self._turn:
                self._old, self._young = self._young, set()
                self._turn = self._clock() + NONCE_LIFE.total_seconds()
            if key in self._young or key in self._old:
                return False
            self._young.add(key)
            return True
