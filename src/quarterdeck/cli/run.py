# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck run`: a command or a script on the nodes of a project, now."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import click

from quarterdeck.cli import connection
from quarterdeck.cli.display import json_option
from quarterdeck.cli.executions import started
from quarterdeck.cli.projects import path, project_option

FILTERS = ("name", "tags", "hostname", "os-name", "os-family", "os-arch", "os-version")
_LOGLEVELS = ("DEBUG", "VERBOSE", "INFO", "WARN", "ERR")

filter_option = click.option(
    "-F",
    "--filter",
    "filters",
    multiple=True,
    metavar="FILTER",
    help="name=web.* (or just web.*), tags=web+eu, os-family=unix, exclude-name=... and so on; values are patterns. "
    "Can be repeated: each kind narrows, one of a kind is enough. Without any it runs on the server's own node.",
)
loglevel_option = click.option("--loglevel", type=click.Choice(_LOGLEVELS), default=None)


def filter_of(given: Iterable[str]) -> dict[str, str] | None:
    """The filter that these words mean; None for none. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for word in given:
        kind, equals, value = word.partition("=")
        if not equals:
            kind, value = "name", word
        if kind != "exclude-precedence" and kind.removeprefix("exclude-") not in FILTERS:
            known = ", ".join((*FILTERS, "exclude-..., exclude-precedence"))
            raise click.UsageError(f"There is no filter '{kind}'; there are {known}.")
        found.setdefault(kind, []).append(value)
    if not found:
        return None
    return {kind: ("," if kind.endswith("tags") else "|").join(values) for kind, values in found.items()}


def command_line(words: Iterable[str]) -> str:
    """The words as the shell of a node reads them back; a single word is a command line itself."""
    several = list(words)
    return several[0] if len(several) == 1 else shlex.join(several)


@click.command(epilog="Exit status: that of the worst node, 1 where there is none from 1 to 125; 0 when all succeeded.")
@project_option
@filter_option
@click.option("--script", type=click.File("rb"), metavar="FILE", help="Run this script; the words are its arguments.")
@click.option("-C", "--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Nodes at a time.")
@click.option("-K", "--keepgoing", is_flag=True, help="Begin with further nodes after one has failed.")
@loglevel_option
@click.option("--detach", is_flag=True, help="Start it and do not follow.")
@click.argument("words", nargs=-1, metavar="[--] COMMAND...")
@json_option
def run(  # noqa: PLR0913  # one option each
    *,
    project: str,
    filters: tuple[str, ...],
    script: Any,
    threads: int,
    keepgoing: bool,
    loglevel: str | None,
    detach: bool,
    words: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a command or a script on nodes and show what it writes until it ends.

    Ctrl-C asks it to end, a second one only leaves. With --json every event is a JSON object on a line of its own.
    """
    document: dict[str, Any] = {"filter": filter_of(filters), "threadcount": threads, "keepgoing": keepgoing}
    document |= {"loglevel": loglevel or ""} | _what(script, words)
    server = connection.current()
    execution = connection.native(server, "POST", path(project, "/executions"), json=document)
    started(server, execution, follow=not detach, as_json=as_json)


def _what(script: Any, words: tuple[str, ...]) -> dict[str, str]:
    if script is None:
        if not words:
            raise click.UsageError("Say what to run: quarterdeck run -p PROJECT -- COMMAND")
        return {"command": command_line(words)}
    try:
        text = script.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{script.name} is no text in UTF-8.") from None
    return {"script": text, "args": shlex.join(words)}
