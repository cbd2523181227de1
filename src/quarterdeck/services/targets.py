# SPDX-License-Identifier: Apache-2.0
"""The present population, for resolving the targets of rules."""

from __future__ import annotations

from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.core.targets import Population
from quarterdeck.services.context import Context


def population(ctx: Context) -> Population:
    """All accepted nodes, the policy servers among them, and who is in which enabled group."""
    nodes = ctx.store.nodes.ids(NodeStatus.ACCEPTED)
    disabled = {group.id for group in ctx.store.groups.having(enabled=False)}
    members: dict[object, set[NodeId]] = {
        group: found for group, found in ctx.store.groups.all_members().items() if group not in disabled
    }
    return Population(nodes=nodes, policy_servers=ctx.store.nodes.policy_servers() & nodes, members=members)  # type: ignore[arg-type]
