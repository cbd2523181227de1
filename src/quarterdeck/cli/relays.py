# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck relays`: which relays there are, who is behind them, and who becomes one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, moment, plain
from quarterdeck.cli.nodes import path_id

#: Relays ask every half a minute unless `relay.mirror_seconds` says otherwise.
_SILENT_SECONDS = 300.0


@click.group()
def relays() -> None:
    """Relays between nodes and the server."""


@relays.command("list")
@json_option
def list_relays(*, as_json: bool) -> None:
    """List the relays, each below the one it is behind.

    NODES are those that it serves itself, ALL those behind relays below it, too. LAST CONTACT is when it last asked
    for its nodes list (every half a minute unless relay.mirror_seconds says otherwise), WAITING how many files lay
    there then on their way up.
    """
    found = connection.native(connection.current(), "GET", "/relays")
    if as_json:
        display.as_json(found)
        return
    names = {one["id"]: one["hostname"] for one in found}
    display.table(
        ("ID", "HOSTNAME", "BEHIND", "NODES", "ALL", "LAST CONTACT", "WAITING", "ADDRESS", "PIN"),
        (
            (
                *(plain(cell) for cell in (one["id"], one["hostname"], _behind(one, names), one["nodes"])),
                plain(one["nodesBelow"]),
                _contact(one["lastContact"]),
                *(plain(cell) for cell in (_waiting(one), one["address"] or "-", one["pin"] or "-")),
            )
            for one in found
        ),
        empty="No node is a relay; `quarterdeck relays promote NODE` makes one of an accepted node.",
    )


@relays.command("show")
@click.argument("relay")
@json_option
def show_relay(*, relay: str, as_json: bool) -> None:
    """Show RELAY (an id or a host name) and the nodes that it serves."""
    server = connection.current()
    found = connection.native(server, "GET", f"/relays/{path_id(server, relay)}")
    if as_json:
        display.as_json(found)
        return
    lines = {
        "id": found["id"],
        "hostname": found["hostname"],
        "behind": found["policyServerId"],
        "address": found["address"] or "-",
        "pin": found["pin"] or "-",
        "version": found["version"] or "-",
        "last contact": moment(found["lastContact"], "never"),
        "waiting": _waiting(found),
        "nodes": f"{found['nodes']} served here, {found['nodesBelow']} with those behind relays below",
    }
    for label, value in lines.items():
        click.echo(f"{label:13} {value}")
    click.echo()
    display.table(
        ("NODE", "HOSTNAME", "KIND"),
        (
            tuple(plain(cell) for cell in (node["id"], node["hostname"], "relay" if node["relay"] else "node"))
            for node in found["served"]
        ),
        empty="It serves no nodes.",
    )


@relays.command("promote")
@click.argument("node")
@json_option
def promote_relay(*, node: str, as_json: bool) -> None:
    """Make NODE (an id or a host name), which is accepted, a relay."""
    _become("promote", node, "is a relay now", as_json=as_json)


@relays.command("demote")
@click.argument("relay")
@json_option
def demote_relay(*, relay: str, as_json: bool) -> None:
    """Make RELAY (an id or a host name), which serves no nodes any more, a plain node."""
    _become("demote", relay, "is a plain node now", as_json=as_json)


def _become(role: str, name: str, done: str, *, as_json: bool) -> None:
    server = connection.current()
    node = connection.rudder(server, "POST", f"/scaleoutrelay/{role}/{path_id(server, name)}")
    if as_json:
        display.as_json({"id": node})
    else:
        click.echo(f"{plain(node)} {done}.")


def _behind(one: dict[str, Any], names: dict[str, str]) -> str:
    server = str(one["policyServerId"])
    return names.get(server, server)


def _contact(text: str | None) -> str:
    """The moment, and in red when it should have been heard of since."""
    if text is None:
        return "[red]never[/red]"
    silent = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds() > _SILENT_SECONDS
    return f"[red]{moment(text)}[/red]" if silent else moment(text)


def _waiting(one: dict[str, Any]) -> str:
    files, seconds = one["waitingFiles"], one["waitingSeconds"]
    if files is None:
        return "-"
    return f"{files}, the oldest {seconds:.0f} s" if files else "0"
