# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck`: nodes, rules and compliance from a terminal.

Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 the server does not answer, 4 not logged in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from quarterdeck import __version__
from quarterdeck.cli import connection, display
from quarterdeck.cli.connection import CommandError, Server

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Work with a Quarterdeck server."""


@cli.command()
@click.argument("url")
@click.option("--token-file", type=click.File(), required=True, help="File with the token; - reads it from the input.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="The server's own authority, as PEM.")
def login(url: str, token_file: Any, ca_file: str | None) -> None:
    """Remember the server at URL and a token, after trying both."""
    path = str(Path(ca_file).resolve()) if ca_file else ""
    server = Server(url=url.rstrip("/"), token=token_file.read().strip(), ca_file=path)
    connection.rudder(server, "GET", "/info")
    click.echo(f"Logged in; kept in {connection.save(server)}")


@cli.group()
def nodes() -> None:
    """The machines."""


@nodes.command("list")
@click.option("--pending", is_flag=True, help="Nodes that wait to be accepted.")
@click.option(
    "--where", help='Criteria as JSON: [{"objectType":"node","attribute":"OS","comparator":"eq","value":"Linux"}]'
)
@json_option
def list_nodes(pending: bool, where: str | None, as_json: bool) -> None:
    """List accepted or pending nodes."""
    path = "/nodes/pending" if pending else "/nodes"
    found = connection.rudder(connection.current(), "GET", path, params={"where": where} if where else None)["nodes"]
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "HOSTNAME", "OS", "STATE", "MODE", "LAST RUN"),
        (_node_line(node) for node in found),
        empty="No node waits to be accepted." if pending else "No node is accepted yet.",
    )


def _node_line(node: dict[str, Any]) -> tuple[str, ...]:
    system = node.get("os", {})
    return (
        node["id"],
        node.get("hostname", ""),
        system.get("fullName") or f"{system.get('name', '')} {system.get('version', '')}".strip(),
        node.get("state", node.get("status", "")),
        node.get("policyMode", ""),
        node.get("lastRunDate", "never"),
    )


@nodes.command("show")
@click.argument("node")
@click.option("--include", default="default", show_default=True, help="minimal, default, full, or fields by name.")
@json_option
def show_node(node: str, include: str, as_json: bool) -> None:
    """Show one node."""
    found = connection.rudder(connection.current(), "GET", f"/nodes/{node}", params={"include": include})["nodes"][0]
    if as_json:
        display.as_json(found)
        return
    lines = ((name, value if isinstance(value, str) else _compact(value)) for name, value in found.items())
    display.table(("FIELD", "VALUE"), lines, empty="")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@nodes.command("accept")
@click.argument("ids", nargs=-1, required=True, metavar="NODE...")
@json_option
def accept_nodes(ids: tuple[str, ...], as_json: bool) -> None:
    """Accept pending nodes."""
    body = {"nodeId": list(ids), "status": "accepted"}
    found = connection.rudder(connection.current(), "POST", "/nodes/pending", json=body)["nodes"]
    if as_json:
        display.as_json(found)
        return
    for node in found:
        click.echo(f"{node['id']} {node.get('hostname', '')}: {node['status']}")


@cli.group()
def rules() -> None:
    """What applies to which nodes."""


@rules.command("list")
@json_option
def list_rules(as_json: bool) -> None:
    """List rules."""
    found = connection.rudder(connection.current(), "GET", "/rules")["rules"]
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "NAME", "MODE", "DIRECTIVES", "STATUS"),
        (
            (
                rule["id"],
                rule["displayName"],
                rule["policyMode"],
                str(len(rule["directives"])),
                ": ".join(filter(None, (rule["status"]["value"], rule["status"].get("details", "")))),
            )
            for rule in found
        ),
        empty="There is no rule.",
    )


@cli.command()
@click.option("--by", type=click.Choice(["rules", "nodes", "directives"]), default="rules", show_default=True)
@json_option
def compliance(by: str, as_json: bool) -> None:
    """How far the machines are as they should be."""
    server = connection.current()
    key = "directivesCompliance" if by == "directives" else by
    found = connection.rudder(server, "GET", f"/compliance/{by}", params={"level": "1"})[key]
    overall = connection.rudder(server, "GET", "/compliance")["globalCompliance"]
    if as_json:
        display.as_json({"global": overall, by: found})
        return
    lines = [
        (one["name"], display.percentage(one["compliance"]), display.counts(one["complianceDetails"])) for one in found
    ]
    lines.append(
        ("all", display.percentage(overall["compliance"]), display.counts(overall.get("complianceDetails", {})))
    )
    display.table((by[:-1].upper(), "COMPLIANCE", "DETAILS"), lines, empty="")


@cli.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def events(limit: int, as_json: bool) -> None:
    """Who changed what, newest first."""
    found = connection.native(connection.current(), "GET", "/events", params={"limit": limit})["events"]
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("WHEN", "WHO", "WHAT", "WHY"),
        ((one["at"], one["actor"], f"{one['kind']} {one['objectId']} {one['change']}", one["reason"]) for one in found),
        empty="Nothing has happened yet.",
    )


def main() -> None:
    """Run the command line; every fault becomes one sentence and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except CommandError as error:
        click.echo(f"quarterdeck: {error}", err=True)
        sys.exit(error.code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
