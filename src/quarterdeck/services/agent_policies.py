# SPDX-License-Identifier: Apache-2.0
"""The policy that an agent fetches: assembled from what generation kept, signed when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core import policies
from quarterdeck.core.agent_requests import NotAccepted, Signed
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, signature
from quarterdeck.formats.signature import SigningKey
from quarterdeck.services import agent_requests, relays
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A node's policy, ready to leave. `body` is None when the node has this configuration already."""

    config_id: str
    body: bytes | None
    signature: bytes


def fetch(ctx: Context, gate: Gate, key: SigningKey, signed: Signed, *, known_id: str) -> Offer:
    """The policy of the node that signed the request; `known_id` is the configuration it has.

    Raises NotAccepted, also while there is no policy yet, and the errors of `Gate.admit`.
    """
    agent_requests.require_accepted(gate.admit(ctx, signed))
    ctx.store.nodes.touch(signed.node)
    return offer(ctx, key, signed.node, known_id=known_id)


def fetch_for_relay(ctx: Context, gate: Gate, key: SigningKey, signed: Signed, node: str, *, known_id: str) -> Offer:
    """The policy of a node below the relay that signed the request.

    Raises NotFound for a node elsewhere, NotAccepted while there is no policy yet, and the errors of `relays.admit`.
    """
    relay = relays.admit(ctx, gate, signed)
    return offer(ctx, key, relays.require_below(ctx, relay, node), known_id=known_id)


def offer(ctx: Context, key: SigningKey, node: NodeId, *, known_id: str) -> Offer:
    """The policy of an accepted node. Raises NotAccepted while there is none yet."""
    if known_id and ctx.store.policies.config_ids([node]).get(node) == known_id:
        return Offer(config_id=known_id, body=None, signature=b"")
    stored = ctx.store.policies.find(node)
    if stored is None:
        raise NotAccepted("This node has no policy yet; one is being made.")
    body = policies.assemble(stored.policy, stored.config_id, stored.fragments)
    message = agent.policy_message(node, body)
    # A signature of an earlier key of the server's is as good as none.
    if stored.signature is not None and signature.verify(key.public_pem, message, stored.signature):
        return Offer(config_id=stored.config_id, body=body, signature=stored.signature)
    fresh = key.sign(message)
    ctx.store.policies.sign(node, stored.config_id, fresh)
    return Offer(config_id=stored.config_id, body=body, signature=fresh)
