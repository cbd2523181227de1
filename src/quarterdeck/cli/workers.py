# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck workers`: the processes that run executions."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, moment, plain


@click.group()
def workers() -> None:
    """The processes that run executions."""


@workers.command("list")
@json_option
def list_workers(as_json: bool) -> None:
    """List the workers with what they run."""
    found = connection.native(connection.current(), "GET", "/workers")
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "HOST", "PID", "STATE", "SINCE", "EXECUTIONS"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["id"],
                    one["host"],
                    one["pid"],
                    _state(one),
                    moment(one["started"]),
                    ", ".join(map(str, one["executions"])) or "-",
                )
            )
            for one in found
        ),
        empty="There is no worker.",
    )


def _state(one: dict[str, Any]) -> str:
    if not one["alive"]:
        return "gone"
    return "begins nothing more" if one["draining"] else "works"


@workers.command("drain")
@click.argument("worker", metavar="ID")
@json_option
def drain_worker(worker: str, as_json: bool) -> None:
    """Let a worker begin nothing more; what it runs goes on."""
    _tell(worker, "drain", as_json=as_json)


@workers.command("resume")
@click.argument("worker", metavar="ID")
@json_option
def resume_worker(worker: str, as_json: bool) -> None:
    """Let a worker begin again."""
    _tell(worker, "resume", as_json=as_json)


def _tell(worker: str, what: str, *, as_json: bool) -> None:
    done = connection.native(connection.current(), "POST", f"/workers/{quote(worker, safe='')}/{what}")
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"Worker {worker}: {_state(done)}")
