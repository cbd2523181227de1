# SPDX-License-Identifier: Apache-2.0
"""Files that come with techniques: listed, kept, given and forgotten by their path, bytes as they are."""

from __future__ import annotations

from typing import Any

from quarterdeck.core.technique_resources import MAX_BYTES
from quarterdeck.core.techniques import TechniqueResource
from quarterdeck.dialects.native import signed_requests
from quarterdeck.services import technique_resources
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Resources of techniques")

_LIST = "/api/1/techniques/{id}/{version}/resources"
#: The path goes on to the end, slashes and all.
_ONE = _LIST + "/{path}"
_PLACE = len(_ONE.strip("/").split("/")) - 1
_BYTES = ("Content-Type", "application/octet-stream")


def with_path(segments: tuple[str, ...]) -> tuple[str, ...]:
    """The segments of a request's path, those of a resource's path made one."""
    if segments[:3] == ("api", "1", "techniques") and segments[_PLACE - 1 : _PLACE] == ("resources",):
        return (*segments[:_PLACE], *(["/".join(segments[_PLACE:])] if segments[_PLACE:] else []))
    return segments


@section.operation("listTechniqueResources", "GET", _LIST, right="technique.read")
def list_technique_resources(ctx: Context, request: Request) -> Reply:
    """List the files of one version of a technique, with their SHA-256 and length."""
    found = technique_resources.of_technique(ctx, request.params["id"], request.params["version"])
    return Reply([_encode(one) for one in found])


@section.operation("getTechniqueResource", "GET", _ONE, right="technique.read")
def get_technique_resource(ctx: Context, request: Request) -> Answer:
    """Download a file of a technique, unless it is the one named in If-None-Match."""
    found, body = technique_resources.get(ctx, *_named(request))
    tag = ("ETag", f'"{found.sha256}"')
    if signed_requests.known_tag(request) == found.sha256:
        return Answer(status=304, headers=(tag,))
    return Answer(headers=(_BYTES, tag), body=body)


@section.operation("putTechniqueResource", "PUT", _ONE, right="technique.write", max_body=MAX_BYTES)
def put_technique_resource(ctx: Context, request: Request) -> Reply:
    """Keep the body as a file of a technique, in place of the one with this path."""
    return Reply(_encode(technique_resources.put(ctx, *_named(request), request.body)))


@section.operation("deleteTechniqueResource", "DELETE", _ONE, right="technique.write")
def delete_technique_resource(ctx: Context, request: Request) -> Reply:
    """Forget a file of a technique."""
    return Reply(_encode(technique_resources.delete(ctx, *_named(request))))


def _named(request: Request) -> tuple[str, str, str]:
    return request.params["id"], request.params["version"], request.params["path"]


def _encode(one: TechniqueResource) -> dict[str, Any]:
    return {"path": one.path, "sha256": one.sha256, "size": one.size}
