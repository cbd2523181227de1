# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck host-keys`: which SSH keys of hosts are trusted, and which wait for somebody's approval."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, moment, plain

_SSH_PORT = 22
port_option = click.option("--port", default=_SSH_PORT, show_default=True, type=click.IntRange(1, 65535))


@click.group("host-keys")
def host_keys() -> None:
    """Which SSH keys of hosts are trusted."""


@host_keys.command("list")
@click.option("--waiting", is_flag=True, help="Only those that nobody trusts yet.")
@json_option
def list_host_keys(waiting: bool, as_json: bool) -> None:
    """List the keys of hosts with their fingerprints."""
    found = connection.native(connection.current(), "GET", "/host-keys")
    found = [one for one in found if not (waiting and one["trusted"])]
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("HOST", "PORT", "TYPE", "FINGERPRINT", "STATE", "FIRST SEEN"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["host"],
                    one["port"],
                    one["type"],
                    one["fingerprint"],
                    _state(one),
                    moment(one["seen"]),
                )
            )
            for one in found
        ),
        empty="No key waits." if waiting else "No key of a host is known.",
    )


def _state(one: dict[str, Any]) -> str:
    if not one["trusted"]:
        return "waits for approval"
    return f"approved by {one['approvedBy']}" if one["approvedBy"] else "trusted as the first"


@host_keys.command("approve")
@click.argument("host")
@click.argument("fingerprint", required=False)
@port_option
@click.option("--key-file", type=click.File(), help="A whole public key, as in the host's ssh_host_*_key.pub.")
@json_option
def approve_host_key(host: str, fingerprint: str | None, port: int, key_file: Any, as_json: bool) -> None:
    """Trust a key of HOST, named by its FINGERPRINT (SHA256:...), in place of any other of its type."""
    if bool(fingerprint) == bool(key_file):
        raise click.UsageError("Name the key by its FINGERPRINT, or give it whole with --key-file.")
    document = {"host": host, "port": port}
    document |= {"key": key_file.read()} if key_file else {"fingerprint": fingerprint}
    done = connection.native(connection.current(), "POST", "/host-keys/approve", json=document)
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"{done['type']} {done['fingerprint']} of {host} is trusted.")


@host_keys.command("forget")
@click.argument("host")
@click.argument("fingerprint", required=False)
@port_option
@json_option
def forget_host_keys(host: str, fingerprint: str | None, port: int, as_json: bool) -> None:
    """Forget the keys of HOST, or only the one of FINGERPRINT."""
    params: dict[str, Any] = {"port": port} | ({"fingerprint": fingerprint} if fingerprint else {})
    done = connection.native(connection.current(), "DELETE", f"/host-keys/{quote(host, safe='')}", params=params)
    if as_json:
        display.as_json(done)
    else:
        click.echo(f"Forgotten: {done['forgotten']} of {host}.")
