# SPDX-License-Identifier: Apache-2.0
"""What people do with rules; their categories are a shelf of `services/categories.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core import modes, rules, targets
from quarterdeck.core.categories import Category
from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid
from quarterdeck.core.events import RuleChanged
from quarterdeck.core.ids import NodeId, RuleId, parse_revised
from quarterdeck.core.rules import MISSING_CATEGORY, ROOT_CATEGORY, Rule, Status
from quarterdeck.services import targets as populations
from quarterdeck.services.categories import Shelf
from quarterdeck.services.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRule:
    """A rule with what follows from the rest of the configuration."""

    rule: Rule
    #: audit | enforce | mixed
    mode: str
    status: Status
    #: what its targets resolve to now
    nodes: frozenset[NodeId]


def all_rules(ctx: Context) -> list[Rule]:
    """Every rule that is not the system's, sorted by id."""
    return [rule for rule in ctx.store.rules.all() if not rule.system]


def get(ctx: Context, rule_id: str) -> Rule:
    """One rule, or, with `+revision` behind the id, what it was then. Raises NotFound, Invalid."""
    named = parse_revised(rule_id)
    if not named.revision:
        return ctx.store.rules.get(named.uid)
    return replace(ctx.store.rules.revision(named.uid, named.revision), id=RuleId(str(named)))


def show(ctx: Context, some: Iterable[Rule]) -> list[ShownRule]:
    """Rules with their mode and status."""
    shown = list(some)
    used = ctx.store.directives.among({directive for rule in shown for directive in rule.directives})
    directives = {directive.id: directive for directive in used.values()}
    disabled = {group.id for group in ctx.store.groups.having(enabled=False)}
    population = populations.population(ctx)
    settings = ctx.store.settings.get()
    answer = []
    for rule in shown:
        nodes = targets.resolve(rule.targets, population)
        mode = modes.summarise(
            (directives[one].mode for one in rule.directives if one in directives),
            global_mode=settings.global_policy_mode,
            overridable=settings.global_policy_mode_overridable,
        )
        status = rules.status(rule, directives=directives, disabled_groups=disabled, nodes=nodes)
        answer.append(ShownRule(rule=rule, mode=mode, status=status, nodes=frozenset(nodes)))
    return answer


def create(ctx: Context, rule: Rule) -> Rule:
    """Add a rule and let the fleet's policies follow. Raises Invalid, AlreadyExists."""
    if not rule.name.strip():
        raise Invalid("Missing manadatory parameter 'displayName'", problems={"displayName": "is missing"})
    if ctx.store.rules.find(rule.id) is not None:
        message = f"Cannot create a rule with ID '{rule.id}' : there is already a rule with the same id"
        raise AlreadyExists(message)
    _require_free_name(ctx, rule)
    _require_directives(ctx, rule)
    ctx.store.rules.add(rule)
    ctx.emit(RuleChanged(rule.id))
    return rule


def clone(ctx: Context, source: str, rule_id: RuleId, changes: Mapping[str, Any]) -> Rule:
    """Add a copy of a rule with some fields changed. Raises NotFound and what `create` raises."""
    original = get(ctx, source)
    return create(ctx, replace(original, **{"system": False, **changes, "id": rule_id}))


def update(ctx: Context, rule_id: str, changes: Mapping[str, Any]) -> Rule:
    """Change some fields of a rule. Raises NotFound, Invalid, AlreadyExists, Conflict."""
    before = ctx.store.rules.get(rule_id, lock=True)
    if before.system:
        raise Conflict(f"System rule '{before.name}' ({before.id}) can not be modified")
    after = replace(before, **changes)
    if not after.name.strip():
        raise Invalid("A rule needs a name.", problems={"displayName": "is empty"})
    if after.name != before.name:
        _require_free_name(ctx, after)
    _require_directives(ctx, after, known=before)
    ctx.store.rules.replace(after)
    if after != before:
        ctx.emit(RuleChanged(after.id, targets_before=before.targets))
    return after


def delete(ctx: Context, rule_id: str) -> Rule | None:
    """Remove a rule; None when there was none. Raises Conflict for a system rule."""
    rule = ctx.store.rules.find(rule_id, lock=True)
    if rule is None:
        return None
    if rule.system:
        raise Conflict(f"System Rule '{rule.id}' can't be deleted")
    ctx.store.rules.remove(rule.id)
    ctx.emit(RuleChanged(rule.id, targets_before=rule.targets))
    return rule


def _require_free_name(ctx: Context, rule: Rule) -> None:
    if any(other.id != rule.id for other in ctx.store.rules.having(name=rule.name)):
        message = f"Cannot create a rule with name {rule.name} : there is already a rule with the same name"
        raise AlreadyExists(message)


def _require_directives(ctx: Context, rule: Rule, known: Rule | None = None) -> None:
    """Every directive that the rule newly names must exist."""
    new = rule.directives - (known.directives if known is not None else frozenset())
    missing = sorted(new - ctx.store.directives.among(new).keys())
    if missing:
        raise Invalid(f"Directive with id '{missing[0]}' was not found", problems={"directives": missing[0]})


# -- categories ---------------------------------------------------------------------

CATEGORIES = Shelf(
    root=ROOT_CATEGORY,
    table=lambda ctx: ctx.store.rule_categories,
    placed=lambda ctx: ((rule.category, rule.id) for rule in all_rules(ctx)),
    # The peer's check, although its sentence says 3.
    min_name=4,
    short_name="'displayName' is mandatory and must be at least 3 char long",
    lost=Category(id=MISSING_CATEGORY, name="Rules with a missing/deleted category", parent=ROOT_CATEGORY),
)
