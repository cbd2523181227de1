# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck`: nodes, rules, compliance, jobs and what they run, from a terminal.

Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 the server does not answer, 4 not logged in. What follows
an execution exits as its worst node did.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from quarterdeck import __version__
from quarterdeck.cli import connection, display
from quarterdeck.cli.compliance import compliance
from quarterdeck.cli.configuration import directives, groups, rules
from quarterdeck.cli.connection import CommandError, Server
from quarterdeck.cli.display import json_option, plain
from quarterdeck.cli.executions import executions
from quarterdeck.cli.host_keys import host_keys
from quarterdeck.cli.jobs import jobs
from quarterdeck.cli.nodes import nodes
from quarterdeck.cli.projects import history, projects
from quarterdeck.cli.quarantine import quarantine
from quarterdeck.cli.relays import relays
from quarterdeck.cli.run import run
from quarterdeck.cli.secrets import secrets
from quarterdeck.cli.techniques import techniques
from quarterdeck.cli.tokens import tokens
from quarterdeck.cli.workers import workers

_EPILOG = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the server does not answer, 4 not logged in."


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="quarterdeck")
def cli() -> None:
    """Work with a Quarterdeck server."""


for _command in (
    *(nodes, relays, groups, techniques, directives, rules, compliance, tokens),
    *(run, jobs, executions, history, projects, host_keys, secrets, workers, quarantine),
):
    cli.add_command(_command)


@cli.command()
@click.argument("url")
@click.option("--token-file", type=click.File(), required=True, help="File with the token; - reads it from the input.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="The authority that signed the server's certificate, as PEM: keys/ca.pem in the server's data directory. "
    "Without it the system's authorities are trusted.",
)
@json_option
def login(url: str, token_file: Any, ca_file: str | None, as_json: bool) -> None:
    """Remember the server at URL and a token, after trying both."""
    path = str(Path(ca_file).resolve()) if ca_file else ""
    server = Server(url=url.rstrip("/"), token=token_file.read().strip(), ca_file=path)
    account = connection.native(server, "GET", "/me")
    kept = connection.save(server)
    if as_json:
        display.as_json({"url": server.url, "account": account["name"], "file": str(kept)})
    else:
        click.echo(f"Logged in to {server.url} as {account['name']}; kept in {kept}")


@cli.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def events(limit: int, as_json: bool) -> None:
    """Who changed what, newest first."""
    found = connection.native(connection.current(), "GET", "/events", params={"limit": limit})["events"]
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("WHEN", "WHO", "WHAT", "WHY"),
        (
            tuple(
                plain(cell)
                for cell in (
                    f"{one['at'][:19]}Z",
                    one["actor"],
                    _subject(one),
                    one["reason"] or "",
                )
            )
            for one in found
        ),
        empty="Nothing has happened yet.",
    )


def _subject(event: dict[str, Any]) -> str:
    """What was changed, by name where it has one."""
    name = (event["after"] or event["before"] or {}).get("name", "")
    return " ".join(filter(None, (event["kind"], event["objectId"], f"“{name}”" if name else "", event["change"])))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every fault becomes one sentence and an exit code."""
    try:
        code = cli.main(args=arguments, prog_name="quarterdeck", standalone_mode=False)
    except CommandError as error:
        click.echo(f"quarterdeck: {error}", err=True)
        sys.exit(error.code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
