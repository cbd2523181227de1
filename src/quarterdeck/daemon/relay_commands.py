# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd relay` and its commands: a relay on a machine of its own, its enrolment, and what it set aside.

They join the others in `commands.py`, but load nothing that needs a database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quarterdeck.cli import display
from quarterdeck.cli.display import json_option, plain
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.daemon import config as settings
from quarterdeck.daemon.commands import become_owner, quarterdeckd
from quarterdeck.daemon.config import Config

if TYPE_CHECKING:
    from quarterdeck.relaying.quarantine import Entry, Quarantine

DEFAULT_LISTEN = "0.0.0.0:8443"


def _place(command: Any) -> Any:
    """Add the options that say which relay is meant."""
    options = [
        click.option("--data-dir", metavar="DIR", help=f"Where it keeps everything. [{settings.DEFAULT_DATA_DIR}]"),
        click.option("--config", "config_file", metavar="FILE", help="Settings. [quarterdeck.toml in the data dir]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _loaded(data_dir: str | None, config_file: str | None, **told: Any) -> Config:
    file = Path(config_file).absolute() if config_file else None
    return settings.load({"data_dir": data_dir, **told}, os.environ, file)


@quarterdeckd.group(invoke_without_command=True)
@_place
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to accept connections. [0.0.0.0:8443]")
@click.option("--public-url", metavar="URL", help="How its nodes reach it. [https://<full name>:<port>]")
@click.pass_context
def relay(
    context: click.Context,
    *,
    data_dir: str | None,
    config_file: str | None,
    listen: str | None,
    public_url: str | None,
) -> None:
    """Relay between nodes and a server, until Ctrl-C. `relay enroll` comes first, once."""
    if context.invoked_subcommand is not None:
        context.obj = {"data_dir": data_dir, "config_file": config_file}
        return
    from quarterdeck.daemon import relay_process

    def settings_now() -> Config:
        return _loaded(data_dir, config_file, listen=listen, public_url=public_url)

    sys.exit(relay_process.serve(settings_now(), lambda text: print(text, flush=True), settings_now))


@relay.command("enroll")
@_place
@click.option("--upstream", required=True, metavar="URL", help="The server or relay above: https://HOST[:PORT].")
@click.option(
    "--pin",
    default="",
    metavar="sha256//…",
    help="Its public key, as its enrolment line has it; nothing else is trusted.",
    show_default=False,
)
@click.option(
    "--token", default="", help="Enrolment token of the server (or in $QUARTERDECK_ENROLMENT).", show_default=False
)
@click.option("--accept-wait", type=float, default=0.0, metavar="SECONDS", help="Wait until accepted.")
@click.pass_context
def relay_enroll(
    context: click.Context,
    *,
    data_dir: str | None,
    config_file: str | None,
    upstream: str,
    pin: str,
    token: str,
    accept_wait: float,
) -> None:
    """Make this relay a node of the server above; an administrator then accepts and promotes it."""
    from quarterdeck.daemon import relay_process

    given = context.obj or {}
    token = token or os.environ.get("QUARTERDECK_ENROLMENT", "")
    if not token:
        raise Invalid(
            "There is no enrolment token: give one with --token. On the server, `quarterdeckd enrolment create NAME` "
            "makes one."
        )
    config = _loaded(data_dir or given.get("data_dir"), config_file or given.get("config_file"))
    node, status, problems = relay_process.enroll(config, upstream, pin, token, accept_wait)
    for problem in problems:
        print(f"quarterdeckd: {problem}", file=sys.stderr)
    print(f"Relay {node} is enrolled; it is {status}.")
    print("Next, on a machine that is logged in to the server:")
    if status != "accepted":
        print(f"  quarterdeck nodes accept {node}")
    print(f"  quarterdeck relays promote {node}")
    print("and here: quarterdeckd relay")


@relay.group("failed")
@_place
@click.pass_context
def relay_failed(context: click.Context, *, data_dir: str | None, config_file: str | None) -> None:
    """What this relay could not pass on: reports, inventories and parcels, each with the reason."""
    outer = context.obj or {}
    context.obj = {
        "data_dir": data_dir or outer.get("data_dir"),
        "config_file": config_file or outer.get("config_file"),
    }


@relay_failed.command("list")
@_place
@json_option
@click.pass_context
def relay_failed_list(context: click.Context, /, *, as_json: bool, **place: str | None) -> None:
    """List what was set aside, the latest first."""
    found = [_told(one) for one in _quarantine(context, place).entries()]
    if as_json:
        display.as_json(found)
        return
    columns = ("id", "place", "name", "since", "kind", "reason")
    display.table(
        [column.upper() for column in columns],
        [[plain(one[column]) for column in columns] for one in found],
        empty="Nothing was set aside.",
    )


@relay_failed.command("show")
@_place
@click.argument("entry")
@json_option
@click.pass_context
def relay_failed_show(context: click.Context, /, *, entry: str, as_json: bool, **place: str | None) -> None:
    """Show why ENTRY (an id) was set aside, and the beginning of its content."""
    quarantine = _quarantine(context, place)
    found = quarantine.get(entry)
    told = _told(found) | {"content": quarantine.head(found)}
    if as_json:
        display.as_json(told)
        return
    for label in ("name", "place", "size", "since", "kind", "reason"):
        click.echo(f"{label + ':':8} {told[label]}")
    click.echo()
    # Somebody else's bytes must not speak to the terminal.
    click.echo(
        "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in told["content"])
    )


@relay_failed.command("retry")
@_place
@click.argument("entries", nargs=-1, metavar="[ENTRY]...")
@click.option("--all", "everything", is_flag=True, help="All that lies there.")
@click.pass_context
def relay_failed_retry(
    context: click.Context, /, *, entries: tuple[str, ...], everything: bool, **place: str | None
) -> None:
    """Put each ENTRY (an id) back, so that the relay tries it again."""
    if bool(entries) == everything:
        raise click.UsageError("Name entries by their ids, or say --all.")
    quarantine = _quarantine(context, place)
    for one in quarantine.retry_all() if everything else map(quarantine.retry, entries):
        click.echo(f"{_name(one)} of {one.place} is tried again.")


@relay_failed.command("remove")
@_place
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY...")
@click.pass_context
def relay_failed_remove(context: click.Context, /, *, entries: tuple[str, ...], **place: str | None) -> None:
    """Forget each ENTRY (an id)."""
    for one in map(_quarantine(context, place).remove, entries):
        click.echo(f"{_name(one)} of {one.place} is forgotten.")


def _quarantine(context: click.Context, told: Mapping[str, str | None]) -> Quarantine:
    """What the relay set aside; it may run meanwhile. `told`: what stands behind the command counts first."""
    from quarterdeck.daemon import genuine_files

    given = {name: value or context.obj[name] for name, value in told.items()}
    place = settings.data_directory({"data_dir": given["data_dir"]}, os.environ)
    if not place.exists():
        raise NotFound(f"There is no relay in {place}: name the right directory with --data-dir.")
    become_owner(place)
    return genuine_files.quarantine(_loaded(str(place), given["config_file"]))


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "place": entry.place,
        "name": _name(entry),
        "size": entry.size,
        "since": f"{datetime.fromtimestamp(entry.at, UTC):%Y-%m-%d %H:%M:%S}Z",
        "kind": entry.kind,
        "reason": entry.reason,
    }


def _name(entry: Entry) -> str:
    """Names of files need not be text."""
    return entry.name.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
