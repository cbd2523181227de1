# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck nodes`: the machines, those that wait included."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.connection import REFUSED, CommandError, Server
from quarterdeck.cli.display import json_option, plain
from quarterdeck.cli.projects import path
from quarterdeck.cli.run import filter_of

EXAMPLE = '[{"objectType":"node","attribute":"OS","comparator":"eq","value":"Linux"}]'


@click.group()
def nodes() -> None:
    """The machines."""


@nodes.command("list")
@click.argument("search", required=False)
@click.option("--pending", is_flag=True, help="Nodes that wait to be accepted.")
@click.option("--where", help=f"Criteria of the node query language as JSON: {EXAMPLE}")
@click.option("-p", "--project", help="Nodes of this project instead, as its jobs see them.")
@click.option("-F", "--filter", "filters", multiple=True, help="With --project: as for `quarterdeck run`.")
@json_option
def list_nodes(  # one option each
    *,
    search: str | None,
    pending: bool,
    where: str | None,
    project: str | None,
    filters: tuple[str, ...],
    as_json: bool,
) -> None:
    """List accepted or pending nodes; SEARCH is a part of the host name or of the id."""
    if project:
        if search or pending or where:
            raise click.UsageError("With --project, nodes are chosen by --filter alone.")
        _list_of_project(project, filter_of(filters), as_json=as_json)
        return
    if filters:
        raise click.UsageError("--filter belongs to --project; use SEARCH or --where.")
    query = _query(search, where)
    path = "/nodes/pending" if pending else "/nodes"
    found = connection.rudder(connection.current(), "GET", path, params=query)["nodes"]
    if as_json:
        display.as_json(found)
        return
    everything = "No node waits to be accepted." if pending else "No node is accepted yet."
    display.table(
        ("ID", "HOSTNAME", "OS", "STATE", "MODE", "LAST RUN"),
        (_line(node) for node in found),
        empty="No node matches." if query else everything,
    )


def _list_of_project(project: str, wanted: dict[str, str] | None, *, as_json: bool) -> None:
    found = connection.native(connection.current(), "GET", path(project, "/nodes"), params=wanted)
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("NAME", "HOSTNAME", "USER", "TAGS", "OS", "FROM", "REACHED BY"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["name"],
                    one["hostname"],
                    one["username"],
                    ",".join(one["tags"]),
                    one["osName"] or one["osFamily"],
                    one["source"],
                    one["transport"],
                )
            )
            for one in found
        ),
        empty="No node matches.",
    )


def _query(search: str | None, where: str | None) -> dict[str, str] | None:
    if search and where:
        raise click.UsageError("SEARCH and --where cannot stand together.")
    if where:
        return {"where": where}
    if not search:
        return None
    pattern = f".*{re.escape(search)}.*"
    criteria = [
        {"objectType": "node", "attribute": attribute, "comparator": "regex", "value": pattern}
        for attribute in ("nodeHostname", "nodeId")
    ]
    return {"where": json.dumps(criteria), "composition": "or"}


def _line(node: dict[str, Any]) -> tuple[str, ...]:
    system = node.get("os", {})
    cells = (
        node["id"],
        node.get("hostname", ""),
        system.get("fullName") or f"{system.get('name', '')} {system.get('version', '')}".strip(),
        node.get("state", node.get("status", "")),
        node.get("policyMode", ""),
        node.get("lastRunDate", "never"),
    )
    return tuple(plain(cell) for cell in cells)


@nodes.command("show")
@click.argument("node")
@click.option("--include", default="default", show_default=True, help="minimal, default, full, or fields by name.")
@json_option
def show_node(node: str, include: str, as_json: bool) -> None:
    """Show one node, named by its id or its host name."""
    server = connection.current()
    found = connection.rudder(server, "GET", f"/nodes/{path_id(server, node)}", params={"include": include})["nodes"][0]
    if as_json:
        display.as_json(found)
        return
    lines = (
        (name, plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        for name, value in found.items()
    )
    display.table(("FIELD", "VALUE"), lines, empty="")


def path_id(server: Server, name: str) -> str:
    """The id of the only accepted node with this host name, for a path; the text itself where there is none."""
    criterion = {"objectType": "node", "attribute": "nodeHostname", "comparator": "eq", "value": name}
    where = {"where": json.dumps([criterion]), "include": "minimal"}
    found = connection.rudder(server, "GET", "/nodes", params=where)["nodes"]
    if len(found) > 1:
        raise CommandError(f"{len(found)} nodes are called {name}: name one by its id.", REFUSED)
    return str(found[0]["id"]) if found else quote(name, safe="")


@nodes.command("accept")
@click.argument("ids", nargs=-1, metavar="NODE...")
@click.option("--all", "everyone", is_flag=True, help="All nodes that wait now.")
@json_option
def accept_nodes(ids: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Accept pending nodes."""
    _decide(ids, "accepted", everyone=everyone, as_json=as_json)


@nodes.command("refuse")
@click.argument("ids", nargs=-1, required=True, metavar="NODE...")
@json_option
def refuse_nodes(ids: tuple[str, ...], as_json: bool) -> None:
    """Refuse pending nodes."""
    _decide(ids, "refused", everyone=False, as_json=as_json)


def _decide(ids: tuple[str, ...], status: str, *, everyone: bool, as_json: bool) -> None:
    server = connection.current()
    if bool(ids) == everyone:
        raise click.UsageError("Name the nodes, or say --all.")
    if everyone:
        ids = tuple(node["id"] for node in connection.rudder(server, "GET", "/nodes/pending")["nodes"])
    if not ids:
        raise CommandError("No node waits to be accepted.", REFUSED)
    found = connection.rudder(server, "POST", "/nodes/pending", json={"nodeId": list(ids), "status": status})["nodes"]
    if as_json:
        display.as_json(found)
        return
    for node in found:
        click.echo(f"{node['id']} {node.get('hostname', '')}: {node['status']}")
