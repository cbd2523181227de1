# SPDX-License-Identifier: Apache-2.0
"""Making nodes from a description, without an agent: many at once, each for itself.

What is wrong with one node does not keep the others out.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.core import ids
from quarterdeck.core.errors import Invalid
from quarterdeck.core.events import NodeAccepted
from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Inventory, Machine, OperatingSystem
from quarterdeck.core.modes import OwnMode, PolicyMode
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node, NodeState, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.services import nodes
from quarterdeck.services.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A node as somebody describes it; texts are checked here, so that all mistakes are told at once."""

    id: str
    hostname: str
    status: str
    os: OperatingSystem
    policy_server: str = ids.ROOT
    machine: Machine = field(default_factory=Machine)
    state: str | None = None
    mode: str | None = None
    key_pem: str = ""
    key_status: str | None = None
    properties: tuple[Property, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    timezone_name: str = ""
    timezone_offset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """Ids that are nodes now, and the sentences about the others, by id as given."""

    created: list[str]
    failed: Mapping[str, list[str]]


def create(ctx: Context, descriptions: Iterable[Description]) -> Created:
    """Make every node that can be made."""
    wanted = list(descriptions)
    known = ctx.store.nodes.statuses({one.id.lower() for one in wanted})
    created: list[str] = []
    failed: dict[str, list[str]] = {}
    for one in wanted:
        problems = _problems(one) or _taken(one, known)
        if problems:
            failed.setdefault(one.id, []).extend(problems)
            continue
        node = _node(ctx, one)
        if NodeId(node.id) in known:  # a tombstone
            ctx.store.nodes.remove(node.id)
        ctx.store.nodes.add(node)
        known[node.id] = node.status
        created.append(node.id)
        if node.status is NodeStatus.ACCEPTED:
            ctx.emit(NodeAccepted(node.id))
    return Created(created=created, failed=failed)


def _taken(one: Description, known: Mapping[NodeId, NodeStatus]) -> list[str]:
    status = known.get(NodeId(one.id.lower()))
    if status is None or status is NodeStatus.DELETED:
        return []
    taken = f"A node with id '{one.id.lower()}' already exists with status '{status.value}'"
    return [f"[save inventory] Error during node ID check: Inconsistency: {taken}"]


def _problems(one: Description) -> list[str]:
    """Everything that is wrong with a description by itself."""
    found: list[str] = []
    if not ids.is_node_id(one.id) or one.id == ids.ROOT:
        shape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
        found.append(f"Only ID matching the shape of an UUID ({shape}) are authorized but '{one.id}' provided")
    if not one.hostname.strip():
        found.append("Hostname can't be empty")
    pending = one.status.lower() == NodeStatus.PENDING.value
    if not pending and one.status.lower() != NodeStatus.ACCEPTED.value:
        found.append(f"Node 'status' must be one of 'accepted, pending' but '{one.status}' provided")
    found.extend(_mode_problems(one.mode, pending=pending))
    found.extend(_state_problems(one.state, pending=pending))
    found.extend(_key_problems(one))
    return [f"[validation] {problem}" for problem in found]


def _mode_problems(mode: str | None, *, pending: bool) -> list[str]:
    if mode is None or mode.lower() == "default":
        return []
    if mode.lower() not in set(PolicyMode):
        return [f"Node's policy mode must be one of 'audit, enforce' but '{mode}' provided"]
    return ["Policy mode can not be specified when status=pending"] if pending else []


def _state_problems(state: str | None, *, pending: bool) -> list[str]:
    if state is None:
        return []
    if state.lower() not in set(NodeState):
        known = ", ".join(one.value for one in NodeState)
        return [f"Node 'state' must be one of '{known}' but '{state}' provided"]
    return ["Node 'state' can not be specified when status=pending"] if pending else []


def _key_problems(one: Description) -> list[str]:
    if one.key_status is not None and one.key_status.lower() not in set(KeyStatus):
        return [f"Key status must be 'certified' or 'undefined' but '{one.key_status}' provided"]
    if not one.key_pem:
        return []
    try:
        nodes.check_key(one.key_pem, one.id.lower())
    except Invalid as error:
        return [error.message]
    return []


def _node(ctx: Context, one: Description) -> Node:
    status = NodeStatus(one.status.lower())
    inventory = Inventory(
        os=one.os,
        machine=_machine(one),
        ip_addresses=one.ip_addresses,
        timezone_name=one.timezone_name,
        timezone_offset=one.timezone_offset,
    )
    return Node(
        id=NodeId(one.id.lower()),
        hostname=one.hostname.strip(),
        status=status,
        inventory=inventory,
        policy_server=NodeId(one.policy_server),
        key=_key(one),
        properties=one.properties,
        agent="dsc" if one.os.type == "Windows" else "quarterdeck",
        inventory_date=ctx.now,
        accepted_at=ctx.now if status is NodeStatus.ACCEPTED else None,
        **_administered(one),
    )


def _administered(one: Description) -> dict[str, Any]:
    mode: OwnMode = PolicyMode(one.mode.lower()) if one.mode and one.mode.lower() != "default" else None
    return {"mode": mode, "state": NodeState(one.state.lower()) if one.state else NodeState.ENABLED}


def _key(one: Description) -> AgentKey:
    if not one.key_pem:
        return AgentKey()
    status = KeyStatus(one.key_status.lower()) if one.key_status else KeyStatus.CERTIFIED
    return AgentKey(pem=one.key_pem, status=status)


def _machine(one: Description) -> Machine:
    """The machine, under an id that follows from the node's."""
    digest = hashlib.md5(one.id.lower().encode(), usedforsecurity=False).digest()
    machine = one.machine
    return Machine(
        id=str(uuid.UUID(bytes=digest, version=3)),
        type=machine.type,
        provider=machine.provider,
        manufacturer=machine.manufacturer,
        serial_number=machine.serial_number,
    )
