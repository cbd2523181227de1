# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck executions`: what runs and what ran."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display, following
from quarterdeck.cli.display import json_option, moment, plain
from quarterdeck.cli.projects import project_option

STATES = ("running", "succeeded", "failed", "aborted")


@click.group()
def executions() -> None:
    """What runs and what ran."""


@executions.command("list")
@project_option
@click.option("--job", help="Only those of this job, by its number or uuid.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--max", "most", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def list_executions(project: str, job: str | None, state: str | None, most: int, as_json: bool) -> None:
    """List executions: running ones first, then the newest end."""
    asked = {"project": project, "max": most, "job": job, "state": state}
    params = {name: value for name, value in asked.items() if value}
    found = connection.native(connection.current(), "GET", "/executions", params=params)
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "STATE", "WHAT", "WHO", "STARTED", "ENDED", "NODES"),
        (_line(one) for one in found),
        empty="Nothing runs, and nothing ran.",
    )


def _line(one: dict[str, Any]) -> tuple[str, ...]:
    nodes = "-" if one["nodes"] is None else f"{one['nodesSucceeded']}/{len(one['nodes'])}"
    cells = (
        one["id"],
        one["state"],
        _title(one),
        one["user"],
        moment(one["started"]),
        moment(one["ended"]),
        nodes,
    )
    return tuple(plain(cell) for cell in cells)


def _title(one: dict[str, Any]) -> str:
    job = one["job"]
    if job is None:
        return str(one["description"])
    return f"{job['group']}/{job['name']}" if job["group"] else str(job["name"])


@executions.command("show")
@click.argument("execution", metavar="ID")
@json_option
def show_execution(execution: str, as_json: bool) -> None:
    """Show one execution and how its nodes stand."""
    found = connection.native(connection.current(), "GET", _path(execution))
    if as_json:
        display.as_json(found)
        return
    fields = {
        "id": found["id"],
        "what": _title(found),
        "arguments": found["argstring"],
        "state": found["state"],
        "who": found["user"],
        "started": moment(found["started"]),
        "ended": moment(found["ended"]),
        "aborted by": found["abortedBy"],
    }
    for name, value in fields.items():
        if value != "":
            click.echo(f"{name}: {value}")
    following.show_nodes(found["nodeStates"])


@executions.command("follow")
@click.argument("execution", metavar="ID")
@json_option
def follow_execution(execution: str, as_json: bool) -> None:
    """Show what an execution writes until it ends; the exit status is that of its worst node.

    Ctrl-C asks it to end, a second one only leaves.
    """
    raise SystemExit(following.follow(connection.current(), execution, as_json=as_json))


@executions.command("abort")
@click.argument("execution", metavar="ID")
@json_option
def abort_execution(execution: str, as_json: bool) -> None:
    """Ask an execution to end; it does within ten seconds."""
    answer = connection.native(connection.current(), "POST", f"{_path(execution)}/abort")
    if as_json:
        display.as_json(answer)
    elif answer["abort"] != "failed":
        click.echo(f"Execution {execution} is to end." if answer["abort"] == "pending" else "It is aborted.")
    if answer["abort"] == "failed":
        raise connection.CommandError(f"{answer['reason']} (it is {answer['state']}).", connection.REFUSED)


@executions.command("retry-failed")
@click.argument("execution", metavar="ID")
@click.option("--follow", is_flag=True, help="Show what it writes until it ends.")
@json_option
def retry_failed(execution: str, follow: bool, as_json: bool) -> None:
    """Start the same again on the nodes on which it did not succeed."""
    server = connection.current()
    started(
        server, connection.native(server, "POST", f"{_path(execution)}/retry-failed"), follow=follow, as_json=as_json
    )


def started(server: connection.Server, execution: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    """Say which execution has begun, or follow it and exit as its worst node did."""
    if follow:
        raise SystemExit(following.follow(server, str(execution["id"]), as_json=as_json))
    if as_json:
        display.as_json(execution)
    else:
        click.echo(f"Execution {execution['id']} is started: quarterdeck executions follow {execution['id']}")


def _path(execution: str) -> str:
    return f"/executions/{quote(execution, safe='')}"
