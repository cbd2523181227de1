# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck quarantine`: reports and inventories that the server could not take."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, moment, plain

kind_option = click.option(
    "--kind",
    type=click.Choice(["error", "invalid"]),
    help="Only what is broken (error), or only what is of nobody known (invalid).",
)


@click.group()
def quarantine() -> None:
    """Reports and inventories that could not be taken."""


@quarantine.command("list")
@kind_option
@json_option
def list_quarantine(kind: str | None, as_json: bool) -> None:
    """List what was set aside, the latest first."""
    found = _listed(kind)
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "PLACE", "NAME", "SINCE", "KIND", "REASON"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["id"],
                    one["place"],
                    one["name"],
                    moment(one["since"]),
                    one["kind"],
                    one["reason"],
                )
            )
            for one in found
        ),
        empty="Nothing is in quarantine.",
    )


def _listed(kind: str | None) -> list[dict[str, Any]]:
    found = connection.native(connection.current(), "GET", "/quarantine")
    return [one for one in found if kind in (None, one["kind"])]


@quarantine.command("show")
@click.argument("entry")
@json_option
def show_quarantined(entry: str, as_json: bool) -> None:
    """Show why ENTRY (an id) was set aside, and the beginning of its content."""
    found = connection.native(connection.current(), "GET", f"/quarantine/{quote(entry, safe='')}")
    if as_json:
        display.as_json(found)
        return
    for label in ("name", "place", "size", "since", "kind", "reason"):
        click.echo(f"{label + ':':8} {plain(found[label])}")
    click.echo()
    for line in found["content"].splitlines():
        click.echo(plain(line))


@quarantine.command("retry")
@click.argument("entries", nargs=-1, metavar="[ENTRY]...")
@click.option("--all", "everything", is_flag=True, help="All that lies there.")
@kind_option
@json_option
def retry_quarantined(entries: tuple[str, ...], everything: bool, kind: str | None, as_json: bool) -> None:
    """Try to take each ENTRY (an id) again."""
    _each("POST", "/retry", _chosen(entries, kind, everything=everything), "tried again", as_json=as_json)


@quarantine.command("remove")
@click.argument("entries", nargs=-1, metavar="[ENTRY]...")
@click.option("--all", "everything", is_flag=True, help="All that lies there.")
@kind_option
@json_option
def remove_quarantined(entries: tuple[str, ...], everything: bool, kind: str | None, as_json: bool) -> None:
    """Forget each ENTRY (an id)."""
    _each("DELETE", "", _chosen(entries, kind, everything=everything), "forgotten", as_json=as_json)


def _chosen(entries: tuple[str, ...], kind: str | None, *, everything: bool) -> list[str]:
    if bool(entries) == everything or (kind is not None and not everything):
        raise click.UsageError("Name entries by their ids, or say --all, perhaps with --kind.")
    return [one["id"] for one in _listed(kind)] if everything else list(entries)


def _each(method: str, path: str, entries: list[str], done: str, *, as_json: bool) -> None:
    server = connection.current()
    results = [connection.native(server, method, f"/quarantine/{quote(one, safe='')}{path}") for one in entries]
    if as_json:
        display.as_json(results)
        return
    for one in results:
        click.echo(f"{plain(one['name'])} of {one['place']} is {done}.")
    if not results:
        click.echo("Nothing is in quarantine.")
