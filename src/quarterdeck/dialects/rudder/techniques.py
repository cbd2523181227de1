# SPDX-License-Identifier: Apache-2.0
"""Techniques chapter: techniques, their versions and categories, and the generic methods.

Four operations answer their container's name as action; so does the peer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import TechniqueId
from quarterdeck.dialects.rudder import body
from quarterdeck.dialects.rudder.directive_shapes import encode_revision
from quarterdeck.dialects.rudder.directives import encode_all
from quarterdeck.dialects.rudder.technique_shapes import (
    TechniqueFields,
    encode_method,
    encode_resources,
    encode_technique,
)
from quarterdeck.formats import method_catalogue, technique_yaml
from quarterdeck.services import techniques
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Techniques", {"wrap": "techniques"})


@section.operation("getTechniques", "GET", "/techniques", right="technique.read", since=6)
def get_techniques(ctx: Context, request: Request) -> Reply:
    """List every version of every technique."""
    return Reply([encode_technique(one) for one in techniques.all_techniques(ctx)])


@section.operation("createTechnique", "PUT", "/techniques", right="technique.write", body=TechniqueFields, since=14)
def create_technique(ctx: Context, request: Request) -> Reply:
    """Create a technique from the editor's document."""
    created = techniques.create(ctx, body.decode(request, TechniqueFields).to_technique())
    return Reply([{"technique": encode_technique(created)}])


@section.operation("techniques", "POST", "/techniques/reload", right="technique.write", since=14)
def reload_techniques(ctx: Context, request: Request) -> Reply:
    """Read the library again; answers the editor's techniques."""
    return Reply([encode_technique(one) for one in techniques.reload(ctx)], action="updateTechniques")


@section.operation(
    "techniqueCategories", "GET", "/techniques/categories", right="technique.read", wrap="techniqueCategories", since=14
)
def technique_categories(ctx: Context, request: Request) -> Reply:
    """The tree of technique categories."""
    root: dict[str, Any] = {"name": "/", "path": "", "id": "/", "subCategories": []}
    for path in sorted({one.category for one in techniques.all_techniques(ctx)}):
        _insert(root, path)
    return Reply(root)


def _insert(root: dict[str, Any], path: str) -> None:
    level, walked = root, ""
    for name in path.strip("/").split("/"):
        walked = f"{walked}/{name}".strip("/")
        child = next((one for one in level["subCategories"] if one["path"] == walked), None)
        if child is None:
            child = {"name": name, "path": walked, "id": name, "subCategories": []}
            level["subCategories"].append(child)
        level = child


@section.operation("listTechniques", "GET", "/techniques/versions", right="technique.read", since=14)
def list_techniques(ctx: Context, request: Request) -> Reply:
    """List techniques with the versions of each."""
    versions: dict[TechniqueId, list[str]] = {}
    for one in techniques.all_techniques(ctx):
        versions.setdefault(one.id, []).append(one.version)
    shown = [
        {"name": name, "versions": sorted(some, key=techniques.version_order)}
        for name, some in sorted(versions.items())
    ]
    return Reply(shown)


@section.operation("getTechniqueAllVersion", "GET", "/techniques/{id}", right="technique.read", since=14)
def get_technique_all_version(ctx: Context, request: Request) -> Reply:
    """Get every version of a technique."""
    return Reply([encode_technique(one) for one in techniques.versions(ctx, request.params["id"])])


@section.operation(
    "listTechniquesDirectives",
    "GET",
    "/techniques/{id}/directives",
    right="directive.read",
    wrap="directives",
    since=6,
)
def list_techniques_directives(ctx: Context, request: Request) -> Reply:
    """List the directives made of a technique."""
    wanted = request.params["id"]
    return Reply(encode_all(ctx, techniques.directives_of(ctx, wanted)), id=wanted)


@section.operation(
    "listTechniqueDirectives",
    "GET",
    "/techniques/{id}/{version}/directives",
    right="directive.read",
    wrap="directives",
    since=6,
)
def list_technique_directives(ctx: Context, request: Request) -> Reply:
    """List the directives made of one version of a technique."""
    wanted, version = request.params["id"], request.params["version"]
    try:
        techniques.version_order(version)
    except Invalid:
        message = (
            f"Could not find list of directives based on '{wanted}' technique,"
            f" because we could not parse '{version}' as a valid technique version"
        )
        raise Invalid(message) from None
    return Reply(encode_all(ctx, techniques.directives_of(ctx, wanted, version)), id=wanted)


@section.operation(
    "techniqueRevisions", "GET", "/techniques/{id}/{version}/revisions", right="technique.read", since=14
)
def technique_revisions(ctx: Context, request: Request) -> Reply:
    """Every change of one version of a technique, newest first."""
    found = techniques.revisions(ctx, request.params["id"], request.params["version"])
    return Reply([encode_revision(one) for one in found])


@section.operation(
    "resources", "GET", "/techniques/{id}/{version}/resources", right="technique.read", wrap="resources", since=14
)
def technique_resources(ctx: Context, request: Request) -> Reply:
    """The resource files of one version of a technique."""
    return Reply(encode_resources(techniques.get(ctx, request.params["id"], request.params["version"])))


@section.operation("getTechnique", "GET", "/techniques/{id}/{version}", right="technique.read", since=14)
def get_technique(ctx: Context, request: Request) -> Reply:
    """Get one version of a technique, as JSON or, with `format=yaml`, as its document."""
    found = techniques.get(ctx, request.params["id"], request.params["version"])
    wanted = request.first("format", "json")
    if wanted not in ("json", "yaml"):
        raise Invalid(f"Wrong type of value for format '{wanted}', expected : [json, yaml]")
    return Reply([encode_technique(found) if wanted == "json" else {"content": technique_yaml.write(found)}])


@section.operation(
    "updateTechnique", "POST", "/techniques/{id}/{version}", right="technique.write", body=TechniqueFields, since=14
)
def update_technique(ctx: Context, request: Request) -> Reply:
    """Change a technique from the editor's document."""
    sent = body.decode(request, TechniqueFields).to_technique()
    named = replace(sent, id=TechniqueId(request.params["id"]), version=request.params["version"])
    return Reply([encode_technique(techniques.update(ctx, named))])


@section.operation("techniques", "DELETE", "/techniques/{id}/{version}", right="technique.write", since=14)
def delete_technique(ctx: Context, request: Request) -> Reply:
    """Delete one version of a technique; deleting an unknown one succeeds."""
    wanted, version = request.params["id"], request.params["version"]
    techniques.delete(ctx, techniques.key(wanted, version), force=body.general(request, "force") == "true")
    return Reply({"id": wanted, "version": version})


@section.operation("methods", "GET", "/methods", right="technique.read", wrap="methods", since=14)
@section.operation("methods", "POST", "/methods/reload", right="technique.read", wrap="methods", since=14)
def methods(ctx: Context, request: Request) -> Reply:
    """Every generic method by id."""
    return Reply({name: encode_method(one) for name, one in sorted(method_catalogue.load().items())})
