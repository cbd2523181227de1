# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck secrets`: keys and passphrases that nodes and projects refer to by name."""

from __future__ import annotations

import sys
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, plain


@click.group()
def secrets() -> None:
    """Keys and passphrases that nodes and projects refer to by name."""


@secrets.command("list")
@json_option
def list_secrets(as_json: bool) -> None:
    """List the names of the secrets; no command shows a value."""
    found = connection.native(connection.current(), "GET", "/secrets")
    if as_json:
        display.as_json(found)
        return
    rows = ((plain(one["name"]), plain(one["description"])) for one in found)
    display.table(("NAME", "DESCRIPTION"), rows, empty="There is no secret.")


@secrets.command("set")
@click.argument("name")
@click.option("--description", help="Without it the present one stays.")
@click.option("--keep-newline", is_flag=True, help="A line end at the end of the value belongs to it, as in key files.")
@json_option
def set_secret(name: str, description: str | None, keep_newline: bool, as_json: bool) -> None:
    """Keep a secret, new or changed; its value comes on standard input, or is asked for on a terminal."""
    if sys.stdin.isatty():
        value = str(click.prompt("Value", hide_input=True, err=True))
    else:
        value = sys.stdin.read()
        value = value if keep_newline or value.count("\n") > 1 else value.removesuffix("\n")
    document = {"value": value, "description": description}
    kept = connection.native(connection.current(), "PUT", f"/secrets/{quote(name, safe='')}", json=document)
    if as_json:
        display.as_json(kept)
    else:
        click.echo(f"The secret '{name}' is kept.")


@secrets.command("remove")
@click.argument("name")
@json_option
def remove_secret(name: str, as_json: bool) -> None:
    """Forget a secret."""
    done = connection.native(connection.current(), "DELETE", f"/secrets/{quote(name, safe='')}")
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"The secret '{name}' is removed.")
