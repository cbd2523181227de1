# SPDX-License-Identifier: Apache-2.0
"""Who a signed request of an agent really comes from: time, nonce, signature, in the order that costs least.

The gate lives as long as the process and remembers nonces and, for reports only, keys; whoever stores what came
with a remembered key compares it with the present one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from quarterdeck.core.agent_requests import BadSignature, NotAccepted, Signed, UnknownNode
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.formats import signature
from quarterdeck.relaying.agent_requests import NONCE_LIFE, Nonces, check_form
from quarterdeck.services.context import Context
from quarterdeck.storage.agent_requests import KnownKey

#: How long a key is believed without asking the database.
_KEY_LIFE_SECONDS = 60.0
_MAX_KEYS = 200_000


class Gate:
    """Checks signed requests. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._nonces = Nonces(clock)
        self._keys: dict[NodeId, tuple[KnownKey, float]] = {}
        self._loaded = threading.Event()
        self._loading = threading.Lock()

    def recall(self, nonces: Iterable[tuple[str, str]]) -> None:
        """Remember nonces that came before this process began: (node, nonce) each."""
        for node, nonce in nonces:
            self._nonces.claim(node, nonce)

    def admit(self, ctx: Context, signed: Signed) -> KnownKey:
        """The key of the node that signed the request, as it is in the database now, nonce kept there too.

        Raises ClockSkew, UnknownNode, BadSignature, Invalid.
        """
        self.check_form(signed)
        known = key_of(ctx, signed.node)
        _require_signature(known, signed)
        self._claim(ctx, signed)
        if not ctx.store.agent_requests.claim_nonce(signed.node, signed.nonce):
            raise BadSignature("This request came before.")
        return known

    def admit_reporter(self, ctx: Context, signed: Signed) -> KnownKey:
        """The same without writing anything: the key may be a minute old, the nonce is kept by who keeps the report.

        Raises the errors of `admit`, and NotAccepted unless the node is accepted.
        """
        self.check_form(signed)
        known = self._recent_key(ctx, signed.node)
        if not known.pem or not signature.verify(known.pem, signed.message, signed.signature):
            known = self._recent_key(ctx, signed.node, fresh=True)
            _require_signature(known, signed)
        if known.status is not NodeStatus.ACCEPTED:
            known = self._recent_key(ctx, signed.node, fresh=True)
        require_accepted(known)
        self._claim(ctx, signed)
        return known

    def admit_stranger(self, ctx: Context, signed: Signed, certificate: str) -> None:
        """A request signed with the key of the certificate it carries. Raises ClockSkew, BadSignature, Invalid."""
        self.check_form(signed)
        if not signature.verify(certificate, signed.message, signed.signature):
            raise BadSignature("The request is not signed with the key of its certificate.")
        self._claim(ctx, signed)
        if not ctx.store.agent_requests.claim_nonce(signed.node, signed.nonce):
            raise BadSignature("This request came before.")

    def check_form(self, signed: Signed) -> None:
        """Raises ClockSkew, and Invalid for headers that cannot be meant so."""
        check_form(signed, self.clock())

    def _claim(self, ctx: Context, signed: Signed) -> None:
        self._load(ctx)
        if not self._nonces.claim(signed.node, signed.nonce):
            raise BadSignature("This request came before.")

    def _load(self, ctx: Context) -> None:
        """What an earlier process saw, once."""
        if self._loaded.is_set():
            return
        with self._loading:
            if not self._loaded.is_set():
                self.recall(ctx.store.agent_requests.nonces_since(ctx.now - NONCE_LIFE))
                self._loaded.set()

    def _recent_key(self, ctx: Context, node: NodeId, *, fresh: bool = False) -> KnownKey:
        found = self._keys.get(node)
        if found is not None and not fresh and self.clock() - found[1] < _KEY_LIFE_SECONDS:
            return found[0]
        known = key_of(ctx, node)
        if len(self._keys) >= _MAX_KEYS:
            self._keys.clear()
        self._keys[node] = (known, self.clock())
        return known


def key_of(ctx: Context, node: NodeId) -> KnownKey:
    """The key of a node. Raises UnknownNode."""
    known = ctx.store.agent_requests.keys([node]).get(node)
    if known is None:
        raise UnknownNode(f"There is no node {node} here; enrol it first.")
    return known


def require_accepted(known: KnownKey) -> None:
    """Raises NotAccepted."""
    if known.status is not NodeStatus.ACCEPTED:
        raise NotAccepted("This node waits for an administrator to accept it.")


def _require_signature(known: KnownKey, signed: Signed) -> None:
    if not known.pem or not signature.verify(known.pem, signed.message, signed.signature):
        raise BadSignature("The request is not signed with this node's key.")


def purge(ctx: Context) -> int:
    """Forget nonces whose time is no longer acceptable; how many."""
    return ctx.store.agent_requests.forget_nonces(ctx.now - NONCE_LIFE)
