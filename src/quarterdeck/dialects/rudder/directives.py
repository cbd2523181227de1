# SPDX-License-Identifier: Apache-2.0
"""Directives chapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.ids import DirectiveId, TechniqueId, parse_revised
from quarterdeck.core.modes import parse_own_mode
from quarterdeck.core.techniques import Technique, TechniqueKey
from quarterdeck.dialects.rudder import body
from quarterdeck.dialects.rudder.directive_shapes import decode_parameters, encode_directive, encode_revision
from quarterdeck.dialects.rudder.shapes import Fields, Flag, Text, chosen_id, decode_tags
from quarterdeck.services import directives, techniques
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Directives", {"wrap": "directives"})


class DirectiveFields(Fields):
    id: Text = UNSET
    display_name: Text = UNSET
    short_description: Text = UNSET
    long_description: Text = UNSET
    technique_name: Text = UNSET
    technique_version: Text = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    enabled: Flag = UNSET
    policy_mode: Text = UNSET
    tags: list[Any] | UnsetType = UNSET
    source: Text = UNSET

    def changes(self) -> dict[str, Any]:
        """The fields that were sent, as core calls them. Raises Invalid."""
        given = self.given(
            display_name="name",
            short_description="short_description",
            long_description="long_description",
            technique_name="technique",
            technique_version="version",
            priority="priority",
            enabled="enabled",
        )
        if self.parameters is not UNSET:
            given["parameters"] = decode_parameters(self.parameters)
        if self.policy_mode is not UNSET:
            given["mode"] = parse_own_mode(self.policy_mode)
        if self.tags is not UNSET:
            given["tags"] = decode_tags(self.tags)
        return given


@section.operation("listDirectives", "GET", "/directives", right="directive.read")
def list_directives(ctx: Context, request: Request) -> Reply:
    """List all directives."""
    return Reply(encode_all(ctx, directives.all_directives(ctx)))


@section.operation("createDirective", "PUT", "/directives", right="directive.write", body=DirectiveFields)
def create_directive(ctx: Context, request: Request) -> Reply:
    """Create a directive, or clone one when `source` is given."""
    fields = body.decode(request, DirectiveFields)
    directive_id = DirectiveId(parse_revised(chosen_id(fields.id)).uid)
    if fields.source is not UNSET:
        cloned = directives.clone(ctx, fields.source, directive_id, fields.changes())
        return _reply(ctx, cloned, action="cloneDirective")
    given = {"name": "", **fields.changes(), "id": directive_id, **_technique(ctx, fields)}
    return _reply(ctx, directives.create(ctx, Directive(**given)))


def _technique(ctx: Context, fields: DirectiveFields) -> Mapping[str, Any]:
    """The technique asked for; its newest version when none is named."""
    hint = "Technique is not correctly defined in request data.; cause was: Inconsistency:"
    if fields.technique_name is UNSET or not fields.technique_name:
        raise Invalid(f"{hint} techniqueName should not be empty", problems={"techniqueName": "is missing"})
    if fields.technique_version is not UNSET:
        return {"technique": TechniqueId(fields.technique_name), "version": fields.technique_version}
    try:
        found = techniques.newest(ctx, fields.technique_name)
    except NotFound as error:
        raise Invalid(f"{hint} {error.message}", problems={"techniqueName": "is not known"}) from error
    return {"technique": found.id, "version": found.version}


@section.operation("directiveDetails", "GET", "/directives/{id}", right="directive.read")
def directive_details(ctx: Context, request: Request) -> Reply:
    """Get one directive."""
    return _reply(ctx, directives.get(ctx, request.params["id"]))


@section.operation("updateDirective", "POST", "/directives/{id}", right="directive.write", body=DirectiveFields)
def update_directive(ctx: Context, request: Request) -> Reply:
    """Change the fields of a directive that are sent."""
    changes = body.decode(request, DirectiveFields).changes()
    return _reply(ctx, directives.update(ctx, request.params["id"], changes))


@section.operation("checkDirective", "POST", "/directives/{id}/check", right="directive.read", body=DirectiveFields)
def check_directive(ctx: Context, request: Request) -> Reply:
    """Answer what an update would give; nothing is kept."""
    changes = body.decode(request, DirectiveFields).changes()
    return _reply(ctx, directives.would_be(ctx, request.params["id"], changes))


@section.operation("deleteDirective", "DELETE", "/directives/{id}", right="directive.write")
def delete_directive(ctx: Context, request: Request) -> Reply:
    """Delete a directive; deleting an unknown one succeeds."""
    wanted = DirectiveId(request.params["id"])
    deleted = directives.delete(ctx, wanted)
    if deleted is not None:
        return _reply(ctx, deleted)
    blank = Directive(id=wanted, name="", technique=TechniqueId(""), version="", enabled=False)
    return Reply([encode_directive(blank, None) | {"parameters": {}, "policyMode": ""}], id=wanted)


@section.operation("directiveTree", "GET", "/directives/tree", right="directive.read", since=14, documented=False)
def directive_tree(ctx: Context, request: Request) -> Reply:
    """The directives by technique and technique category."""
    shown: dict[TechniqueId, list[dict[str, Any]]] = {}
    everything = ctx.store.directives.all() if request.first("includeSystem") == "true" else None
    for one in encode_all(ctx, everything or directives.all_directives(ctx)):
        shown.setdefault(TechniqueId(one["techniqueName"]), []).append(one)
    categories: dict[str, dict[TechniqueId, Technique]] = {}
    for technique in techniques.all_techniques(ctx):
        categories.setdefault(technique.category, {})[technique.id] = technique
    children = [
        {
            "name": category,
            "description": "",
            "subCategories": [],
            "techniques": [
                {"id": one.id, "name": one.name, "directives": shown.get(one.id, [])} for one in of_category.values()
            ],
        }
        for category, of_category in sorted(categories.items())
    ]
    return Reply([{"name": "Active Techniques", "description": "", "subCategories": children, "techniques": []}])


@section.operation(
    "directiveRevisions", "GET", "/directives/{id}/revisions", right="directive.read", since=14, documented=False
)
def directive_revisions(ctx: Context, request: Request) -> Reply:
    """Every change of a directive, newest first."""
    wanted = request.params["id"]
    return Reply([encode_revision(one) for one in directives.revisions(ctx, wanted)], id=wanted)


def _reply(ctx: Context, directive: Directive, action: str | None = None) -> Reply:
    return Reply(encode_all(ctx, [directive]), id=directive.id, action=action)


def encode_all(ctx: Context, some: list[Directive]) -> list[dict[str, Any]]:
    """Directives with their parameters as their techniques order them."""
    known = directives.techniques_of(ctx, some)
    return [encode_directive(one, known.get(TechniqueKey(one.technique, one.version))) for one in some]
