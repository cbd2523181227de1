# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that settings have, and how they are written as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_origin

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.formats import durations


def says(text: str, **bounds: Any) -> msgspec.Meta:
    """What a setting does, for the documentation, and the bounds of its value."""
    return msgspec.Meta(description=text, **bounds)


def from_text(name: str, kind: Any, text: str) -> Any:
    """A value of this kind as the environment and references write it; what is no such thing stays text."""
    if get_origin(kind) is list:
        return _json(name, text) if text.lstrip().startswith("[") else _parts(text)
    if get_origin(kind) is dict:
        return dict(_pairs(name, text))
    return _seconds(name, text) if kind is float else text


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A table whose keys have dots, which TOML takes for tables in tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(name: str, text: str) -> Iterator[tuple[str, str]]:
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if not equals:
            raise Invalid(f"The setting {name} is wrong: '{part[:40]}' is not NAME=VALUE.")
        yield key.strip(), value.strip()


def _json(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise Invalid(f"The setting {name} is wrong: it begins like JSON and is none.") from None


def _seconds(name: str, text: str) -> float:
    """Every number with a fraction is a time in seconds, which people may write as `10 min`."""
    try:
        return float(text)
    except ValueError:
        try:
            return durations.seconds(text)
        except Invalid as error:
            raise Invalid(f"The setting {name} is wrong: {error.message[:1].lower()}{error.message[1:]}") from None
