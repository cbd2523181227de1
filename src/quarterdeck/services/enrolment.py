# SPDX-License-Identifier: Apache-2.0
"""How a machine becomes a node: enrolment tokens, and the request that presents a certificate."""

from __future__ import annotations

import base64
import hmac
import logging
import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from quarterdeck.core.agent_requests import BadSignature, BadToken, Signed
from quarterdeck.core.enrolment import EnrolmentToken
from quarterdeck.core.errors import Conflict, Invalid
from quarterdeck.core.events import NodeChanged
from quarterdeck.core.ids import ROOT, NodeId, is_node_id
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node, NodeStatus
from quarterdeck.formats import inventory_json, signature
from quarterdeck.services import accounts, nodes, relays
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Provenance

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a machine says about itself when it enrols. `certificate` is PEM, self-signed."""

    node: str
    hostname: str
    certificate: str
    token: str
    agent_version: str = ""


def create_token(
    ctx: Context, name: str, *, accept: bool, uses: int | None = None, expires_at: datetime | None = None
) -> str:
    """Make an enrolment token; only its secret. Raises Invalid."""
    return make_token(ctx, name, accept=accept, uses=uses, expires_at=expires_at)[1]


def make_token(
    ctx: Context, name: str, *, accept: bool, uses: int | None = None, expires_at: datetime | None = None
) -> tuple[EnrolmentToken, str]:
    """Make an enrolment token; its secret is in the answer and nowhere else. Raises Invalid."""
    if expires_at is not None and expires_at <= ctx.now:
        raise Invalid("The expiry lies in the past.")
    token = EnrolmentToken(
        id=str(uuid.uuid4()), name=name, accept=accept, uses_left=uses, created_at=ctx.now, expires_at=expires_at
    )
    secret = accounts.new_secret()
    ctx.store.enrolment_tokens.keep(token, accounts.secret_digest(secret))
    return token, secret


def tokens(ctx: Context) -> list[EnrolmentToken]:
    """All enrolment tokens, used up and expired ones included, sorted by name."""
    return sorted(ctx.store.enrolment_tokens.all(), key=lambda token: token.name)


def revoke_token(ctx: Context, token_id: str) -> None:
    """End an enrolment token; nodes that came through it stay. Raises NotFound."""
    ctx.store.enrolment_tokens.get(token_id)
    ctx.store.enrolment_tokens.remove(token_id)


def enroll(ctx: Context, gate: Gate, signed: Signed, request: Request, *, voucher: str = "") -> NodeStatus:
    """A machine asks to become a node, or a known one asks again; what it is afterwards.

    `voucher` is that of the relay it came through, if any: that one serves it from then on. The token comes first, so
    that strangers learn nothing else. Raises BadToken, ClockSkew, BadSignature, Invalid, Forbidden.
    """
    token = _token_of(ctx, request.token)
    if token is None:
        raise BadToken("The enrolment token is not valid; ask the administrator of the server for a new one.")
    if not is_node_id(request.node) or request.node == ROOT or request.node != signed.node:
        raise Invalid("The request does not name the node that signed it.")
    if signature.certified_node(request.certificate) != request.node:
        raise Invalid("The certificate belongs to another node: the UID of its subject is not the node's id.")
    inventory_json.check_hostname(request.hostname)
    # First: a relay whose clock is off tries again with the same request, which may come here only once.
    server = relays.through(ctx, gate, voucher, base64.b64encode(signed.signature).decode())
    gate.admit_stranger(ctx, signed, request.certificate)
    ctx.store.by = Provenance(
        actor=f"enrolment token {token.name}", reason="Enrolment", request_id=ctx.store.by.request_id
    )
    status = _present(ctx, token, request, server)
    ctx.store.nodes.touch(request.node)
    return status


def _present(ctx: Context, token: EnrolmentToken, request: Request, server: NodeId) -> NodeStatus:
    node = ctx.store.nodes.find(request.node, lock=True)
    if node is not None and node.status is not NodeStatus.DELETED and _has_key(node):
        if not signature.same_key(node.key.pem, request.certificate):
            raise BadSignature(
                "This node is known here with another key. If its key was replaced on purpose, an administrator must"
                " reset the key of the node or delete the node first."
            )
        _move(ctx, node, server)
        if node.status is NodeStatus.PENDING and token.accept and ctx.store.enrolment_tokens.use(token.id):
            return _accept(ctx, token, node.id)
        return node.status
    if not ctx.store.enrolment_tokens.use(token.id):
        raise BadToken("The enrolment token is used up; ask the administrator of the server for a new one.")
    fresh = Node(id=NodeId(request.node), hostname=request.hostname, status=NodeStatus.PENDING, policy_server=server)
    known = node if node is not None and node.status is not NodeStatus.DELETED else fresh
    key = AgentKey(pem=request.certificate, status=KeyStatus.CERTIFIED)
    told = replace(known, key=key, agent_version=request.agent_version, policy_server=server)
    if node is None:
        ctx.store.nodes.add(told)
    else:
        ctx.store.nodes.replace(told)
    if told.status is NodeStatus.PENDING and token.accept:
        return _accept(ctx, token, told.id)
    return told.status


def _move(ctx: Context, node: Node, server: NodeId) -> None:
    """From now on another server serves the node."""
    if server not in (node.policy_server, node.id):
        ctx.store.nodes.replace(replace(node, policy_server=server))
        if node.status is NodeStatus.ACCEPTED:
            ctx.emit(NodeChanged(node.id))


def _has_key(node: Node) -> bool:
    return bool(node.key.pem) and node.key.status is KeyStatus.CERTIFIED


def _accept(ctx: Context, token: EnrolmentToken, node: NodeId) -> NodeStatus:
    """Let the node in as its token says; it waits when somebody else has its host name."""
    try:
        nodes.accept(ctx, [node])
    except Conflict as error:
        log.warning("Node %s came with token %s but waits for acceptance: %s", node, token.name, error.message)
        return NodeStatus.PENDING
    return NodeStatus.ACCEPTED


def _token_of(ctx: Context, secret: str) -> EnrolmentToken | None:
    """The usable token of a secret; compares with every digest, so that time tells nothing."""
    presented = accounts.secret_digest(secret)
    found = None
    for digest, token in ctx.store.enrolment_tokens.digests():
        if hmac.compare_digest(digest, presented):
            found = token
    return found if found is not None and found.usable(ctx.now) else None
