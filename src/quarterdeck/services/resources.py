# SPDX-License-Identifier: Apache-2.0
"""The nodes of a project: its document's, those it takes of the inventory, and the server's own.

How documents look is in `formats/`; fetching one from an address is given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quarterdeck.core import bounded_regexes, connections, node_filters, resources
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.services import access
from quarterdeck.services.context import Context

#: Fetches the document at an address and reads it. Raises Invalid with the cause, in the words that clients know.
Fetch = Callable[[str], Sequence[Resource]]


def of_project(ctx: Context, project: Project) -> list[Resource]:
    """Every node of the project, sorted by name. A node of the document counts before one of the inventory."""
    documented = ctx.store.resources.of(project.name)
    found = {one.name: one for one in documented}
    source = project.inventory_source
    if source.kind != "none":
        inventoried = ctx.store.resources.of_inventory(source.group or None)
        for one in resources.named(inventoried, found):
            found[one.name] = one
    here = ctx.site.node
    # The server's own node is always there; a document may say more of it.
    found[here.name] = next(iter(resources.merged([here, found[here.name]]))) if here.name in found else here
    return [found[name] for name in sorted(found)]


def select(ctx: Context, project_name: str, wanted: NodeFilter | None) -> list[Resource]:
    """The nodes of the project that a filter means and the caller may read; without a filter all, sorted by name.

    Raises NotFound, Forbidden.
    """
    project = ctx.store.projects.get(project_name)
    access.require_kind(ctx, project_name, "node", "read")
    found = of_project(ctx, project)
    if wanted is not None:
        found = node_filters.select(wanted, found)
    return access.nodes(ctx, project_name, found, "read")


def executor(ctx: Context, project: Project, resource: Resource) -> str:
    """The node executor that the node or its project names; "" for the usual one."""
    is_server = resource.name == ctx.site.node.name
    own = resource.get("local-node-executor") if is_server else ""
    ours = "service.NodeExecutor.default.local.provider" if is_server else "service.NodeExecutor.default.provider"
    return own or resource.get("node-executor") or project.get(ours)


def transport(ctx: Context, project: Project, resource: Resource) -> str:
    """How a node is reached: `local`, or the ways in the order of tries, `ssh`, `agent`; what is set but unknown."""
    kind = executor(ctx, project, resource)
    if kind == "local" or (not kind and resource.name == ctx.site.node.name):
        return "local"
    try:
        return ",".join(connections.kinds(resource, project)) if kind in ("", "ssh", "jsch-ssh") else kind
    except Invalid:
        return resource.get("node-transport")


def documented(ctx: Context, project_name: str) -> frozenset[str]:
    """Names of the nodes of the project's document."""
    return frozenset(one.name for one in ctx.store.resources.of(project_name))


def get(ctx: Context, project_name: str, name: str) -> Resource:
    """One node by its name. Raises NotFound, Forbidden."""
    found = next((one for one in select(ctx, project_name, None) if one.name == name), None)
    if found is None:
        raise NotFound(f"Node Name does not exist: {name}")
    return found


def replace_document(ctx: Context, project_name: str, read: Callable[[], Sequence[Resource]]) -> None:
    """What `read` gives are the nodes of the project's document from now on. Raises NotFound, Forbidden before it."""
    ctx.store.projects.get(project_name, lock=True)
    for action in ("create", "update"):
        access.require_kind(ctx, project_name, "node", action)
    some = read()
    ctx.store.resources.replace(project_name, some)
    _remember(ctx, project_name, len(some))


def refresh(ctx: Context, project_name: str, address: str, fetch: Fetch) -> None:
    """Replace the document by the one at an address, the project's own if none is given. Raises NotFound, Invalid."""
    project = ctx.store.projects.get(project_name)
    access.require_kind(ctx, project_name, "node", "refresh")
    wanted = address or project.resources_url
    if not wanted:
        raise Invalid(
            "Resources were not updated because no resource model provider URL is configured for project "
            f"{project_name}"
        )
    problem = f"Error updating node resources file for project {project_name}: "
    if wanted.partition(":")[0].lower() not in ("http", "https", "file"):
        raise Invalid(f"{problem}invalid URL: {wanted}")
    if wanted != project.resources_url and not _is_allowed(ctx, project, wanted):
        raise Invalid(f"{problem}providerURL is not allowed: {wanted}")
    try:
        found = fetch(wanted)
    except Invalid as error:
        raise Invalid(f"{problem}{error.message}", detail=error.detail) from error
    ctx.store.projects.get(project_name, lock=True)
    ctx.store.resources.replace(project_name, found)
    _remember(ctx, project_name, len(found))


def _is_allowed(ctx: Context, project: Project, address: str) -> bool:
    """Both lists, the project's and the server's, must have it where both are there; without any nothing is."""
    lists = [some for some in (project.allowed_urls, ctx.site.allowed_urls) if some]
    return bool(lists) and all(any(_fits(pattern, address) for pattern in some) for some in lists)


def _fits(pattern: str, address: str) -> bool:
    try:
        return bounded_regexes.compiled(f"(?i){pattern}").fullmatch(address)
    except Invalid:
        return False


def _remember(ctx: Context, project_name: str, count: int) -> None:
    ctx.store.history.append("resources", project_name, "modified", {"nodes": count})
