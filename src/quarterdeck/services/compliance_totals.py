# SPDX-License-Identifier: Apache-2.0
"""Rules and directives as one counter each, from what nodes share: cheap however large the fleet is.

Whoever wants to see the nodes and directives below looks into `compliance_views.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from quarterdeck.core import compliance, modes
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, RuleId
from quarterdeck.core.modes import OwnMode
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.services import rules
from quarterdeck.services.compliance_views import DirectiveCompliance, RuleCompliance
from quarterdeck.services.context import Context

_Pair = tuple[RuleId, DirectiveId]


def by_rules(ctx: Context) -> list[RuleCompliance]:
    """All user rules without what is below them, sorted by name."""
    return _of_rules(ctx, sorted(rules.all_rules(ctx), key=lambda rule: (rule.name, rule.id)))


def of_rule(ctx: Context, rule_id: str) -> RuleCompliance:
    """One rule without what is below it. Raises NotFound."""
    return _of_rules(ctx, [ctx.store.rules.get(rule_id)])[0]


def by_directives(ctx: Context) -> list[DirectiveCompliance]:
    """All directives that are no system ones without what is below them, sorted by name."""
    chosen = (one for one in ctx.store.directives.all() if not one.system)
    return _of_directives(ctx, sorted(chosen, key=lambda one: (one.name, one.id)))


def of_directive(ctx: Context, directive_id: str) -> DirectiveCompliance:
    """One directive without what is below it. Raises NotFound."""
    return _of_directives(ctx, [ctx.store.directives.get(directive_id)])[0]


def _of_rules(ctx: Context, some: Sequence[Rule]) -> list[RuleCompliance]:
    totals: dict[RuleId, list[Counts]] = {}
    for (rule, _), counts in _pairs(ctx).items():
        totals.setdefault(rule, []).append(counts)
    settings = ctx.store.settings.get()
    directives = ctx.store.directives.among({one for rule in some for one in rule.directives})
    known = [
        RuleCompliance(
            rule=rule,
            mode=_mode(settings, (directives[one] for one in rule.directives if one in directives)),
            counts=compliance.total(totals.get(rule.id, ())),
            directives=(),
            nodes=(),
        )
        for rule in some
    ]
    return _with_silent(ctx, known, unknown={one.rule.id for one in known} - totals.keys())


def _of_directives(ctx: Context, some: Sequence[Directive]) -> list[DirectiveCompliance]:
    totals: dict[DirectiveId, list[Counts]] = {}
    for (_, directive), counts in _pairs(ctx).items():
        totals.setdefault(directive, []).append(counts)
    settings = ctx.store.settings.get()
    return [
        DirectiveCompliance(
            directive=one,
            mode=_mode(settings, [one]),
            counts=compliance.total(totals.get(one.id, ())),
            rules=(),
            nodes=(),
        )
        for one in some
    ]


def with_silent(ctx: Context, found: Sequence[RuleCompliance]) -> list[RuleCompliance]:
    """Views of rules, where a rule with nodes that nothing is known of counts one missing answer per node."""
    return _with_silent(ctx, found, unknown={one.rule.id for one in found if not one.directives})


def _with_silent(ctx: Context, found: Sequence[RuleCompliance], unknown: Collection[RuleId]) -> list[RuleCompliance]:
    silent: dict[RuleId, Counts] = {}
    for shown in rules.show(ctx, [one.rule for one in found if one.rule.id in unknown]) if unknown else ():
        # A rule that gave way to others has nothing to say, and is not silent for that.
        gone = ctx.store.compliance.overridden(shown.nodes) if shown.nodes else {}
        if not any(one.rule == shown.rule.id for some in gone.values() for one in some):
            silent[shown.rule.id] = compliance.units(Status.NO_REPORT, len(shown.nodes))
    return [replace(one, counts=silent.get(one.rule.id, one.counts)) for one in found]


def _pairs(ctx: Context) -> dict[_Pair, Counts]:
    """Every directive of every rule over all nodes."""
    groups = ctx.store.compliance.groups()
    counters = ctx.store.compliance.counters({group.counters for group in groups})
    nodes: Counter[tuple[_Pair, Counts]] = Counter()
    for group in groups:
        for one in counters.get(group.counters, ()):
            counts = compliance.units(Status.NO_REPORT, one.silent) if group.expired else one.counts
            nodes[(one.rule, one.directive), counts] += group.nodes
    sums: dict[_Pair, list[Counts]] = {}
    for (pair, counts), times in nodes.items():
        sums.setdefault(pair, []).append(tuple(count * times for count in counts))
    return {pair: compliance.total(some) for pair, some in sums.items()}


def _mode(settings: Settings, directives: Iterable[Directive]) -> str:
    own: list[OwnMode] = [one.mode for one in directives]
    return modes.summarise(
        own, global_mode=settings.global_policy_mode, overridable=settings.global_policy_mode_overridable
    )
