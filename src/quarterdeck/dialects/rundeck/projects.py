# SPDX-License-Identifier: Apache-2.0
"""Projects chapter: which there are, and what each says of itself."""

from __future__ import annotations

from lxml import etree

from quarterdeck.core.projects import Project
from quarterdeck.dialects.rundeck import body
from quarterdeck.dialects.rundeck.envelope import element, items
from quarterdeck.services import projects
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Projects")


@section.operation("projects", "GET", "/projects", right="project.read", since=1)
def list_projects(ctx: Context, request: Request) -> Reply:
    """List the projects that the caller may read, by name."""
    return Reply([items("projects", map(_encode, projects.visible(ctx)))])


@section.operation("project", "GET", "/project/{name}", right="project.read", since=1)
def get_project(ctx: Context, request: Request) -> Reply:
    """Tell one project."""
    name = body.present(request.params["name"], "project")
    return Reply([items("projects", [_encode(projects.get(ctx, name))])])


def _encode(project: Project) -> etree._Element:
    made = element("project", "", element("name", project.name), element("description", project.description))
    if project.resources_url:
        made.append(element("resources", "", element("providerURL", project.resources_url)))
    return made
