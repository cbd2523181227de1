# SPDX-License-Identifier: Apache-2.0
"""How answers look on a terminal: tables by default, JSON on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

#: From this percentage on a compliance is shown in green, from the second in yellow.
GOOD, FAIR = 100.0, 80.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def as_json(document: Any) -> None:
    """The document, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, to_stderr: bool = False) -> None:
    """A table; `empty` is what is said when there are no rows. Cells may hold rich's markup: see `plain`."""
    from rich.console import Console  # late: it costs more than most commands
    from rich.table import Table

    lines = list(rows)
    if not lines:
        click.echo(empty, err=to_stderr)
        return
    on_terminal = (sys.stderr if to_stderr else sys.stdout).isatty()
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        shown.add_column(name, overflow="fold", no_wrap=not on_terminal)
    for line in lines:
        shown.add_row(*line)
    if on_terminal:
        Console(highlight=False, stderr=to_stderr).print(shown)
        return
    console = Console(width=_WIDE, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), err=to_stderr)


#: Columns of a table that goes to a file or a program: nothing is folded there.
_WIDE = 1000


def plain(value: object) -> str:
    """Somebody else's text as a cell: brackets in it are no markup."""
    from rich.markup import escape  # late, as above

    return escape(str(value))


def moment(text: str | None, otherwise: str = "-") -> str:
    """A time of an answer for a table, in UTC to the second."""
    return f"{text[:19].replace('T', ' ')}Z" if text else otherwise


def percentage(value: float) -> str:
    """A compliance with its colour; -1 stands for "nothing to measure"."""
    if value < 0:
        return "[dim]no data[/dim]"
    colour = "green" if value >= GOOD else "yellow" if value >= FAIR else "red"
    return f"[{colour}]{value:.2f} %[/{colour}]"


def difference(before: float | None, now: float) -> str:
    """How a compliance has changed, in points; empty when it has not or cannot be said."""
    if before is None or before < 0 or now < 0:
        return ""
    points = round(now - before, 2)
    if not points:
        return "="
    return f"[{'green' if points > 0 else 'red'}]{points:+.2f}[/]"


def counts(details: dict[str, float]) -> str:
    """The parts of a compliance, largest first."""
    ordered = sorted(details.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:g} %" for name, value in ordered)
