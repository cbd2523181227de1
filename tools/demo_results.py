# SPDX-License-Identifier: Apache-2.0
"""What the compliance API says about the demo's node, and the table that compares several moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.table import Table
from tools.demo_world import Api

#: Status in answers -> word, colour.
_WORDS = {
    "successAlreadyOK": ("as it should", "green"),
    "successRepaired": ("repaired", "green"),
    "auditCompliant": ("compliant", "green"),
    "auditNonCompliant": ("not compliant", "red"),
    "successNotApplicable": ("not applicable", "dim"),
    "auditNotApplicable": ("not applicable", "dim"),
    "error": ("error", "red"),
    "auditError": ("error", "red"),
    "applying": ("applying", "yellow"),
}


class Key(NamedTuple):
    """One component value of one directive. `path` is the names of the blocks around it, then its own."""

    rule: str
    directive: str
    path: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Outcome:
    """`label` is the directive's name."""

    label: str
    status: str


@dataclass(frozen=True)
class Results:
    """The node at one moment. `percent` is over all rules."""

    percent: float
    outcomes: Mapping[Key, Outcome]


def read(api: Api, node: str) -> Results:
    """What the server says now."""
    (found,) = api.rudder("GET", f"/compliance/nodes/{node}?level=10")["nodes"]
    outcomes: dict[Key, Outcome] = {}
    for rule in found["rules"]:
        for directive in rule["directives"]:
            for path, value, status in _values(directive.get("components", ()), ()):
                key = Key(rule["id"], directive["id"], path, value)
                outcomes[key] = Outcome(directive["name"], status)
    return Results(found["compliance"], outcomes)


def _values(components: list[dict[str, Any]], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for component in components:
        path = (*above, component["name"])
        yield from _values(component.get("components", []), path)
        for value in component.get("values", ()):
            for report in value["reports"]:
                yield path, value["value"], report["status"]


def table(stages: Mapping[str, Results]) -> Table:
    """One line per component, one column per stage, the percentage below."""
    shown = Table(title="Compliance of this machine", show_footer=True, title_justify="left")
    shown.add_column("Directive", footer="all together")
    shown.add_column("Component")
    for name, results in stages.items():
        shown.add_column(name, footer=f"{results.percent:g} %")
    keys = dict.fromkeys(key for results in stages.values() for key in results.outcomes)
    last = ""
    for key in sorted(keys, key=lambda one: (one.rule != "demo-web", one)):
        outcomes = [results.outcomes.get(key) for results in stages.values()]
        label = next(outcome.label for outcome in outcomes if outcome is not None)
        words = [_word(outcome.status) if outcome is not None else "" for outcome in outcomes]
        shown.add_row("" if label == last else label, _component(key), *words)
        last = label
    return shown


def _component(key: Key) -> str:
    """The outermost name says most; of paths the last part is enough here."""
    words = [word.rpartition("/")[2] for word in key.path[0].split()]
    value = key.value.rpartition("/")[2] if key.value.startswith("/") else ""
    return " ".join(words) + (f" [dim]{value}[/dim]" if value and value not in words else "")


def _word(status: str) -> str:
    word, colour = _WORDS.get(status, (status, "yellow"))
    return f"[{colour}]{word}[/{colour}]"
