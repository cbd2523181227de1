# SPDX-License-Identifier: Apache-2.0
"""Nodes: identity, life cycle, what an administrator may set on them, and their run schedule.

What an agent found out about the machine is the inventory (`inventories.py`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.inventories import Inventory
from quarterdeck.core.modes import OwnMode
from quarterdeck.core.properties import Property


class NodeStatus(enum.StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    #: Kept as a tombstone after removal or refusal.
    DELETED = "deleted"


class NodeState(enum.StrEnum):
    ENABLED = "enabled"
    #: Out of policy generation and compliance; the node keeps its old policy.
    IGNORED = "ignored"
    #: Generation leaves no user policy.
    EMPTY_POLICIES = "empty-policies"
    INITIALIZING = "initializing"
    PREPARING_EOL = "preparing-eol"


class NodeKind(enum.StrEnum):
    ROOT = "root"
    RELAY = "relay"
    NODE = "node"


class KeyStatus(enum.StrEnum):
    #: Trust on first use.
    UNDEFINED = "undefined"
    #: The stored key verifies everything the node sends.
    CERTIFIED = "certified"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKey:
    """PEM of a public key or a certificate; empty when none is known yet."""

    pem: str = ""
    status: KeyStatus = KeyStatus.UNDEFINED


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSchedule:
    """When an agent runs, in minutes."""

    interval_minutes: int = 5
    start_hour: int = 0
    start_minute: int = 0
    splay_minutes: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node with what administrators set. `schedule` is None when the global one applies."""

    id: NodeId
    hostname: str
    status: NodeStatus = NodeStatus.ACCEPTED
    state: NodeState = NodeState.ENABLED
    kind: NodeKind = NodeKind.NODE
    mode: OwnMode = None
    description: str = ""
    documentation: str = ""
    policy_server: NodeId = ROOT
    properties: tuple[Property, ...] = ()
    key: AgentKey = field(default_factory=AgentKey)
    schedule: AgentSchedule | None = None
    #: "cfengine-community" for genuine agents, "quarterdeck" for ours, "dsc" on Windows
    agent: str = "quarterdeck"
    agent_version: str = ""
    agent_capabilities: tuple[str, ...] = ()
    inventory: Inventory = field(default_factory=Inventory)
    inventory_date: datetime | None = None
    accepted_at: datetime | None = None

    @property
    def is_policy_server(self) -> bool:
        return self.kind is not NodeKind.NODE


def parse_state(text: str) -> NodeState:
    """A node state from its text. Raises Invalid."""
    try:
        return NodeState(text.lower())
    except ValueError:
        accepted = ", ".join(f"'{state.value}'" for state in NodeState)
        message = f"Value '{text}' is not recognized as node state. Accepted values are: {accepted}"
        raise Invalid(message) from None
