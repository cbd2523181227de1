# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck rules|groups|directives`: what shall be so, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, plain


@click.group()
def rules() -> None:
    """What applies to which nodes."""


@rules.command("list")
@json_option
def list_rules(as_json: bool) -> None:
    """List rules."""
    found = _fetch("/rules", "rules")
    _show(
        found,
        ("ID", "NAME", "MODE", "DIRECTIVES", "STATUS"),
        (
            (rule["id"], rule["displayName"], rule["policyMode"], len(rule["directives"]), _status(rule["status"]))
            for rule in found
        ),
        empty="There is no rule.",
        as_json=as_json,
    )


def _status(status: dict[str, str]) -> str:
    return ": ".join(filter(None, (status["value"], status.get("details", ""))))


@click.group()
def groups() -> None:
    """Which nodes belong together."""


@groups.command("list")
@json_option
def list_groups(as_json: bool) -> None:
    """List groups."""
    found = _fetch("/groups", "groups")
    _show(
        found,
        ("ID", "NAME", "KIND", "NODES", "ENABLED"),
        (
            (
                group["id"],
                group["displayName"],
                "dynamic" if group["dynamic"] else "static",
                len(group["nodeIds"]),
                "yes" if group["enabled"] else "no",
            )
            for group in found
        ),
        empty="There is no group.",
        as_json=as_json,
    )


@click.group()
def directives() -> None:
    """Techniques with their parameters filled in."""


@directives.command("list")
@json_option
def list_directives(as_json: bool) -> None:
    """List directives."""
    found = _fetch("/directives", "directives")
    _show(
        found,
        ("ID", "NAME", "TECHNIQUE", "MODE", "ENABLED"),
        (
            (
                one["id"],
                one["displayName"],
                f"{one['techniqueName']} {one['techniqueVersion']}",
                one["policyMode"],
                "yes" if one["enabled"] else "no",
            )
            for one in found
        ),
        empty="There is no directive.",
        as_json=as_json,
    )


def _fetch(path: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.rudder(connection.current(), "GET", path)[key]
    return found


def _show(
    found: object, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, as_json: bool
) -> None:
    if as_json:
        display.as_json(found)
    else:
        display.table(columns, (tuple(plain(cell) for cell in row) for row in rows), empty=empty)
