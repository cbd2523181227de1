# SPDX-License-Identifier: Apache-2.0
"""A run on the terminal while it lasts: output by node, how many nodes are done, a table at the end.

Output of nodes goes to standard output, what they write to standard error and everything that is said about the run
to standard error. A connection that is lost is made again, at the same place of the output.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.connection import UNREACHABLE, CommandError, Server
from quarterdeck.cli.display import plain

#: How long a server may be away while a run is followed.
PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
#: What a shell keeps for itself begins behind this.
_HIGHEST_STATUS = 125
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_STATE_COLOURS = {"succeeded": "green", "failed": "red", "abandoned": "red", "begun": "yellow"}
#: Nodes that are named while they run.
_NAMED = 3


def follow(server: Server, execution: str, *, as_json: bool) -> int:
    """Show an execution until it ends, or until the second Ctrl-C; the exit status for it. Raises CommandError."""
    nodes: dict[str, dict[str, Any]] = {}
    with _interruptible(server, execution), _view(as_json=as_json) as view:
        for event in _events(server, execution):
            view.show(event)
            if event["type"] == "node":
                nodes[event["node"]] = event
            if event["type"] == "end":
                view.end(event, list(nodes.values()))
                return status(event["state"], list(nodes.values()))
    raise AssertionError("events end with an end or an error")


def status(state: str, nodes: list[dict[str, Any]]) -> int:
    """The exit status of the worst node, if it is from 1 to 125; else 1, or 0 for a run that succeeded."""
    if state == "succeeded":
        return 0
    statuses = [one["exitStatus"] or 0 for one in nodes if one["state"] != "succeeded"]
    return max((one for one in statuses if 0 < one <= _HIGHEST_STATUS), default=1)


def show_nodes(nodes: list[dict[str, Any]], *, to_stderr: bool = False) -> None:
    """A table of how nodes stand."""
    display.table(
        ("NODE", "STATE", "STEP", "EXIT", "REASON"),
        (
            (
                plain(one["node"]),
                f"[{_STATE_COLOURS.get(one['state'], 'dim')}]{plain(one['state'])}[/]",
                plain(one["step"]),
                plain("" if one["exitStatus"] is None else one["exitStatus"]),
                plain(one["reason"]),
            )
            for one in nodes
        ),
        empty="No node was to do anything.",
        to_stderr=to_stderr,
    )


def _events(server: Server, execution: str) -> Iterator[dict[str, Any]]:
    """Everything of an execution until its end, across lost connections. Raises CommandError."""
    offset, path = 0, f"/executions/{quote(execution, safe='')}"
    heard = time.monotonic()
    while True:
        try:
            for event in connection.native_lines(server, f"{path}/follow", {"offset": offset}):
                heard = time.monotonic()
                offset = event["offset"] if event["type"] == "output" else offset
                yield event
                if event["type"] == "end":
                    return
            connection.native(server, "GET", path)  # it says why there was no end, if it is for good
        except CommandError as error:
            if error.code != UNREACHABLE or time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _interruptible(server: Server, execution: str) -> Iterator[None]:
    """The first Ctrl-C asks the execution to end and is no exception; the second is one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        click.echo("Asking it to end; Ctrl-C once more leaves it alone.", err=True)
        threading.Thread(target=_abort, args=(server, execution), daemon=True).start()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _abort(server: Server, execution: str) -> None:
    try:
        connection.native(server, "POST", f"/executions/{quote(execution, safe='')}/abort")
    except CommandError as error:
        click.echo(f"It cannot be asked to end: {error}", err=True)


# -- views ------------------------------------------------------------------------------------


class View(Protocol):
    """How events look."""

    def show(self, event: dict[str, Any]) -> None:
        """One event."""

    def end(self, event: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
        """The last one, with how every node stands."""


@contextmanager
def _view(*, as_json: bool) -> Iterator[View]:
    if as_json:
        yield JsonView()
    elif sys.stdout.isatty() and sys.stderr.isatty():
        view = TerminalView()
        with view.status:
            yield view
    else:
        yield PlainView()


class JsonView:
    """The events themselves, one a line."""

    def show(self, event: dict[str, Any]) -> None:
        click.echo(json.dumps(event, ensure_ascii=False))

    def end(self, event: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
        """It has been shown."""


class PlainView:
    """Lines behind the names of their nodes, and the table at the end."""

    def show(self, event: dict[str, Any]) -> None:
        if event["type"] == "output":
            for line in _lines(event):
                click.echo(line, err=event["level"] != "INFO")

    def end(self, event: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
        show_nodes(nodes, to_stderr=True)
        click.echo(_summary(event), err=True)


class TerminalView:
    """The same in colours, above a line that tells how far it is."""

    def __init__(self) -> None:
        from rich.console import Console  # late: it costs more than most commands
        from rich.status import Status

        self._console = Console(highlight=False, soft_wrap=True)
        self.status = Status("starting", console=self._console)
        self._nodes: dict[str, str] = {}
        self._total = 0

    def show(self, event: dict[str, Any]) -> None:
        if event["type"] == "output":
            self._print(event)
            return
        if event["type"] == "node":
            self._nodes[event["node"]] = event["state"]
        elif event["nodes"] is not None:
            self._total = len(event["nodes"])
        self.status.update(self._progress())

    def end(self, event: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
        self.status.stop()
        show_nodes(nodes)
        self._console.print(plain(_summary(event)))

    def _print(self, event: dict[str, Any]) -> None:
        colour = _COLOURS[sum(event["node"].encode()) % len(_COLOURS)]
        for line in event["text"].splitlines():
            text = plain(line) if event["level"] == "INFO" else f"[red]{plain(line)}[/red]"
            name = f"[{colour}]{plain(event['node'])}[/{colour}]: " if event["node"] else ""
            self._console.print(f"{name}{text}")

    def _progress(self) -> str:
        counts = Counter(self._nodes.values())
        running = [node for node, state in self._nodes.items() if state == "begun"]
        done = sum(counts[state] for state in ("succeeded", "failed", "abandoned", "skipped"))
        named = ", ".join(running[:_NAMED]) + (f" and {len(running) - _NAMED} more" if len(running) > _NAMED else "")
        failed = counts["failed"] + counts["abandoned"]
        parts = [f"{done} of {self._total} nodes", f"[red]{failed} failed[/red]" if failed else "", plain(named)]
        return ", ".join(filter(None, parts))


def _lines(event: dict[str, Any]) -> list[str]:
    name = f"{event['node']}: " if event["node"] else ""
    return [f"{name}{line}" for line in event["text"].split("\n")[: -1 if event["text"].endswith("\n") else None]]


def _summary(event: dict[str, Any]) -> str:
    total = len(event["nodes"] or ())
    by = f" by {event['abortedBy']}" if event["state"] == "aborted" and event["abortedBy"] else ""
    good = event["nodesSucceeded"]
    return f"Execution {event['id']} {event['state']}{by}: {good} of {total} nodes succeeded."
