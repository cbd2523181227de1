# SPDX-License-Identifier: Apache-2.0
"""Properties as JSON, the form they have in the columns of nodes and groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quarterdeck.core.properties import Property

_OPTIONAL = ("description", "inherit_mode", "provider")


def to_json(properties: Iterable[Property]) -> list[dict[str, Any]]:
    """Properties sorted by name; what nobody set is left out."""
    return [
        {"name": one.name, "value": one.value} | {name: value for name in _OPTIONAL if (value := getattr(one, name))}
        for one in sorted(properties, key=lambda one: one.name)
    ]


def from_json(rows: Iterable[dict[str, Any]]) -> tuple[Property, ...]:
    """The inverse of `to_json`."""
    return tuple(Property(**row) for row in rows)
