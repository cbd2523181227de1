# SPDX-License-Identifier: Apache-2.0
"""Compliance as people look at it: by node, by rule, by directive, from what was decided and what nodes reported.

A shallow look takes the counters that are kept; a deep one brings components, values and messages, matched again
from the stored reports. What a node's time running out makes of it is applied here, whatever the sweep has done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from quarterdeck.core import compliance, compliance_trees, modes
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.compliance_trees import DirectiveStatus, GatheredItem
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import NotFound
from quarterdeck.core.expected_reports import ExpectedDirective
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.modes import OwnMode
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.core.policies import Overridden
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.services import compliance as decisions
from quarterdeck.services.context import Context
from quarterdeck.storage.compliance import Counter, Judged

_BATCH = 500

_Key = tuple[RuleId, DirectiveId]
_Named = DirectiveStatus | Overridden


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCompliance:
    """One node. `directives` are sorted by rule and directive; their `items` are empty in a shallow look."""

    node: NodeId
    hostname: str
    mode: OwnMode
    counts: Counts
    directives: tuple[DirectiveStatus, ...]
    #: Directives that gave way to others on this node; they count nothing.
    overridden: tuple[Overridden, ...]

    def by_rule(self) -> Mapping[RuleId, tuple[DirectiveStatus, ...]]:
        """The directives of each rule."""
        found: dict[RuleId, list[DirectiveStatus]] = {}
        for one in self.directives:
            found.setdefault(one.rule, []).append(one)
        return {rule: tuple(some) for rule, some in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNode:
    """What one node says of a rule or of a directive."""

    node: NodeId
    hostname: str
    mode: OwnMode
    counts: Counts
    directives: tuple[DirectiveStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One directive of one rule over all its nodes. `components` is empty in a shallow look."""

    rule: RuleId
    directive: DirectiveId
    counts: Counts
    components: tuple[GatheredItem, ...]
    #: One entry per node on which it gave way to another.
    overridden: tuple[Overridden, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCompliance:
    """One user rule: its directives over nodes, and its nodes. `rule` may be in application nowhere."""

    rule: Rule
    mode: str
    counts: Counts
    directives: tuple[Pair, ...]
    nodes: tuple[OnNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectiveCompliance:
    """One directive: the rules that bring it, and the nodes that have it."""

    directive: Directive
    mode: str
    counts: Counts
    rules: tuple[Pair, ...]
    nodes: tuple[OnNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the ids in a view stand for, and the settings in force."""

    rules: Mapping[RuleId, Rule]
    directives: Mapping[DirectiveId, Directive]
    hostnames: Mapping[NodeId, str]
    settings: Settings


# -- looking ------------------------------------------------------------------------


def names(ctx: Context) -> Names:
    """Rules and directives by id, host names of all nodes."""
    return Names(
        rules={rule.id: rule for rule in ctx.store.rules.all()},
        directives={directive.id: directive for directive in ctx.store.directives.all()},
        hostnames=ctx.store.nodes.hostnames(),
        settings=ctx.store.settings.get(),
    )


def each_node(ctx: Context, *, deep: bool = True) -> Iterator[NodeCompliance]:
    """All nodes that compliance is about, sorted by id, read batch by batch."""
    return _nodes(ctx, None, deep=deep)


def by_nodes(ctx: Context, *, deep: bool = True) -> list[NodeCompliance]:
    """All nodes that compliance is about, sorted by id."""
    return list(each_node(ctx, deep=deep))


def of_node(ctx: Context, node_id: str, *, deep: bool = True) -> NodeCompliance:
    """One node. Raises NotFound; a node without rules has no counts."""
    found = list(_nodes(ctx, [node_id], deep=deep))
    if found:
        return found[0]
    node = ctx.store.nodes.get(node_id)
    if node.status is not NodeStatus.ACCEPTED:
        raise NotFound(f"Node with id '{node_id}' is not accepted, so there is no compliance of it.")
    return NodeCompliance(
        node=node.id, hostname=node.hostname, mode=node.mode, counts=compliance.EMPTY, directives=(), overridden=()
    )


def by_rules(ctx: Context, *, deep: bool = True) -> list[RuleCompliance]:
    """All user rules, sorted by name, those without nodes included."""
    known = names(ctx)
    nodes = each_node(ctx, deep=deep)
    rules = sorted((rule for rule in known.rules.values() if not rule.system), key=lambda rule: (rule.name, rule.id))
    return _of_rules(known, nodes, rules)


def of_rule(ctx: Context, rule_id: str, *, deep: bool = True) -> RuleCompliance:
    """One rule. Raises NotFound."""
    rule = ctx.store.rules.get(rule_id)
    known = names(ctx)
    part = _Part(rule=rule.id)
    return _of_rules(known, _nodes(ctx, _concerned(ctx, part), deep=deep, part=part), [rule])[0]


def by_directives(ctx: Context, *, deep: bool = True) -> list[DirectiveCompliance]:
    """All directives that are no system ones, sorted by name, those that apply nowhere included."""
    known = names(ctx)
    nodes = each_node(ctx, deep=deep)
    chosen = (directive for directive in known.directives.values() if not directive.system)
    return _of_directives(known, nodes, sorted(chosen, key=lambda one: (one.name, one.id)))


def of_directive(ctx: Context, directive_id: str, *, deep: bool = True) -> DirectiveCompliance:
    """One directive. Raises NotFound."""
    directive = ctx.store.directives.get(directive_id)
    known = names(ctx)
    part = _Part(directive=directive.id)
    return _of_directives(known, _nodes(ctx, _concerned(ctx, part), deep=deep, part=part), [directive])[0]


class _Part(NamedTuple):
    """What of a node is looked at: a rule, a directive, or all of it."""

    rule: RuleId | None = None
    directive: DirectiveId | None = None

    def has(self, one: Counter | Overridden | ExpectedDirective) -> bool:
        return self.rule in (None, one.rule) and self.directive in (None, one.directive)


_ALL = _Part()


def _concerned(ctx: Context, part: _Part) -> list[NodeId]:
    """Nodes that count something of this part, or on which it gave way."""
    judged = ctx.store.compliance.judged(None)
    gone = ctx.store.compliance.overridden(judged)
    # Many nodes share their counters, and then the very object.
    counters = {id(one.counters): one.counters for one in judged.values()}
    counting = {key for key, some in counters.items() if any(map(part.has, some))}
    return [
        node for node, one in judged.items() if id(one.counters) in counting or any(map(part.has, gone.get(node, ())))
    ]


# -- nodes ---------------------------------------------------------------------------


def _nodes(ctx: Context, only: Collection[str] | None, *, deep: bool, part: _Part = _ALL) -> Iterator[NodeCompliance]:
    """Nodes sorted by id. Deep, they are made of that part alone, for the sake of time."""
    judged = ctx.store.compliance.judged(only)
    expired = ctx.store.compliance.expired_nodes(only)
    named = ctx.store.compliance.node_names(only)
    ids = sorted(node for node in judged if node in named)
    shared: dict[tuple[int, bool], _Statuses] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        deeply = _deep(ctx, batch, judged, part) if deep else {}
        gaveway = ctx.store.compliance.overridden(batch)
        for node in batch:
            hostname, mode = named[node]
            found = _counted(deeply[node]) if deep else _flat(judged[node], node in expired, shared)
            yield NodeCompliance(
                node=node,
                hostname=hostname,
                mode=mode,
                counts=found.counts,
                directives=found.directives,
                overridden=gaveway.get(node, ()),
            )


class _Statuses(NamedTuple):
    directives: tuple[DirectiveStatus, ...]
    counts: Counts


def _counted(directives: tuple[DirectiveStatus, ...]) -> _Statuses:
    return _Statuses(directives, compliance.total(one.counts for one in directives))


def _flat(judged: Judged, silent: bool, shared: dict[tuple[int, bool], _Statuses]) -> _Statuses:
    """What a node's counters say; nodes that share them share this."""
    key = (id(judged.counters), silent)
    if key not in shared:
        shared[key] = _counted(
            tuple(
                DirectiveStatus(
                    one.rule,
                    one.directive,
                    (),
                    compliance.units(Status.NO_REPORT, one.silent) if silent else one.counts,
                )
                for one in judged.counters
                if one.silent or not silent
            )
        )
    return shared[key]


def _deep(
    ctx: Context, nodes: Sequence[NodeId], judged: Mapping[NodeId, Judged], part: _Part
) -> dict[NodeId, tuple[DirectiveStatus, ...]]:
    plans = decisions.plans(ctx, nodes)
    rows = ctx.store.reports.states(nodes, rule=part.rule, directive=part.directive)
    unbound = ctx.store.settings.get().unexpected_unbound_var_values
    found: dict[NodeId, tuple[DirectiveStatus, ...]] = dict.fromkeys(nodes, ())
    for subject in ctx.store.compliance.subjects(nodes):
        node = subject.node
        plan = plans.get(node)
        if plan is not None and part != _ALL:
            plan = replace(plan, promises=tuple(one for one in plan.promises if part.has(one.expected)))
        standing = decisions.standing_of(ctx.now, subject, plan)
        kept = {(one.rule, one.directive): one.promise for one in judged[node].counters}
        reports = decisions.received(rows.get(node, {}).values())
        statuses = decisions.statuses_of(standing, plan, reports, kept, unbound_values=unbound)
        found[node] = tuple(sorted(statuses, key=lambda one: (one.rule, one.directive)))
    return found


# -- rules and directives -----------------------------------------------------------------


class _Index:
    """What nodes say of some rules or directives; one pass over all of it."""

    def __init__(self, nodes: Iterable[NodeCompliance], key: Callable[[_Named], str], wanted: Container[str]) -> None:
        self._parts: dict[str, dict[_Key, list[tuple[NodeId, DirectiveStatus]]]] = {}
        self._gone: dict[str, dict[_Key, list[Overridden]]] = {}
        self._nodes: dict[str, list[tuple[NodeCompliance, list[DirectiveStatus]]]] = {}
        for node in nodes:
            mine: dict[str, list[DirectiveStatus]] = {}
            for status in node.directives:
                if key(status) not in wanted:
                    continue
                mine.setdefault(key(status), []).append(status)
                by_key = self._parts.setdefault(key(status), {})
                by_key.setdefault((status.rule, status.directive), []).append((node.node, status))
            for gone in node.overridden:
                self._gone.setdefault(key(gone), {}).setdefault((gone.rule, gone.directive), []).append(gone)
            for name, statuses in mine.items():
                self._nodes.setdefault(name, []).append((node, statuses))

    def pairs(self, name: str) -> tuple[Pair, ...]:
        """The pairs of a rule or of a directive, sorted."""
        parts, gone = self._parts.get(name, {}), self._gone.get(name, {})
        return tuple(
            Pair(
                rule=rule,
                directive=directive,
                counts=compliance.total(status.counts for _, status in parts.get((rule, directive), ())),
                components=compliance_trees.gather((node, one.items) for node, one in parts.get((rule, directive), ())),
                overridden=tuple(gone.get((rule, directive), ())),
            )
            for rule, directive in sorted(parts.keys() | gone.keys())
        )

    def on_nodes(self, name: str) -> tuple[OnNode, ...]:
        """What each node says of a rule or of a directive."""
        return tuple(
            OnNode(
                node=node.node,
                hostname=node.hostname,
                mode=node.mode,
                counts=compliance.total(one.counts for one in statuses),
                directives=tuple(statuses),
            )
            for node, statuses in self._nodes.get(name, ())
        )


def _of_rules(known: Names, nodes: Iterable[NodeCompliance], rules: Sequence[Rule]) -> list[RuleCompliance]:
    index = _Index(nodes, lambda one: one.rule, {rule.id for rule in rules})
    found = []
    for rule in rules:
        pairs = index.pairs(rule.id)
        own = [known.directives[one].mode for one in sorted(rule.directives) if one in known.directives]
        found.append(
            RuleCompliance(
                rule=rule,
                mode=_mode(known.settings, own),
                counts=compliance.total(pair.counts for pair in pairs),
                directives=pairs,
                nodes=index.on_nodes(rule.id),
            )
        )
    return found


def _of_directives(
    known: Names, nodes: Iterable[NodeCompliance], directives: Sequence[Directive]
) -> list[DirectiveCompliance]:
    index = _Index(nodes, lambda one: one.directive, {directive.id for directive in directives})
    found = []
    for directive in directives:
        pairs = index.pairs(directive.id)
        found.append(
            DirectiveCompliance(
                directive=directive,
                mode=_mode(known.settings, [directive.mode]),
                counts=compliance.total(pair.counts for pair in pairs),
                rules=pairs,
                nodes=index.on_nodes(directive.id),
            )
        )
    return found


def _mode(settings: Settings, own: Sequence[OwnMode]) -> str:
    return modes.summarise(
        own, global_mode=settings.global_policy_mode, overridable=settings.global_policy_mode_overridable
    )
