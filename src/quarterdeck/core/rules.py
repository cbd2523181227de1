# SPDX-License-Identifier: Apache-2.0
"""Rules: which directives apply to which targets; their categories and the status that a rule shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from quarterdeck.core import targets
from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import CategoryId, DirectiveId, GroupId, NodeId, RuleId
from quarterdeck.core.tags import Tag

ROOT_CATEGORY = CategoryId("rootRuleCategory")
#: Where the tree shows rules whose category was deleted.
MISSING_CATEGORY = CategoryId("ui-missing-rule-category")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    id: RuleId
    name: str
    category: CategoryId = ROOT_CATEGORY
    short_description: str = ""
    long_description: str = ""
    directives: frozenset[DirectiveId] = frozenset()
    targets: tuple[targets.Target, ...] = ()
    enabled: bool = True
    system: bool = False
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Whether a rule is in application, and why not. `value` is the text clients match on."""

    value: str
    details: str = ""


def status(
    rule: Rule,
    *,
    directives: Mapping[DirectiveId, Directive],
    disabled_groups: Set[GroupId],
    nodes: Set[NodeId],
) -> Status:
    """The status of a rule whose targets resolve to `nodes`; `directives` holds those that exist."""
    used = [directives[one] for one in sorted(rule.directives) if one in directives]
    off = [f"Directive '{directive.name}' disabled" for directive in used if not directive.enabled]
    reasons = _reasons(rule, used, disabled_groups, nodes)
    if not rule.enabled:
        return Status(value="Disabled", details=", ".join(["This rule is disabled.", *reasons, *off]))
    if reasons or len(off) == len(used):
        return Status(value="Not applied", details=", ".join([*reasons, *off]))
    if off:
        return Status(value="Partially applied", details=", ".join(off))
    return Status(value="In application")


def _reasons(rule: Rule, used: list[Directive], disabled_groups: Set[GroupId], nodes: Set[NodeId]) -> Iterable[str]:
    reasons = []
    if not rule.targets:
        reasons.append("Rule unapplied")
    if not used:
        reasons.append("No policy defined")
    if disabled_groups & set(targets.groups_in(rule.targets)):
        reasons.append("Group disabled")
    if rule.targets and not nodes:
        reasons.append("Empty groups")
    return reasons


def is_applied(shown: Status) -> bool:
    """Whether policy generation takes the rule into account."""
    return shown.value in ("In application", "Partially applied")
