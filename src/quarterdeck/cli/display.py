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


def as_json(document: Any) -> None:
    """The document, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table; `empty` is what is said when there are no rows."""
    from rich.console import Console  # late: it costs more than most commands
    from rich.table import Table

    lines = list(rows)
    if not lines:
        click.echo(empty)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        shown.add_column(name, overflow="fold")
    for line in lines:
        shown.add_row(*line)
    Console(soft_wrap=not sys.stdout.isatty()).print(shown)


def percentage(value: float) -> str:
    """A compliance with its colour; -1 stands for "nothing to measure"."""
    if value < 0:
        return "[dim]no data[/dim]"
    colour = "green" if value >= GOOD else "yellow" if value >= FAIR else "red"
    return f"[{colour}]{value:.2f} %[/{colour}]"


def counts(details: dict[str, float]) -> str:
    """The parts of a compliance, largest first."""
    ordered = sorted(details.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:g} %" for name, value in ordered)
