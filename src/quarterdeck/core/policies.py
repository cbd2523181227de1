# SPDX-License-Identifier: Apache-2.0
"""Policy generation: from one snapshot of the fleet to every node's policy, touching nothing.

`prepare` chooses and compiles directives, once for all nodes that the same rules apply to; `generate_nodes` does
what is left per node, so that chunks of nodes can go to several processes. A node's policy is a head, the digests
of the fragments it shares with others (`policy_items`), and its own values for their holes; `assemble` makes the
document that the agent receives. Where policies are kept, and when this runs, is not decided here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from quarterdeck.core import groups, modes, policy_items, variables
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.core.ids import ROOT, DirectiveId, GroupId, NodeId, RuleId
from quarterdeck.core.methods import Method
from quarterdeck.core.modes import OwnMode, PolicyMode
from quarterdeck.core.nodes import AgentSchedule, NodeKind, NodeState
from quarterdeck.core.policy_items import Fragment
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.core.techniques import Technique, TechniqueKey

#: Of the document that agents read.
FORMAT = 1
_POLICY_SERVER_SCHEDULE = AgentSchedule(interval_minutes=5, start_hour=0, start_minute=0, splay_minutes=0)
_MINUTES_PER_HOUR = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNode:
    """What generation needs of an accepted node. `properties` are merged over groups and parameters already."""

    id: NodeId
    hostname: str
    kind: NodeKind = NodeKind.NODE
    state: NodeState = NodeState.ENABLED
    mode: OwnMode = None
    policy_server: NodeId = ROOT
    admin: str = "root"
    schedule: AgentSchedule | None = None
    groups: tuple[GroupId, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: Why the node's properties could not be merged; such a node gets no policy.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """A rule in application, and the nodes that its targets resolve to."""

    rule: Rule
    nodes: Set[NodeId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One snapshot: everything that policies follow from. `nodes` are those to compute, not all there are."""

    nodes: Sequence[FleetNode]
    rules: Sequence[AppliedRule]
    directives: Mapping[DirectiveId, Directive]
    techniques: Mapping[TechniqueKey, Technique]
    methods: Mapping[str, Method]
    #: Global parameters, any JSON values.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[GroupId, groups.Group] = field(default_factory=dict)
    #: Host names of policy servers.
    servers: Mapping[NodeId, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)


class Overridden(NamedTuple):
    """A directive that a rule brings to a node and that gives way to another there."""

    rule: RuleId
    directive: DirectiveId
    by_rule: RuleId
    by_directive: DirectiveId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePolicy:
    """A node's policy in its compact form.

    `digest` covers what the agent receives; equal digests mean equal documents. `overridden` is not part of it.
    """

    node: NodeId
    digest: str
    #: The document without `config_id` and `policies`, canonical JSON.
    head: bytes
    #: Digests, in order.
    fragments: tuple[str, ...]
    #: What fills the holes of the fragments, by name.
    values: Mapping[str, str]
    overridden: tuple[Overridden, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """`fragments` has the bytes of every digest that the policies name; `errors` has the nodes left out, and why."""

    policies: tuple[NodePolicy, ...]
    fragments: Mapping[str, bytes]
    errors: Mapping[NodeId, str]


class Candidate(NamedTuple):
    """A directive that a rule brings; `order` is the place that names give it."""

    order: int
    rule: Rule
    directive: Directive
    technique: Technique


class Choice(NamedTuple):
    """What of a node's candidates is applied, in order, and what gives way."""

    kept: tuple[Candidate, ...]
    overridden: tuple[Overridden, ...]


def choose(candidates: Iterable[Candidate]) -> Choice:
    """Keep each directive once, and one directive of each technique that allows no more."""
    kept: dict[DirectiveId, Candidate] = {}
    overridden = []
    for candidate in sorted(candidates):
        first = kept.setdefault(candidate.directive.id, candidate)
        if first is not candidate:
            overridden.append(_overridden(candidate, first))
    unique: dict[str, Candidate] = {}
    for candidate in sorted(kept.values(), key=lambda one: (one.directive.priority, one.order)):
        if candidate.technique.multi_instance:
            continue
        first = unique.setdefault(candidate.technique.id, candidate)
        if first is not candidate:
            overridden.append(_overridden(candidate, first))
            del kept[candidate.directive.id]
    return Choice(tuple(kept.values()), tuple(sorted(overridden)))


def _overridden(loser: Candidate, winner: Candidate) -> Overridden:
    return Overridden(loser.rule.id, loser.directive.id, winner.rule.id, winner.directive.id)


class _Slot:
    """One directive as one rule brings it in one mode: a fragment, or one per set of values that shape it."""

    def __init__(self, candidate: Candidate, mode: PolicyMode) -> None:
        self.candidate = candidate
        self.mode = mode
        #: References whose values decide what the fragment looks like.
        self.shaping: dict[str, variables.Reference] = {}
        self.variants: dict[tuple[str, ...], Fragment] = {}
        self.problem = ""

    def compile(self, prepared: Prepared, known: Mapping[str, str]) -> Fragment:
        """The fragment for these values. Raises NeedsNode or Invalid."""
        key = tuple(known[name] for name in self.shaping if name in known)
        found = self.variants.get(key) if len(key) == len(self.shaping) else None
        if found is None:
            candidate = self.candidate
            found = policy_items.compile_fragment(
                candidate.technique,
                candidate.directive,
                candidate.rule.id,
                self.mode,
                scope=prepared.scope,
                methods=prepared.fleet_methods,
                known=known,
            )
            self.variants[key] = found
        return found

    def for_node(self, prepared: Prepared, subject: variables.Subject) -> Fragment:
        """The fragment for a node, for a slot that has shaping references. Raises Invalid."""
        while True:
            known = {name: variables.resolve(reference, subject) for name, reference in self.shaping.items()}
            try:
                return self.compile(prepared, known)
            except policy_items.NeedsNode as needs:
                self.need(needs)

    def need(self, needs: policy_items.NeedsNode) -> None:
        """Remember further shaping references; fragments compiled without them keep no key that could match."""
        self.variants.clear()
        self.shaping.update((reference.key, reference) for reference in needs.references)


@dataclass(slots=True)
class _Plan:
    """What all nodes with the same rules and the same mode share."""

    slots: list[_Slot]
    overridden: tuple[Overridden, ...]
    #: Of slots that look the same on every node, by place; None where the slot has shaping references.
    fragments: list[Fragment | None] = field(default_factory=list)
    digests: tuple[str, ...] = ()
    holes: dict[str, variables.Reference] = field(default_factory=dict)
    problem: str = ""


class Prepared:
    """A fleet made ready: rules ordered, directives chosen and compiled. Can be sent to other processes."""

    def __init__(self, fleet: Fleet) -> None:
        self.settings = fleet.settings
        self.scope = variables.Scope(fleet.parameters)
        self.fleet_methods = fleet.methods
        #: What was left out, in sentences.
        self.warnings: list[str] = []
        self._groups = {group.id: groups.condition_names(group) for group in fleet.groups.values()}
        self._servers = dict(fleet.servers)
        rules = sorted((one for one in fleet.rules if one.rule.enabled), key=lambda one: _by_name(one.rule))
        self._candidates = self._read_candidates(rules, fleet)
        self._rules_of = _invert(rules, {node.id for node in fleet.nodes})
        self._slots: dict[tuple[RuleId, DirectiveId, PolicyMode], _Slot] = {}
        self._plans: dict[tuple[tuple[int, ...], OwnMode, bool], _Plan] = {}
        self._conditions: dict[tuple[GroupId, ...], list[str]] = {}
        for node in fleet.nodes:
            if node.state is not NodeState.IGNORED and not node.problem:
                self.plan(node)

    def _read_candidates(self, rules: Sequence[AppliedRule], fleet: Fleet) -> list[list[Candidate]]:
        """Per rule, its directives in application, in order of name."""
        candidates = []
        order = 0
        for one in rules:
            mine = []
            for directive in sorted(self._directives(one.rule, fleet), key=_by_name):
                technique = fleet.techniques.get(TechniqueKey(directive.technique, directive.version))
                if technique is None:
                    name = f"'{directive.technique}' version '{directive.version}'"
                    self.warnings.append(f"Technique {name} of directive '{directive.id}' does not exist")
                elif technique.enabled:
                    mine.append(Candidate(order, one.rule, directive, technique))
                    order += 1
            candidates.append(mine)
        return candidates

    def _directives(self, rule: Rule, fleet: Fleet) -> list[Directive]:
        for missing in sorted(rule.directives - fleet.directives.keys()):
            text = f"Cannot find directive with id '{missing}' when building rule '{rule.name}' ({rule.id})"
            self.warnings.append(text)
        found = (fleet.directives.get(directive) for directive in rule.directives)
        return [directive for directive in found if directive is not None and directive.enabled]

    def plan(self, node: FleetNode) -> _Plan:
        """What the node shares with others of the same rules and mode."""
        system_only = node.state is NodeState.EMPTY_POLICIES
        key = (self._rules_of.get(node.id, ()), node.mode, system_only)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._make_plan(*key)
        return plan

    def _make_plan(self, rules: tuple[int, ...], mode: OwnMode, system_only: bool) -> _Plan:  # a key
        candidates = (candidate for rule in rules for candidate in self._candidates[rule])
        choice = choose(one for one in candidates if one.technique.system or not system_only)
        plan = _Plan([self._slot(candidate, mode) for candidate in choice.kept], choice.overridden)
        for slot in plan.slots:
            fragment = next(iter(slot.variants.values()), None) if not slot.shaping else None
            plan.fragments.append(fragment)
            plan.holes.update((hole.key, hole) for hole in (fragment.holes if fragment else ()))
            plan.problem = plan.problem or slot.problem
        plan.digests = tuple(fragment.digest if fragment else "" for fragment in plan.fragments)
        return plan

    def _slot(self, candidate: Candidate, node_mode: OwnMode) -> _Slot:
        mode = modes.resolve(
            candidate.directive.mode,
            node_mode,
            global_mode=self.settings.global_policy_mode,
            overridable=self.settings.global_policy_mode_overridable,
            system=candidate.technique.system,
        )
        key = (candidate.rule.id, candidate.directive.id, mode)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(candidate, mode)
            try:
                slot.compile(self, {})
            except policy_items.NeedsNode as needs:
                slot.need(needs)
            except Invalid as error:
                slot.problem = _on_directive(slot, error)
        return slot

    def conditions(self, ids: tuple[GroupId, ...]) -> list[str]:
        """The agent conditions of the members of these groups."""
        found = self._conditions.get(ids)
        if found is None:
            names = {name for group in ids for name in self._groups.get(group, ())}
            found = self._conditions[ids] = sorted(names)
        return found

    def subject(self, node: FleetNode) -> variables.Subject:
        """The node as variables see it."""
        mode = modes.resolve(
            None,
            node.mode,
            global_mode=self.settings.global_policy_mode,
            overridable=self.settings.global_policy_mode_overridable,
        )
        facts = {
            ("node", "id"): node.id,
            ("node", "hostname"): node.hostname,
            ("node", "admin"): node.admin,
            ("node", "state"): node.state.value,
            ("node", "policymode"): mode.value,
            ("policyserver", "id"): node.policy_server,
            ("policyserver", "hostname"): self._servers.get(node.policy_server, ""),
            ("policyserver", "admin"): "root",
        }
        return variables.Subject(id=node.id, hostname=node.hostname, properties=node.properties, facts=facts)


def _by_name(one: Rule | Directive) -> tuple[str, str, str]:
    return one.name.lower(), one.name, one.id


def _invert(rules: Sequence[AppliedRule], nodes: Set[NodeId]) -> dict[NodeId, tuple[int, ...]]:
    """Per node, the numbers of its rules; equal tuples are one object, so that they travel once."""
    found: dict[NodeId, list[int]] = {}
    for number, one in enumerate(rules):
        for node in one.nodes & nodes:
            found.setdefault(node, []).append(number)
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    return {node: shared.setdefault(tuple(numbers), tuple(numbers)) for node, numbers in found.items()}


def prepare(fleet: Fleet) -> Prepared:
    """Do the work that nodes share."""
    return Prepared(fleet)


def generate(fleet: Fleet) -> Generated:
    """Every policy of the fleet, in one process."""
    return generate_nodes(prepare(fleet), fleet.nodes)


def generate_nodes(prepared: Prepared, nodes: Iterable[FleetNode]) -> Generated:
    """The policies of these nodes, which `prepare` has seen. Ignored nodes are left out: they keep what they have."""
    found: list[NodePolicy] = []
    fragments: dict[str, bytes] = {}
    errors: dict[NodeId, str] = {}
    for node in nodes:
        if node.state is NodeState.IGNORED:
            continue
        try:
            found.append(_generate_node(prepared, node, fragments))
        except QuarterdeckError as error:
            errors[node.id] = _failure(node, error)
    return Generated(policies=tuple(found), fragments=fragments, errors=errors)


def _failure(node: FleetNode, error: QuarterdeckError) -> str:
    return (
        f"Error while building target configuration node for node '{node.id}' which is one of the target of rules."
        f" Ignoring it for the rest of the process; cause was: {error.message}"
    )


def _generate_node(prepared: Prepared, node: FleetNode, fragments: dict[str, bytes]) -> NodePolicy:
    if node.problem:
        raise Invalid(node.problem)
    plan = prepared.plan(node)
    if plan.problem:
        raise Invalid(plan.problem)
    head = policy_items.canonical(_head(prepared, node))
    digests, holes = plan.digests, plan.holes
    subject = prepared.subject(node) if holes or "" in digests else None
    if subject and "" in digests:
        digests, holes = _shape(prepared, plan, subject, fragments)
    for fragment in plan.fragments:
        if fragment is not None:
            fragments.setdefault(fragment.digest, fragment.body)
    values = _values(plan, holes, subject) if subject else {}
    content = b"".join((head, "".join(digests).encode(), policy_items.canonical(values)))
    return NodePolicy(
        node=node.id,
        digest=hashlib.sha256(content).hexdigest(),
        head=head,
        fragments=digests,
        values=values,
        overridden=plan.overridden,
    )


def _shape(
    prepared: Prepared, plan: _Plan, subject: variables.Subject, fragments: dict[str, bytes]
) -> tuple[tuple[str, ...], dict[str, variables.Reference]]:
    """Digests and holes of a node on which some fragments look their own way."""
    digests, holes = list(plan.digests), dict(plan.holes)
    for place, slot in enumerate(plan.slots):
        if plan.fragments[place] is not None:
            continue
        try:
            fragment = slot.for_node(prepared, subject)
        except Invalid as error:
            raise Invalid(_on_directive(slot, error)) from error
        digests[place] = fragment.digest
        fragments.setdefault(fragment.digest, fragment.body)
        holes.update((hole.key, hole) for hole in fragment.holes)
    return tuple(digests), holes


def _values(plan: _Plan, holes: Mapping[str, variables.Reference], subject: variables.Subject) -> dict[str, str]:
    values = {}
    for name, reference in holes.items():
        try:
            values[name] = variables.resolve(reference, subject)
        except Invalid as error:
            slot = next((one for one in plan.slots if _has_hole(one, name)), None)
            raise Invalid(_on_directive(slot, error) if slot else error.message) from error
    return values


def _has_hole(slot: _Slot, name: str) -> bool:
    return any(hole.key == name for fragment in slot.variants.values() for hole in fragment.holes)


def _on_directive(slot: _Slot, error: Invalid) -> str:
    directive = slot.candidate.directive
    return f"On directive '{directive.name}' ({directive.id}): {error.message}"


def _head(prepared: Prepared, node: FleetNode) -> dict[str, Any]:
    settings = prepared.settings
    return {
        "conditions": prepared.conditions(node.groups),
        "format": FORMAT,
        "heartbeat_runs": settings.heartbeat_frequency,
        "node": node.id,
        "properties": node.properties,
        "reporting": settings.reporting_mode,
        "schedule": _schedule(prepared, node),
    }


def _schedule(prepared: Prepared, node: FleetNode) -> dict[str, int]:
    """When the agent runs. Raises Invalid for an interval that is neither minutes below an hour nor whole hours."""
    schedule = node.schedule or prepared.settings.schedule
    if node.kind is not NodeKind.NODE:
        schedule = _POLICY_SERVER_SCHEDULE
    interval = schedule.interval_minutes
    if interval < 1 or (interval > _MINUTES_PER_HOUR and interval % _MINUTES_PER_HOUR):
        hours, minutes = divmod(interval, _MINUTES_PER_HOUR)
        raise Invalid(
            "Agent execution interval can only be defined as minutes (less than 60) or complete hours,"
            f" ({hours} hours {minutes} minutes is not supported)"
        )
    return {
        "interval_minutes": interval,
        "start_hour": schedule.start_hour,
        "start_minute": schedule.start_minute,
        "splay_minutes": min(schedule.splay_minutes, interval),
    }


def name_configuration(digest: str, started: datetime) -> str:
    """The id of a configuration that a generation begun at `started` made: `yyyyMMdd-HHmmss-xxxxxxxx`.

    A node whose digest did not change keeps the id that it has.
    """
    return f"{started:%Y%m%d-%H%M%S}-{digest[:8]}"


def items(policy: NodePolicy, fragments: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The node's policy items as decoded JSON: what it must do, and what compliance may expect of it."""
    return [json.loads(policy_items.fill(fragments[digest], policy.values)) for digest in policy.fragments]


def assemble(policy: NodePolicy, config_id: str, fragments: Mapping[str, bytes]) -> bytes:
    """The document that the agent receives, canonical JSON. Raises KeyError when a fragment is missing."""
    head = json.loads(policy.head)
    head["config_id"] = config_id
    before = {name: value for name, value in head.items() if name < "policies"}
    after = {name: value for name, value in head.items() if name > "policies"}
    filled = b",".join(policy_items.fill(fragments[digest], policy.values) for digest in policy.fragments)
    opening, closing = policy_items.canonical(before)[:-1], policy_items.canonical(after)[1:]
    return b"".join((opening, b',"policies":[', filled, b"],", closing))
