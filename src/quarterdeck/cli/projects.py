# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck projects` and `quarterdeck history`: where jobs and nodes belong, and what happened there."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, moment, plain

project_option = click.option(
    "-p", "--project", required=True, envvar="QUARTERDECK_PROJECT", show_envvar=True, help="The project."
)


@click.group()
def projects() -> None:
    """Where jobs and nodes belong."""


def path(project: str, rest: str = "") -> str:
    """The path of a project, or of something below it."""
    return f"/projects/{quote(project, safe='')}{rest}"


def pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    """`name=value` texts as a map. Raises UsageError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} takes NAME=VALUE, not '{text}'.")
        found[name] = value
    return found


@projects.command("list")
@json_option
def list_projects(as_json: bool) -> None:
    """List the projects."""
    found = connection.native(connection.current(), "GET", "/projects")
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("NAME", "DESCRIPTION"),
        ((plain(one["name"]), plain(one["description"])) for one in found),
        empty="There is no project.",
    )


@projects.command("show")
@click.argument("name")
@json_option
def show_project(name: str, as_json: bool) -> None:
    """Show one project with its properties."""
    found = connection.native(connection.current(), "GET", path(name))
    if as_json:
        display.as_json(found)
        return
    lines = {"name": found["name"], "description": found["description"], **found["properties"]}
    display.table(("FIELD", "VALUE"), ((plain(key), plain(value)) for key, value in lines.items()), empty="")


@projects.command("create")
@click.argument("name")
@click.option("--description", default="")
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Can be repeated.")
@json_option
def create_project(name: str, description: str, properties: tuple[str, ...], as_json: bool) -> None:
    """Make a project."""
    document = {"name": name, "description": description, "properties": pairs(properties, "--property")}
    made = connection.native(connection.current(), "PUT", "/projects", json=document)
    if as_json:
        display.as_json(made)
    else:
        click.echo(f"The project '{made['name']}' is made.")


@projects.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete_project(name: str, yes: bool, as_json: bool) -> None:
    """Remove a project with its jobs and its nodes; its history stays."""
    if not yes:
        click.confirm(f"Remove the project '{name}' with all its jobs?", abort=True, err=True)
    done = connection.native(connection.current(), "DELETE", path(name))
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"The project '{done['deleted']}' is removed.")


@click.command()
@project_option
@click.option("--max", "most", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--job", help="A part of GROUP/NAME.")
@click.option("--user", help="A part of the name.")
@click.option("--node", help="A part of the name.")
@click.option("--status", help="succeeded, failed, aborted or missed; several separated by commas.")
@json_option
def history(  # one option each
    *,
    project: str,
    most: int,
    job: str | None,
    user: str | None,
    node: str | None,
    status: str | None,
    as_json: bool,
) -> None:
    """What happened in a project, newest end first."""
    asked = {"max": most, "job": job, "user": user, "node": node, "status": status}
    params = {name: value for name, value in asked.items() if value}
    found = connection.native(connection.current(), "GET", path(project, "/history"), params=params)
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ENDED", "STATUS", "WHAT", "SUMMARY", "WHO", "NODES", "EXECUTION"),
        (_line(one) for one in found["entries"]),
        empty="Nothing has happened yet.",
    )


def _line(one: dict[str, Any]) -> tuple[str, ...]:
    nodes = one["nodes"]
    cells = (
        moment(one["ended"]),
        one["status"],
        one["title"],
        one["summary"],
        one["user"],
        f"{nodes['succeeded']}/{nodes['total']}",
        one["executionId"] or "-",
    )
    return tuple(plain(cell) for cell in cells)
