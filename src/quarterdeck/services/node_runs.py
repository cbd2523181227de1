# SPDX-License-Identifier: Apache-2.0
"""Asking agents to run now, where something can reach them.

What reaches them is a transport given by wiring; without one an agent still runs at its next interval, and says
what it found then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.services.context import Context


class AgentTransport(Protocol):
    """A way to nodes. Both calls return at once; neither waits for a run's end."""

    def start(self, nodes: Mapping[NodeId, str], classes: Sequence[str]) -> Mapping[NodeId, str]:
        """Have the agents of these nodes (hostnames by id) start; sentences that say why not, by node.

        Raises Invalid for a class that is none.
        """

    def follow(self, node: NodeId, hostname: str, classes: Sequence[str]) -> AsyncIterator[bytes]:
        """Have the agent start, and give what it prints. Raises Unavailable, and Invalid."""


class NoTransport:
    """Nothing reaches the nodes."""

    def start(self, nodes: Mapping[NodeId, str], classes: Sequence[str]) -> Mapping[NodeId, str]:
        """None starts."""
        return dict.fromkeys(
            nodes, "this server has no way to reach it, so its agent runs by itself at its next interval."
        )

    def follow(self, node: NodeId, hostname: str, classes: Sequence[str]) -> AsyncIterator[bytes]:
        """Raises Unavailable."""
        raise Unavailable(
            f"Node '{node}' can not be asked to run: this server has no way to reach it,"
            " so its agent runs by itself at its next interval."
        )


class Asked(NamedTuple):
    """One node that was asked to run; an empty `problem` means that it started."""

    id: NodeId
    hostname: str
    problem: str


def start_all(ctx: Context, transport: AgentTransport, classes: Sequence[str] = ()) -> list[Asked]:
    """Ask the agents of all accepted nodes to run, and tell what came of it for each."""
    names = ctx.store.nodes.hostnames(ctx.store.nodes.ids(NodeStatus.ACCEPTED))
    problems = transport.start(names, classes)
    return [Asked(node, names[node], problems.get(node, "")) for node in sorted(names)]


def follow(ctx: Context, transport: AgentTransport, node_id: str, classes: Sequence[str] = ()) -> AsyncIterator[bytes]:
    """Ask one agent to run; what it prints. Raises NotFound, Unavailable, and Invalid."""
    names = ctx.store.nodes.hostnames([node_id])
    if ctx.store.nodes.statuses([node_id]).get(NodeId(node_id)) is not NodeStatus.ACCEPTED:
        raise NotFound(f"Node with id '{node_id}' was not found")
    return transport.follow(NodeId(node_id), names[NodeId(node_id)], classes)
