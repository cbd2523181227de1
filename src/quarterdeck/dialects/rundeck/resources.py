# SPDX-License-Identifier: Apache-2.0
"""Resources chapter: the nodes of a project, and the document that most of them stand in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource
from quarterdeck.dialects.rundeck import body, envelope, parts
from quarterdeck.formats import resources_xml, resources_yaml
from quarterdeck.services import resources
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Resources")

_XML_TYPES = ("/xml",)
_YAML_TYPES = ("/yaml", "/x-yaml")


@section.operation("resources", "GET", "/resources", right="node.read", since=1, extension=body.FORMATS, long=True)
def list_resources(ctx: Context, request: Request) -> Answer:
    """List the nodes of a project that a filter means; without a filter all."""
    return _listed(ctx, request, body.required(request, "project"))


@section.operation("resource", "GET", "/resource/{name}", right="node.read", since=1)
def get_resource(ctx: Context, request: Request) -> Answer:
    """Tell one node of a project."""
    project = body.required(request, "project")
    name = body.present(request.params["name"], "name")
    wanted = body.document_format(request)
    return _written([resources.get(ctx, project, name)], wanted)


@section.operation(
    "projectResources",
    "GET",
    "/project/{name}/resources",
    right="node.read",
    since=1,
    extension=body.FORMATS,
    long=True,
)
def list_project_resources(ctx: Context, request: Request) -> Answer:
    """The same as `/resources`, with the project in the path; `name` is the filter for nodes."""
    return _listed(ctx, request, body.present(request.params["name"], "project"))


@section.operation(
    "updateProjectResources", "POST", "/project/{name}/resources", right="project.write", since=1, long=True
)
def update_project_resources(ctx: Context, request: Request) -> Reply:
    """Replace the document of a project's nodes by the body, XML or YAML."""
    project = body.present(request.params["name"], "project")
    resources.replace_document(ctx, project, lambda: _read_body(request))
    return _updated(project)


@section.operation(
    "refreshProjectResources",
    "POST",
    "/project/{name}/resources/refresh",
    right="project.write",
    since=1,
    long="fetching",
)
def refresh_project_resources(ctx: Context, request: Request) -> Reply:
    """Fetch the document of a project's nodes from an address, the project's own unless one is given."""
    project = body.present(request.params["name"], "project")
    get = parts.of(request).fetch
    resources.refresh(ctx, project, body.text(request, "providerURL"), lambda address: _read(address, get(address)))
    return _updated(project)


def _listed(ctx: Context, request: Request, project: str) -> Answer:
    wanted = body.document_format(request)
    return _written(resources.select(ctx, project, body.node_filter(request)), wanted)


def _written(found: Iterable[Resource], wanted: body.Format) -> Answer:
    if wanted == "yaml":
        return envelope.document(resources_yaml.write(found), envelope.YAML)
    return envelope.document(resources_xml.write(found), envelope.XML)


def _read_body(request: Request) -> Sequence[Resource]:
    kind = request.content_type
    if not kind.endswith(_XML_TYPES + _YAML_TYPES):
        raise Invalid(f"Unexpected content type: {kind}")
    try:
        return resources_xml.read(request.body) if kind.endswith(_XML_TYPES) else resources_yaml.read(request.body)
    except Invalid as error:
        raise Invalid(f"Invalid data: {error.message}") from error


def _read(address: str, document: bytes) -> Sequence[Resource]:
    """A fetched document: by the end of its address, else by how it begins."""
    path = urlsplit(address).path.lower()
    is_yaml = path.endswith((".yaml", ".yml"))
    if not is_yaml and not path.endswith(".xml"):
        is_yaml = not document.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return resources_yaml.read(document) if is_yaml else resources_xml.read(document)


def _updated(project: str) -> Reply:
    return Reply([envelope.told(f"Resources were successfully updated for project {project}")])
