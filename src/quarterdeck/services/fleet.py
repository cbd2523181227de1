# SPDX-License-Identifier: Apache-2.0
"""The snapshot that policy generation works on: which nodes are concerned, and all that their policies follow from.

It restricts itself to the nodes concerned wherever that cannot change their policies, so that one changed
directive costs what its nodes cost and not what the fleet costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.core import inheritance, rules, targets
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Conflict, NotFound
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, RuleId
from quarterdeck.core.inheritance import Inheritance
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.nodes import AgentSchedule, NodeKind, NodeState, NodeStatus
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.core.targets import Population
from quarterdeck.core.techniques import Technique
from quarterdeck.formats import method_catalogue
from quarterdeck.services.context import Context
from quarterdeck.storage import property_rows
from quarterdeck.storage.generations import Concerns


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything of one moment. `scope` is None when the fleet has every node."""

    fleet: Fleet
    scope: tuple[NodeId, ...] | None
    rules_of: Mapping[NodeId, tuple[RuleId, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Configuration:
    rules: Sequence[Rule]
    directives: Mapping[DirectiveId, Directive]
    techniques: Sequence[Technique]
    groups: Mapping[GroupId, Group]
    parameters: Sequence[Parameter]
    settings: Settings


def snapshot(ctx: Context, concerns: Concerns) -> Snapshot:
    """Everything that the policies of the nodes concerned follow from, as of one moment.

    Must come first in a unit of work of its own, which can then only read.
    """
    ctx.store.fleet.freeze()
    configuration = _configuration(ctx)
    only = None if concerns is None else sorted(_nodes_concerned(ctx, configuration, concerns))
    memberships = ctx.store.fleet.memberships(only)
    nodes = _nodes(ctx, configuration, memberships, only)
    applied = _applied_rules(configuration, nodes)
    fleet = Fleet(
        nodes=nodes,
        rules=applied,
        directives=configuration.directives,
        techniques={technique.key: technique for technique in configuration.techniques},
        methods=method_catalogue.load(),
        parameters={one.name: one.value for one in configuration.parameters},
        groups=configuration.groups,
        servers=ctx.store.fleet.servers(),
        settings=configuration.settings,
    )
    return Snapshot(fleet=fleet, scope=None if only is None else tuple(only), rules_of=_rules_of(applied))


def _configuration(ctx: Context) -> _Configuration:
    store = ctx.store
    return _Configuration(
        rules=store.rules.all(),
        directives={directive.id: directive for directive in store.directives.all()},
        techniques=store.techniques.all(),
        groups={group.id: group for group in store.groups.all()},
        parameters=store.parameters.all(),
        settings=store.settings.get(),
    )


def _nodes_concerned(ctx: Context, configuration: _Configuration, concerns: Mapping[str, Sequence[str]]) -> set[NodeId]:
    """The nodes whose policy may follow from what changed: by how things stand now, and as they stood when built."""
    groups = _with_descendants(configuration.groups.values(), concerns.get("groups", ()))
    some = _rules_concerned(configuration, concerns)
    named = {group for rule in some for group in targets.groups_in(rule.targets)}
    members = ctx.store.fleet.members_of({*groups, *named})
    found = {NodeId(node) for node in concerns.get("nodes", ())}
    for group in groups:
        found |= members.get(group, set())
    found |= _reached_now(ctx, some, members)
    if concerns.keys() - {"nodes"}:
        # Their policies are not built from what they could not be served for, which may have left them just now.
        found |= ctx.store.policies.errors().keys()
    ids = {rule.id for rule in some} | {RuleId(rule) for rule in concerns.get("rules", ())}
    return found | ctx.store.policies.built_from(rules=ids, groups=groups)


def _reached_now(ctx: Context, some: Iterable[Rule], members: Mapping[GroupId, set[NodeId]]) -> set[NodeId]:
    aimed = [target for rule in some for target in rule.targets]
    everybody = set() if all(map(_only_groups, aimed)) else ctx.store.nodes.ids(NodeStatus.ACCEPTED)
    servers = set(ctx.store.fleet.servers()) if everybody else set()
    return targets.resolve(aimed, Population(nodes=everybody, policy_servers=servers, members=members))


def _rules_concerned(configuration: _Configuration, concerns: Mapping[str, Sequence[str]]) -> list[Rule]:
    techniques, changed = set(concerns.get("techniques", ())), set(concerns.get("rules", ()))
    used = {one.id for one in configuration.directives.values() if one.technique in techniques}
    used |= {DirectiveId(one) for one in concerns.get("directives", ())}
    return [rule for rule in configuration.rules if rule.id in changed or rule.directives & used]


def _only_groups(target: targets.Target) -> bool:
    """Whether nodes can be reached only through the groups it names."""
    match target:
        case targets.Simple():
            return target.group is not None
        case targets.Union(parts) | targets.Intersection(parts):
            return all(_only_groups(part) for part in parts)
        case targets.Exclusion(include, _):
            return _only_groups(include)


def _with_descendants(groups: Iterable[Group], changed: Iterable[str]) -> set[GroupId]:
    """These groups and all that inherit from them."""
    children: dict[GroupId, list[GroupId]] = {}
    for group in groups:
        for parent in inheritance.parents(group):
            children.setdefault(parent, []).append(group.id)
    found: set[GroupId] = set()
    pending = [GroupId(group) for group in changed]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending.extend(children.get(one, ()))
    return found


def _nodes(
    ctx: Context,
    configuration: _Configuration,
    memberships: Mapping[NodeId, tuple[GroupId, ...]],
    only: Sequence[NodeId] | None,
) -> list[FleetNode]:
    merging = Inheritance(configuration.parameters, configuration.groups.values())
    return [_node(row, memberships.get(row.id, ()), merging) for row in ctx.store.fleet.nodes(only)]


def _node(row: Any, groups: tuple[GroupId, ...], merging: Inheritance) -> FleetNode:
    problem = ""
    merged: Mapping[str, Any] = {}
    try:
        merged = merging.effective(property_rows.from_json(row.properties), frozenset(groups))
    except (Conflict, NotFound) as error:
        problem = error.message
    return FleetNode(
        id=row.id,
        hostname=row.hostname,
        kind=NodeKind(row.kind),
        state=NodeState(row.state),
        mode=PolicyMode(row.mode) if row.mode is not None else None,
        policy_server=row.policy_server,
        schedule=AgentSchedule(**row.schedule) if row.schedule is not None else None,
        groups=groups,
        properties=merged,
        problem=problem,
    )


def _applied_rules(configuration: _Configuration, nodes: Sequence[FleetNode]) -> list[AppliedRule]:
    """The rules in application on these nodes. One that reaches none of them cannot matter to them."""
    population = _population(configuration, nodes)
    disabled = {group.id for group in configuration.groups.values() if not group.enabled}
    found = []
    for rule in configuration.rules:
        reached = targets.resolve(rule.targets, population)
        shown = rules.status(rule, directives=configuration.directives, disabled_groups=disabled, nodes=reached)
        if reached and rules.is_applied(shown):
            found.append(AppliedRule(rule, reached))
    return found


def _population(configuration: _Configuration, nodes: Sequence[FleetNode]) -> Population:
    enabled = {group.id for group in configuration.groups.values() if group.enabled}
    members: dict[GroupId, set[NodeId]] = {group: set() for group in enabled}
    for node in nodes:
        for group in enabled.intersection(node.groups):
            members[group].add(node.id)
    servers = {node.id for node in nodes if node.kind is not NodeKind.NODE}
    return Population(nodes={node.id for node in nodes}, policy_servers=servers, members=members)


def _rules_of(applied: Iterable[AppliedRule]) -> dict[NodeId, tuple[RuleId, ...]]:
    found: dict[NodeId, list[RuleId]] = {}
    for one in sorted(applied, key=lambda one: one.rule.id):
        for node in one.nodes:
            found.setdefault(node, []).append(one.rule.id)
    shared: dict[tuple[RuleId, ...], tuple[RuleId, ...]] = {}
    return {node: shared.setdefault(tuple(some), tuple(some)) for node, some in found.items()}
