# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd relay` and `quarterdeckd relay enroll`: a relay on a machine of its own.

They join the others in `commands.py`, but load nothing that needs a database.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import config as settings
from quarterdeck.daemon.commands import quarterdeckd
from quarterdeck.daemon.config import Config

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

    config = _loaded(data_dir, config_file, listen=listen, public_url=public_url)
    sys.exit(relay_process.serve(config, lambda text: print(text, flush=True)))


@relay.command("enroll")
@_place
@click.option("--upstream", required=True, metavar="URL", help="The server above: https://HOST[:PORT].")
@click.option("--pin", default="", metavar="sha256//…", help="That one's public key; nothing else is trusted.")
@click.option("--token", default="", help="Enrolment token (or in $QUARTERDECK_ENROLMENT).", show_default=False)
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
        raise Invalid("There is no enrolment token: give one with --token.")
    config = _loaded(data_dir or given.get("data_dir"), config_file or given.get("config_file"))
    node, status, problems = relay_process.enroll(config, upstream, pin, token, accept_wait)
    for problem in problems:
        print(f"quarterdeckd: {problem}", file=sys.stderr)
    print(f"Relay {node} is enrolled; it is {status}.")
    if status != "accepted":
        print("Next, on the server: accept the node, and promote it (POST /scaleoutrelay/promote/{id}).")
    else:
        print("Next, on the server: promote it (POST /scaleoutrelay/promote/{id}).")
