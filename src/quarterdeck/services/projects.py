# SPDX-License-Identifier: Apache-2.0
"""What people do with projects. Their nodes are in `services/resources.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quarterdeck.core import connections, projects
from quarterdeck.core.errors import AlreadyExists, Conflict
from quarterdeck.core.executions import State
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.services import access
from quarterdeck.services.context import Context
from quarterdeck.storage.executions import ExecutionQuery


def visible(ctx: Context) -> list[Project]:
    """The projects that the caller may read, sorted by name."""
    return [one for one in ctx.store.projects.all() if access.may_read_project(ctx, one.name)]


def get(ctx: Context, name: str) -> Project:
    """One project. Raises NotFound; Forbidden before it tells whether there is one."""
    access.require_project(ctx, name)
    return ctx.store.projects.get(name)


def require(ctx: Context, name: str) -> None:
    """Raises NotFound when there is no such project."""
    ctx.store.projects.get(name)


def create(ctx: Context, name: str, *, description: str = "", properties: Mapping[str, str] | None = None) -> Project:
    """Add a project. Raises Invalid, AlreadyExists."""
    project = Project(projects.check_name(name), description=description, properties=dict(properties or {}))
    _check(ctx, project)
    if ctx.store.projects.find(name) is not None:
        raise AlreadyExists(f"There is already a project '{name}'.")
    ctx.store.projects.add(project)
    return project


def update(
    ctx: Context, name: str, *, description: str | None = None, properties: Mapping[str, str | None] | None = None
) -> Project:
    """Change some of a project; a property set to None goes. Raises NotFound, Invalid."""
    before = ctx.store.projects.get(name, lock=True)
    merged = {**before.properties, **(properties or {})}
    after = replace(
        before,
        description=before.description if description is None else description,
        properties={key: value for key, value in merged.items() if value is not None},
    )
    _check(ctx, after)
    ctx.store.projects.replace(after)
    return after


def delete(ctx: Context, name: str) -> None:
    """Remove a project with its jobs and resources; its history stays. Raises NotFound, Conflict while it runs."""
    ctx.store.projects.get(name, lock=True)
    running = ctx.store.executions.matching(ExecutionQuery(project=name, state=State.RUNNING, most=1))
    if running:
        raise Conflict(f"Project '{name}' has running executions, {running[0].id} among them.")
    ctx.store.projects.remove(name)


def _check(ctx: Context, project: Project) -> None:
    """What the properties refer to must be there: a slip of the pen would leave a project without nodes."""
    connections.kinds(Resource(""), project)
    source = project.inventory_source
    if source.kind == "group":
        ctx.store.groups.get(source.group)
