# SPDX-License-Identifier: Apache-2.0
"""How compliance looks to a Rudder client: nested objects as deep as `level` asks, or one CSV line per report.

Every object has its percentage and its details. Level 1 is the object alone, 2 what it is made of, 3 to 5 go down
to components, nodes and values; blocks stand among the components and hold their own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.core import compliance, modes
from quarterdeck.core.compliance import NAMES, Counts
from quarterdeck.core.compliance_trees import (
    BlockStatus,
    DirectiveStatus,
    GatheredBlock,
    GatheredItem,
    ItemStatus,
    NodeValues,
    ValueStatus,
)
from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.modes import OwnMode
from quarterdeck.core.policies import Overridden
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.services.compliance_views import DirectiveCompliance, NodeCompliance, OnNode, Pair, RuleCompliance

CSV_COLUMNS = ("Rule", "Block", "Component", "Node", "Value", "Status", "Message")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How deep and how exact an answer is, and what the ids in it stand for."""

    rules: Mapping[RuleId, Rule]
    directives: Mapping[DirectiveId, Directive]
    settings: Settings
    level: int
    precision: int

    # -- whole views --------------------------------------------------------------

    def rule(self, view: RuleCompliance) -> Json:
        """A rule; its directives and its nodes from level 2."""
        shown = self._head(view.rule.id, view.rule.name, view.counts, view.mode, reporting=True)
        if self.level >= 2:
            on = {one.node: one for one in view.nodes}
            shown["directives"] = [self._pair(pair, on, name_rule=False) for pair in view.directives]
            shown["nodes"] = [self._rule_on_node(one) for one in view.nodes]
        return shown

    def directive(self, view: DirectiveCompliance) -> Json:
        """A directive; the rules that bring it and its nodes from level 2."""
        shown = self._head(view.directive.id, view.directive.name, view.counts, view.mode, reporting=True)
        if self.level >= 2:
            on = {one.node: one for one in view.nodes}
            shown["rules"] = [self._pair(pair, on, name_rule=True) for pair in view.rules]
            shown["nodes"] = [self._directive_on_node(one) for one in view.nodes]
        return shown

    def node(self, view: NodeCompliance) -> Json:
        """A node; its rules from level 2, their directives from level 3."""
        shown = self._head(view.node, view.hostname, view.counts, self._node_mode(view.mode), reporting=True)
        if self.level >= 2:
            shown["rules"] = self._rules_of_node(view)
        return shown

    # -- what they are made of -------------------------------------------------------

    def _pair(self, pair: Pair, on: Mapping[NodeId, OnNode], *, name_rule: bool) -> Json:
        """A directive of a rule, or a rule of a directive."""
        mode = modes.summarise([self._own_mode(pair.directive)], **self._global)
        if name_rule:
            shown = self._head(pair.rule, self._rule_name(pair.rule), pair.counts, mode)
        else:
            shown = self._head(pair.directive, self._directive_name(pair.directive), pair.counts, mode)
        if pair.overridden and not any(pair.counts):
            shown["skippedDetails"] = self._skipped(pair.overridden[0])
        if self.level >= 3:
            shown["components"] = [self._gathered(item, on, pair.directive) for item in pair.components]
        return shown

    def _gathered(self, item: GatheredItem, on: Mapping[NodeId, OnNode], directive: DirectiveId) -> Json:
        shown: Json = {"name": item.name, **self._numbers(item.counts)}
        if isinstance(item, GatheredBlock):
            shown["components"] = [self._gathered(child, on, directive) for child in item.children]
        elif self.level >= 4:
            shown["nodes"] = [self._node_values(one, on[one.node], directive) for one in item.nodes]
        return shown

    def _node_values(self, one: NodeValues, on: OnNode, directive: DirectiveId) -> Json:
        shown = self._head(one.node, on.hostname, one.counts, self._mode_on(directive, on.mode))
        if self.level >= 5:
            shown["values"] = [_value(value) for value in one.values]
        return shown

    def _rule_on_node(self, one: OnNode) -> Json:
        shown = self._head(one.node, one.hostname, one.counts, self._node_mode(one.mode))
        if self.level >= 3:
            shown["directives"] = [self._directive_status(status, one.mode, depth=4) for status in one.directives]
        return shown

    def _directive_on_node(self, one: OnNode) -> Json:
        shown = self._head(one.node, one.hostname, one.counts, self._node_mode(one.mode))
        if self.level >= 3:
            shown["rules"] = [
                self._with_components(
                    self._head(
                        status.rule,
                        self._rule_name(status.rule),
                        status.counts,
                        self._mode_on(status.directive, one.mode),
                    ),
                    status.items,
                    depth=4,
                )
                for status in one.directives
            ]
        return shown

    def _rules_of_node(self, view: NodeCompliance) -> list[Json]:
        statuses = view.by_rule()
        gone: dict[RuleId, list[Overridden]] = {}
        for one in view.overridden:
            gone.setdefault(one.rule, []).append(one)
        return [
            self._rule_of_node(rule, statuses.get(rule, ()), gone.get(rule, ()), view.mode)
            for rule in sorted({*statuses, *gone}, key=lambda rule: (self._rule_name(rule), rule))
        ]

    def _rule_of_node(
        self, rule: RuleId, statuses: Sequence[DirectiveStatus], gone: Sequence[Overridden], node_mode: OwnMode
    ) -> Json:
        counts = compliance.total(one.counts for one in statuses)
        both: list[DirectiveStatus | Overridden] = [*statuses, *gone]
        named = {self._mode_on(one.directive, node_mode) for one in both}
        shown = self._head(rule, self._rule_name(rule), counts, named.pop() if len(named) == 1 else "mixed")
        if self.level >= 3:
            shown["directives"] = [self._directive_status(one, node_mode, depth=4) for one in statuses] + [
                self._gave_way(one, node_mode) for one in gone
            ]
        return shown

    def _gave_way(self, one: Overridden, node_mode: OwnMode) -> Json:
        mode = self._mode_on(one.directive, node_mode)
        shown = self._head(one.directive, self._directive_name(one.directive), compliance.EMPTY, mode)
        shown["skippedDetails"] = self._skipped(one)
        return self._with_components(shown, (), depth=4)

    def _directive_status(self, status: DirectiveStatus, node_mode: OwnMode, *, depth: int) -> Json:
        mode = self._mode_on(status.directive, node_mode)
        shown = self._head(status.directive, self._directive_name(status.directive), status.counts, mode)
        return self._with_components(shown, status.items, depth=depth)

    def _with_components(self, shown: Json, items: Iterable[ItemStatus], *, depth: int) -> Json:
        if self.level >= depth:
            shown["components"] = [self._component(item) for item in items]
        return shown

    def _component(self, item: ItemStatus) -> Json:
        shown: Json = {"name": item.name, **self._numbers(item.counts)}
        if isinstance(item, BlockStatus):
            shown["components"] = [self._component(child) for child in item.children]
        elif self.level >= 5:
            shown["values"] = [_value(value) for value in item.values]
        return shown

    # -- small parts -------------------------------------------------------------------

    def _head(self, key: str, name: str, counts: Counts, mode: str, *, reporting: bool = False) -> Json:
        numbers = self._numbers(counts)
        shown: Json = {"id": key, "name": name, "compliance": numbers["compliance"]}
        if reporting:
            shown["mode"] = self.settings.reporting_mode
        return shown | {"policyMode": mode, "complianceDetails": numbers["complianceDetails"]}

    def _numbers(self, counts: Counts) -> Json:
        percent, details = _percentages(counts, self.precision)
        return {"compliance": percent, "complianceDetails": details}

    def _skipped(self, one: Overridden) -> Json:
        return {"overridingRuleId": one.by_rule, "overridingRuleName": self._rule_name(one.by_rule)}

    def _rule_name(self, rule: RuleId) -> str:
        return self.rules[rule].name if rule in self.rules else rule

    def _directive_name(self, directive: DirectiveId) -> str:
        return self.directives[directive].name if directive in self.directives else directive

    def _own_mode(self, directive: DirectiveId) -> OwnMode:
        return self.directives[directive].mode if directive in self.directives else None

    def _node_mode(self, mode: OwnMode) -> str:
        return modes.resolve(None, mode, **self._global).value

    def _mode_on(self, directive: DirectiveId, node_mode: OwnMode) -> str:
        return modes.resolve(self._own_mode(directive), node_mode, **self._global).value

    @property
    def _global(self) -> Any:
        return {
            "global_mode": self.settings.global_policy_mode,
            "overridable": self.settings.global_policy_mode_overridable,
        }


@functools.lru_cache(maxsize=5_000)
def _percentages(counts: Counts, precision: int) -> tuple[float, dict[str, float]]:
    """Percentage and details; most objects of a fleet have the counts of many others. Not to be changed."""
    return compliance.percent(counts, precision), compliance.details(counts, precision)


def _value(value: ValueStatus) -> Json:
    return {
        "value": value.value,
        "reports": [
            {"status": NAMES[one.status]} | ({"message": one.message} if one.message else {}) for one in value.outcomes
        ],
    }


def encode_global(counts: Counts, precision: int) -> Json:
    """The fleet as one whole number; without data there are no details."""
    shown: Json = {"compliance": compliance.global_percent(counts)}
    if any(counts):
        shown["complianceDetails"] = compliance.details(counts, precision)
    return shown


# -- CSV ---------------------------------------------------------------------------------


def encode_csv(views: Iterable[DirectiveCompliance], rules: Mapping[RuleId, Rule]) -> str:
    """A head and one line per report, every cell quoted; blocks are named from the outside to the inside."""
    lines = [CSV_COLUMNS]
    for view in views:
        hostnames = {one.node: one.hostname for one in view.nodes}
        for pair in view.rules:
            name = rules[pair.rule].name if pair.rule in rules else pair.rule
            lines.extend((name, *rest) for rest in _csv_items(pair.components, (), hostnames))  # type: ignore[misc]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _csv_items(
    items: Iterable[GatheredItem], blocks: tuple[str, ...], hostnames: Mapping[NodeId, str]
) -> Iterator[tuple[str, ...]]:
    for item in items:
        if isinstance(item, GatheredBlock):
            yield from _csv_items(item.children, (*blocks, item.name), hostnames)
            continue
        for node in item.nodes:
            for value in node.values:
                for one in value.outcomes:
                    place = (",".join(blocks), item.name, hostnames[node.node], value.value)
                    yield (*place, NAMES[one.status], one.message)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'
