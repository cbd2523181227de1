# SPDX-License-Identifier: Apache-2.0
"""Projects, the nodes they have, and what happened in them."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.core.activities import Activity, ActivityQuery
from quarterdeck.core.errors import Invalid
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.dialects.native import body
from quarterdeck.services import activities, projects, resources
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Projects")

_MOST_ACTIVITIES = 1000


class NewProject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Properties go by the names of RunDeck's project.properties."""

    name: str
    description: str = ""
    properties: dict[str, str] = {}


class ProjectChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is absent stays; a property that is null goes."""

    description: str | None = None
    properties: dict[str, str | None] = {}


@section.operation("listProjects", "GET", "/api/1/projects", right="project.read")
def list_projects(ctx: Context, request: Request) -> Reply:
    """List the projects that the caller may read."""
    return Reply([encode_project(one) for one in projects.visible(ctx)])


@section.operation("getProject", "GET", "/api/1/projects/{name}", right="project.read")
def get_project(ctx: Context, request: Request) -> Reply:
    """Show one project with its properties."""
    return Reply(encode_project(projects.get(ctx, request.params["name"])))


@section.operation("createProject", "PUT", "/api/1/projects", right="project.write", body=NewProject, status=201)
def create_project(ctx: Context, request: Request) -> Reply:
    """Make a project."""
    new = body.read(request, NewProject)
    return Reply(encode_project(projects.create(ctx, new.name, description=new.description, properties=new.properties)))


@section.operation("updateProject", "POST", "/api/1/projects/{name}", right="project.write", body=ProjectChanges)
def update_project(ctx: Context, request: Request) -> Reply:
    """Change a project's description or some of its properties."""
    changes = body.read(request, ProjectChanges)
    name = projects.get(ctx, request.params["name"]).name
    return Reply(
        encode_project(projects.update(ctx, name, description=changes.description, properties=changes.properties))
    )


@section.operation("deleteProject", "DELETE", "/api/1/projects/{name}", right="project.write")
def delete_project(ctx: Context, request: Request) -> Reply:
    """Remove a project with its jobs and its node document; refused while anything of it runs."""
    name = projects.get(ctx, request.params["name"]).name
    projects.delete(ctx, name)
    return Reply({"deleted": name})


@section.operation("listProjectNodes", "GET", "/api/1/projects/{name}/nodes", right="node.read")
def list_project_nodes(ctx: Context, request: Request) -> Reply:
    """List the nodes of a project, where each comes from; filters by RunDeck's names (`name`, `exclude-tags`, ...)."""
    project = projects.get(ctx, request.params["name"])
    name = project.name
    given = {key: values[0] for key, values in request.query.items() if key != "reason"}
    wanted = body.node_filter(given or None)
    documented = resources.documented(ctx, name)
    return Reply([_encode_node(ctx, project, one, documented) for one in resources.select(ctx, name, wanted)])


@section.operation("listHistory", "GET", "/api/1/projects/{name}/history", right="execution.read")
def list_history(ctx: Context, request: Request) -> Reply:
    """List what happened in a project, newest end first; `max`, `offset`, filters `job`, `user`, `node`, `status`."""
    query = ActivityQuery(
        project=projects.get(ctx, request.params["name"]).name,
        job=request.first("job"),
        user=request.first("user"),
        node=request.first("node"),
        statuses=_statuses(request),
        most=body.integer(request, "max", 20, low=1, high=_MOST_ACTIVITIES),
        offset=body.integer(request, "offset", 0, low=0, high=2**31),
    )
    found, total = activities.find(ctx, query)
    return Reply({"total": total, "offset": query.offset, "entries": [_encode_activity(one) for one in found]})


def _statuses(request: Request) -> frozenset[str] | None:
    wanted = frozenset(filter(None, request.first("status").split(",")))
    if unknown := sorted(wanted - {"succeeded", "failed", "aborted", "missed"}):
        raise Invalid(f"'status' is succeeded, failed, aborted or missed, several separated by commas: {unknown[0]}")
    return wanted or None


def encode_project(project: Project) -> dict[str, Any]:
    """A project as this dialect shows it."""
    return {"name": project.name, "description": project.description, "properties": dict(project.properties)}


def _encode_node(ctx: Context, project: Project, node: Resource, documented: frozenset[str]) -> dict[str, Any]:
    source = "document" if node.name in documented else "inventory"
    return {
        "name": node.name,
        "hostname": node.hostname,
        "username": node.username,
        "description": node.description,
        "tags": sorted(node.tags),
        "osArch": node.os_arch,
        "osFamily": node.os_family,
        "osName": node.os_name,
        "osVersion": node.os_version,
        "attributes": dict(node.attributes),
        "transport": resources.transport(ctx, project, node),
        "source": "server" if node.name == ctx.site.node.name else source,
    }


def _encode_activity(one: Activity) -> dict[str, Any]:
    return {
        "id": one.id,
        "title": one.title,
        "status": one.status,
        "summary": one.summary,
        "user": one.user,
        "abortedBy": one.aborted_by,
        "started": one.started,
        "ended": one.ended,
        "nodes": {
            "succeeded": one.nodes_succeeded,
            "failed": one.nodes_failed,
            "total": one.nodes_total,
            "names": list(one.node_names),
        },
        "jobId": one.job_id,
        "executionId": one.execution_id,
        "tags": one.tags,
        "script": one.script,
    }
