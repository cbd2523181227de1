# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck compliance`: how far the machines are as they should be, now and compared with an earlier look."""

from __future__ import annotations

import json
from typing import Any

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.connection import REFUSED, CommandError
from quarterdeck.cli.display import json_option, plain

#: How to look -> where the list stands in the answer.
_LISTS = {"rules": "rules", "nodes": "nodes", "directives": "directivesCompliance"}


@click.command()
@click.option("--by", type=click.Choice(list(_LISTS)), default="rules", show_default=True)
@click.option(
    "--compare",
    "earlier",
    type=click.File(),
    metavar="FILE",
    help="Also show what has changed since FILE, an earlier answer of this command with --json.",
)
@click.option("--at-least", type=click.FloatRange(0, 100), metavar="PERCENT", help="Exit 1 when all is below that.")
@json_option
def compliance(by: str, earlier: Any, at_least: float | None, as_json: bool) -> None:
    """How far the machines are as they should be."""
    server = connection.current()
    before = _read(earlier, by) if earlier else None
    found = connection.rudder(server, "GET", f"/compliance/{by}", params={"level": "1"})[_LISTS[by]]
    overall = connection.rudder(server, "GET", "/compliance")["globalCompliance"]
    found = sorted(found, key=lambda one: (one["name"], one["id"]))
    if as_json:
        display.as_json({"global": overall, by: found})
    else:
        _show(by, [*found, {"id": "", "name": "all", **overall}], before)
    if at_least is not None and overall["compliance"] < at_least:
        raise CommandError(f"Compliance is {overall['compliance']} %, below {at_least:g} %.", REFUSED)


def _read(earlier: Any, by: str) -> dict[str, float]:
    """Id -> percentage, of an earlier answer; that of everything stands under the empty id. Raises CommandError."""
    try:
        document = json.load(earlier)
        return {"": document["global"]["compliance"], **{one["id"]: one["compliance"] for one in document[by]}}
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{earlier.name} is no answer of `quarterdeck compliance --by {by} --json`.", 2) from None


def _show(by: str, lines: list[dict[str, Any]], before: dict[str, float] | None) -> None:
    columns = [by[:-1].upper(), "COMPLIANCE", "DETAILS"]
    if before is not None:
        columns[1:2] = ["BEFORE", "NOW", "CHANGE"]
    rows = []
    for one in lines:
        now = one["compliance"]
        cells = [plain(one["name"]), display.percentage(now), display.counts(one.get("complianceDetails", {}))]
        if before is not None:
            old = before.get(one["id"])
            shown = display.percentage(old) if old is not None else "[dim]new[/dim]"
            cells[1:2] = [shown, display.percentage(now), display.difference(old, now)]
        rows.append(cells)
    display.table(columns, rows, empty="")
