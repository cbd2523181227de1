# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck tokens`: tokens for programs that use the APIs."""

from __future__ import annotations

from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, plain


@click.group()
def tokens() -> None:
    """Tokens for programs that use the APIs."""


@tokens.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """List the tokens, without their secrets."""
    found = connection.native(connection.current(), "GET", "/tokens")
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("NAME", "ACCESS", "ROLES", "EXPIRES", "STATE"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["name"],
                    one["access"] or "-",
                    ",".join(one["roles"]) or "-",
                    one["expires"] or "never",
                    "enabled" if one["enabled"] else "ended",
                )
            )
            for one in found
        ),
        empty="There is no token.",
    )


@tokens.command("create")
@click.argument("name")
@click.option("--access", type=click.Choice(["read", "write"]), required=True, help="What it may do without a role.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="Adds a role's rights; can be repeated.")
@click.option("--expires", metavar="TIME", help="RFC 3339, as in 2027-01-31T00:00:00Z; without it never.")
@json_option
def create_token(name: str, access: str, roles: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make a token and print it; it is shown this once."""
    body = {"name": name, "access": access, "roles": list(roles), "expires": expires}
    made = connection.native(connection.current(), "POST", "/tokens", json=body)
    if as_json:
        display.as_json(made)
    else:
        click.echo(made["token"])


@tokens.command("revoke")
@click.argument("name")
@json_option
def revoke_token(name: str, as_json: bool) -> None:
    """End the token NAME at once."""
    done = connection.native(connection.current(), "DELETE", f"/tokens/{quote(name, safe='')}")
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"The token '{name}' is revoked.")
