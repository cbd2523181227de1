# SPDX-License-Identifier: Apache-2.0
"""Inventories that arrive: who vouches for them, which node they are about, and what is new in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core import properties
from quarterdeck.core.agent_requests import BadSignature, Signed, UnknownNode
from quarterdeck.core.errors import Invalid
from quarterdeck.core.events import InventoryChanged
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.formats import agent, inventory_json, inventory_xml, signature
from quarterdeck.formats.inventory_json import Found
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Provenance

#: Owner of properties that a machine says about itself.
PROPERTY_PROVIDER = "inventory"
OWN_AGENT = "quarterdeck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What became of an inventory. `changed`: it says something that the one before did not."""

    node: NodeId
    status: NodeStatus
    changed: bool


def receive_parcel(ctx: Context, gate: Gate, signed: Signed, data: bytes) -> Received:
    """Take an inventory that its node delivers itself. Raises the errors of `Gate.admit` and of `receive_json`."""
    gate.admit(ctx, signed)
    received = receive_json(ctx, data)
    if received.node != signed.node:
        raise BadSignature("A node can only deliver its own inventory.")
    ctx.store.nodes.touch(signed.node)
    return received


def receive_json(ctx: Context, data: bytes) -> Received:
    """Take an inventory parcel of our own agent. Raises UnknownNode, Invalid."""
    try:
        parcel = agent.open_parcel(data)
        if parcel.kind != "inventory":
            raise Invalid(f"The parcel is a {parcel.kind}, not an inventory.")
        _require_signed_by_node(ctx, parcel)
        found = inventory_json.decode(parcel.body)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    if found.node != parcel.node:
        raise Invalid("The inventory is about another node than the one that signed it.")
    return _store(ctx, found, data, None)


def _require_signed_by_node(ctx: Context, parcel: agent.Parcel) -> None:
    known = ctx.store.agent_requests.keys([parcel.node]).get(NodeId(parcel.node))
    if known is None:
        raise UnknownNode(f"There is no node {parcel.node} here; enrol it first.")
    signed = signature.decode_base64(parcel.signature)
    if not known.pem or not signature.verify(known.pem, parcel.message(), signed):
        raise Invalid("The inventory is not signed with this node's key.")


def receive_xml(ctx: Context, xml: bytes, sign_file: bytes) -> Received:
    """Take a genuine agent's inventory with its signature file; the first one decides on the key. Raises Invalid."""
    found = inventory_xml.parse(xml)
    signed = signature.parse_sign_file(sign_file).signature
    known = ctx.store.agent_requests.keys([found.node]).get(found.node)
    certified = known is not None and known.pem and known.key_status is KeyStatus.CERTIFIED
    pem = known.pem if known is not None and certified else found.certificate
    if not certified and signature.certified_node(pem) != found.node:
        raise Invalid("The certificate in the inventory belongs to another node.")
    if not signature.verify(pem, xml, signed):
        raise Invalid(
            f"Rejecting inventory of node '{found.node}': its signature is not valid for the node's key. If the node"
            " was given a new key, update it through the node API (agentKey) and let it send its inventory again."
        )
    return _store(ctx, found, xml, AgentKey(pem=pem, status=KeyStatus.CERTIFIED))


def _store(ctx: Context, found: Found, document: bytes, key: AgentKey | None) -> Received:
    """Let the node say what the inventory says; `key` is None when it stays what it is."""
    if found.node == ROOT:
        raise Invalid("The root node is this server itself; nobody sends inventories in its name.")
    ctx.store.by = Provenance(
        actor=f"node {found.node}", reason="Inventory received", request_id=ctx.store.by.request_id
    )
    node = ctx.store.nodes.find(found.node, lock=True)
    digest = inventory_json.content_digest(found)
    if node is None or node.status is NodeStatus.DELETED:
        changed, status = True, NodeStatus.PENDING
        _add_pending(ctx, node, found, key or AgentKey())
    else:
        changed, status = ctx.store.inventories.digest(found.node) != digest, node.status
        ctx.store.nodes.replace(_told(ctx, node, found, key or node.key))
    if changed:
        ctx.store.inventories.keep(found.node, digest, document)
        if status is NodeStatus.ACCEPTED:
            ctx.emit(InventoryChanged(found.node))
    return Received(node=found.node, status=status, changed=changed)


def _add_pending(ctx: Context, tombstone: Node | None, found: Found, key: AgentKey) -> None:
    fresh = Node(id=found.node, hostname=found.hostname, status=NodeStatus.PENDING)
    node = _told(ctx, fresh, found, key)
    if tombstone is None:
        ctx.store.nodes.add(node)
    else:
        ctx.store.nodes.replace(node)


def _told(ctx: Context, node: Node, found: Found, key: AgentKey) -> Node:
    """The node as it is after the inventory; what administrators set stays."""
    return replace(
        node,
        hostname=found.hostname,
        description=node.description or found.description,
        # Our own agent does not know through whom it is served: its enrolment settled that.
        policy_server=node.policy_server if found.agent == OWN_AGENT else found.policy_server,
        properties=merged_properties(node.properties, found.properties),
        key=key,
        agent=found.agent,
        agent_version=found.agent_version,
        agent_capabilities=found.agent_capabilities,
        inventory=found.inventory,
        inventory_date=found.date or ctx.now,
    )


def merged_properties(present: Iterable[Property], told: Mapping[str, Any]) -> tuple[Property, ...]:
    """The node's properties with those that the machine declares; others' properties of the same name win."""
    kept = tuple(present)
    own = {one.name for one in kept if one.provider == PROPERTY_PROVIDER}
    others = {one.name for one in kept} - own
    changes = [Property(name=name, value=None) for name in sorted(own - told.keys())]
    changes += [Property(name=name, value=value) for name, value in told.items() if name not in others]
    return properties.update(kept, changes, PROPERTY_PROVIDER)
