# SPDX-License-Identifier: Apache-2.0
"""Rules chapter: rules, rule categories and their tree."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from quarterdeck.core import targets
from quarterdeck.core.categories import CategoryTree
from quarterdeck.core.errors import Conflict, Invalid
from quarterdeck.core.ids import CategoryId, DirectiveId, RuleId, parse_revised
from quarterdeck.core.rules import Rule
from quarterdeck.dialects.rudder import body
from quarterdeck.dialects.rudder.category_shapes import CategoryFields, encode_category, encode_tree
from quarterdeck.dialects.rudder.shapes import Fields, Flag, Text, chosen_id, decode_tags, encode_tags
from quarterdeck.services import categories, rules
from quarterdeck.services.context import Context
from quarterdeck.services.rules import ShownRule
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Rules")


class RuleFields(Fields):
    """`category` goes in, `categoryId` comes out."""

    id: Text = UNSET
    display_name: Text = UNSET
    category: Text = UNSET
    short_description: Text = UNSET
    long_description: Text = UNSET
    directives: list[str] | UnsetType = UNSET
    targets: list[Any] | UnsetType = UNSET
    enabled: Flag = UNSET
    tags: list[Any] | UnsetType = UNSET
    source: Text = UNSET

    def changes(self) -> dict[str, Any]:
        """The fields that were sent, as core calls them. Raises Invalid."""
        given = self.given(
            display_name="name",
            category="category",
            short_description="short_description",
            long_description="long_description",
            enabled="enabled",
        )
        if self.directives is not UNSET:
            given["directives"] = frozenset(DirectiveId(one) for one in self.directives)
        if self.targets is not UNSET:
            given["targets"] = tuple(targets.parse(one) for one in self.targets)
        if self.tags is not UNSET:
            given["tags"] = decode_tags(self.tags)
        return given


@section.operation("listRules", "GET", "/rules", right="rule.read", wrap="rules")
def list_rules(ctx: Context, request: Request) -> Reply:
    """List all rules."""
    return Reply([encode_rule(shown) for shown in rules.show(ctx, rules.all_rules(ctx))])


@section.operation(
    "createRule",
    "PUT",
    "/rules",
    right="rule.write",
    body=RuleFields,
    wrap="rules",
    hint="Error when creating new rule",
)
def create_rule(ctx: Context, request: Request) -> Reply:
    """Create a rule, or clone one when `source` is given."""
    fields, changes = _decode(request)
    rule_id = RuleId(_current(chosen_id(fields.id)))
    if fields.source is not UNSET:
        return _reply(ctx, rules.clone(ctx, fields.source, rule_id, changes), action="cloneRule")
    return _reply(ctx, rules.create(ctx, Rule(**{"name": "", **changes, "id": rule_id})))


def _decode(request: Request) -> tuple[RuleFields, dict[str, Any]]:
    """The fields of a rule, and those that were sent as core calls them. Raises NotJson, Undecodable."""
    try:
        fields = body.decode(request, RuleFields)
        return fields, fields.changes()
    except body.NotJson:
        raise
    except Invalid as error:
        what = "a rule from request." if body.is_json(request) else "rule parameters from request"
        message = f"Could not extract {what}; cause was: Unexpected: {error.message}"
        raise body.Undecodable(message, problems=error.problems) from error


def _current(text: str) -> str:
    uid, revision = parse_revised(text)
    if revision:
        raise Invalid(
            f"Error: you can't create a rule with a specific revision like here for rule with id '{uid}'"
            f" which has revision '{revision}'"
        )
    return uid


@section.operation("ruleDetails", "GET", "/rules/{id}", right="rule.read", wrap="rules")
def rule_details(ctx: Context, request: Request) -> Reply:
    """Get one rule."""
    return _reply(ctx, rules.get(ctx, request.params["id"]))


@section.operation("updateRule", "POST", "/rules/{id}", right="rule.write", body=RuleFields, wrap="rules")
def update_rule(ctx: Context, request: Request) -> Reply:
    """Change the fields of a rule that are sent."""
    _, changes = _decode(request)
    if "targets" in changes:
        changes["targets"] = targets.normalise(changes["targets"])
    return _reply(ctx, rules.update(ctx, request.params["id"], changes))


@section.operation("deleteRule", "DELETE", "/rules/{id}", right="rule.write", wrap="rules")
def delete_rule(ctx: Context, request: Request) -> Reply:
    """Delete a rule; deleting an unknown one succeeds."""
    uid, revision = parse_revised(request.params["id"])
    if revision:
        raise Conflict("You can't delete a past revision of a rule, only current version can be deleted.")
    # Mode and status are those of the moment before.
    known = rules.show(ctx, [rule for rule in (ctx.store.rules.find(uid),) if rule is not None])
    deleted = rules.delete(ctx, uid)
    blank = Rule(id=RuleId(uid), name="", category=CategoryId(""), enabled=False)
    shown = encode_rule(known[0]) if deleted is not None else _fields(blank)
    return Reply([shown], id=uid)


@section.operation("getRuleTree", "GET", "/rules/tree", right="rule.read", wrap="ruleCategories")
def get_rule_tree(ctx: Context, request: Request) -> Reply:
    """The whole tree of categories with full rules."""
    shown = {one.rule.id: encode_rule(one) for one in rules.show(ctx, rules.all_rules(ctx))}
    tree = categories.tree(ctx, rules.CATEGORIES)
    return Reply(encode_tree(tree, lambda part: {"rules": [shown[RuleId(rule)] for rule in part.members]}))


@section.operation(
    "createRuleCategory", "PUT", "/rules/categories", right="rule.write", body=CategoryFields, wrap="ruleCategories"
)
def create_rule_category(ctx: Context, request: Request) -> Reply:
    """Create a rule category."""
    draft = body.decode(request, CategoryFields).draft(rules.CATEGORIES.root)
    return Reply(_encode(categories.create(ctx, rules.CATEGORIES, draft)), id=draft.id)


@section.operation("getRuleCategoryDetails", "GET", "/rules/categories/{id}", right="rule.read", wrap="ruleCategories")
def get_rule_category_details(ctx: Context, request: Request) -> Reply:
    """Get one rule category."""
    wanted = request.params["id"]
    return Reply(_encode(categories.get(ctx, rules.CATEGORIES, wanted)), id=wanted)


@section.operation(
    "updateRuleCategory",
    "POST",
    "/rules/categories/{id}",
    right="rule.write",
    body=CategoryFields,
    wrap="ruleCategories",
)
def update_rule_category(ctx: Context, request: Request) -> Reply:
    """Rename, redescribe or move a rule category."""
    wanted, changes = request.params["id"], body.decode(request, CategoryFields).changes()
    return Reply(_encode(categories.update(ctx, rules.CATEGORIES, wanted, changes)), id=wanted)


@section.operation("deleteRuleCategory", "DELETE", "/rules/categories/{id}", right="rule.write", wrap="rulesCategories")
def delete_rule_category(ctx: Context, request: Request) -> Reply:
    """Delete an empty rule category."""
    wanted = request.params["id"]
    deleted = categories.delete(ctx, rules.CATEGORIES, wanted)
    return Reply([{"ruleCategories": _encode(deleted)}], id=wanted)


def _encode(tree: CategoryTree) -> dict[str, Any]:
    return encode_category(tree) | {"rules": list(tree.members)}


def _reply(ctx: Context, rule: Rule, action: str | None = None) -> Reply:
    return Reply([encode_rule(rules.show(ctx, [rule])[0])], id=rule.id, action=action)


def encode_rule(shown: ShownRule) -> dict[str, Any]:
    """A rule with its mode and status."""
    status = {"value": shown.status.value} | ({"details": shown.status.details} if shown.status.details else {})
    return _fields(shown.rule) | {"policyMode": shown.mode, "status": status}


def _fields(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "displayName": rule.name,
        "categoryId": rule.category,
        "shortDescription": rule.short_description,
        "longDescription": rule.long_description,
        "directives": sorted(rule.directives),
        "targets": [targets.show(target) for target in rule.targets],
        "enabled": rule.enabled,
        "system": rule.system,
        "tags": encode_tags(rule.tags),
    }
