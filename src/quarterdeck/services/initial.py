# SPDX-License-Identifier: Apache-2.0
"""What a fresh server begins with: root categories, the root node, system groups, one empty rule for all nodes."""

from __future__ import annotations

from quarterdeck.core import groups, rules
from quarterdeck.core.categories import Category
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import ROOT, GroupId, ParameterName, RuleId
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.nodes import Node, NodeKind, NodeState, NodeStatus
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.rules import Rule
from quarterdeck.core.targets import Exclusion, Simple, Union
from quarterdeck.services.context import Context

ALL_NODES_GROUP = GroupId("all-nodes-with-cfengine-agent")
ROOT_SERVER_GROUP = GroupId("hasPolicyServer-root")
GLOBAL_RULE = RuleId("32377fd7-02fd-43d0-aab7-28460a91347b")
FILE_HEADER = ParameterName("rudder_file_edit_header")


def ensure(ctx: Context, *, hostname: str) -> bool:
    """Add what is missing on a fresh database; tells whether anything was. `hostname` is this server's own."""
    if ctx.store.rule_categories.find(rules.ROOT_CATEGORY) is not None:
        return False
    _categories(ctx)
    ctx.store.nodes.add(
        Node(
            id=ROOT,
            hostname=hostname,
            kind=NodeKind.ROOT,
            status=NodeStatus.ACCEPTED,
            state=NodeState.ENABLED,
            accepted_at=ctx.now,
        )
    )
    _groups(ctx)
    ctx.store.parameters.add(
        Parameter(
            name=FILE_HEADER,
            value="### Managed by Rudder, edit with care ###",
            description="Default inform message put in header of managed files by Rudder",
        )
    )
    everything = Exclusion(Union((Simple("special:all"),)), Union(()))
    ctx.store.rules.add(Rule(id=GLOBAL_RULE, name="Global configuration for all nodes", targets=(everything,)))
    return True


def _categories(ctx: Context) -> None:
    rule_root, group_root = rules.ROOT_CATEGORY, groups.ROOT_CATEGORY
    ctx.store.rule_categories.add(Category(id=rule_root, name="Rules", parent=rule_root, system=True))
    name = "Root of the group and group categories"
    ctx.store.group_categories.add(Category(id=group_root, name=name, parent=group_root, system=True))
    system = Category(id=groups.SYSTEM_CATEGORY, name="System groups", parent=group_root, system=True)
    ctx.store.group_categories.add(system)


def _groups(ctx: Context) -> None:
    has_agent = Criterion(object_type="node", attribute="agentName", comparator="eq", value="cfengine")
    below_root = Criterion(object_type="node", attribute="policyServerId", comparator="eq", value=ROOT)
    ctx.store.groups.add(
        Group(
            id=ALL_NODES_GROUP,
            name="All Linux Nodes",
            description="All nodes with an agent, policy servers included",
            category=groups.SYSTEM_CATEGORY,
            query=NodeQuery(with_policy_servers=True, criteria=(has_agent,)),
            system=True,
        )
    )
    ctx.store.groups.add(
        Group(
            id=ROOT_SERVER_GROUP,
            name="All nodes managed by root policy server",
            category=groups.SYSTEM_CATEGORY,
            query=NodeQuery(criteria=(below_root,)),
            system=True,
        )
    )
