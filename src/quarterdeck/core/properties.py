# SPDX-License-Identifier: Apache-2.0
"""Properties of nodes and groups: the value type, inherit modes, merging, and updates with their owners.

Levels, lowest precedence first: global parameter, groups (through the sub-group relation), node.
How the levels come together for one node or group stands in `inheritance.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core.errors import Conflict, Invalid

#: The provider that is not printed.
DEFAULT_PROVIDER = "default"
#: May change what any other provider owns.
SYSTEM_PROVIDER = "system"
#: objects merge, arrays and strings are replaced
DEFAULT_INHERIT_MODE = "moo"

_INHERIT_MODE = re.compile(r"[mo][oap][oap]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One named value. `inherit_mode` and `provider` are None when nobody set them."""

    name: str
    value: Any
    description: str = ""
    inherit_mode: str | None = None
    provider: str | None = None


def parse_inherit_mode(text: str) -> str:
    """Three letters: objects `m`erge or `o`verride; arrays, then strings, `o`verride, `a`ppend or `p`repend.

    Raises Invalid.
    """
    if _INHERIT_MODE.fullmatch(text) is None:
        raise Invalid(f"Impossible to parse string as inherit mode option, expecting: [mo][oap][oap] but got: {text}")
    return text


def merge(parent: Any, child: Any, mode: str = DEFAULT_INHERIT_MODE) -> Any:
    """The value of `child` laid over `parent`; values of different kinds are replaced. Neither is changed."""
    match parent, child:
        case dict(), dict():
            return _merge_objects(parent, child, mode) if mode[0] == "m" else child
        case list(), list():
            return _join(parent, child, mode[1])
        case str(), str():
            return _join(parent, child, mode[2])
    return child


def _merge_objects(parent: dict[str, Any], child: dict[str, Any], mode: str) -> dict[str, Any]:
    united = dict(parent)
    for key, value in child.items():
        united[key] = merge(united[key], value, mode) if key in united else value
    return united


def _join(parent: Any, child: Any, letter: str) -> Any:
    if letter == "a":
        return parent + child
    return child + parent if letter == "p" else child


def update(
    existing: Iterable[Property], changes: Iterable[Property], provider: str = DEFAULT_PROVIDER
) -> tuple[Property, ...]:
    """The properties after the changes, sorted by name; a change to an empty string or null deletes.

    `provider` acts for changes that name none themselves. Raises Conflict when a change touches
    what another provider owns; then nothing is changed.
    """
    kept = {one.name: one for one in existing}
    for change in changes:
        acting = change.provider or provider
        old = kept.get(change.name)
        if old is not None:
            _check_owner(old, acting)
        if change.value is None or change.value == "":
            kept.pop(change.name, None)
        else:
            kept[change.name] = _updated(old, change, acting)
    return tuple(kept[name] for name in sorted(kept))


def _check_owner(old: Property, acting: str) -> None:
    owner = old.provider or DEFAULT_PROVIDER
    if owner not in (DEFAULT_PROVIDER, acting) and acting != SYSTEM_PROVIDER:
        message = f"You can not update property '{old.name}' which is owned by provider '{owner}'"
        raise Conflict(f"{message} thanks to provider '{acting}'")


def _updated(old: Property | None, change: Property, acting: str) -> Property:
    owned = replace(change, provider=None if acting == DEFAULT_PROVIDER else acting)
    if old is None:
        return owned
    return replace(
        owned,
        inherit_mode=change.inherit_mode or old.inherit_mode,
        description=change.description or old.description,
    )


def sort_keys(value: Any) -> Any:
    """The same value with the keys of every object in order, as values are printed."""
    match value:
        case dict():
            return {key: sort_keys(value[key]) for key in sorted(value)}
        case list():
            return [sort_keys(one) for one in value]
    return value
