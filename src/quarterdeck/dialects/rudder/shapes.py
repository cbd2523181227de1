# SPDX-License-Identifier: Apache-2.0
"""Shapes that several chapters share: tags, properties, ids given by the client, fields left unset."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from quarterdeck.core import properties
from quarterdeck.core.errors import Invalid
from quarterdeck.core.inheritance import Inherited, Origin
from quarterdeck.core.properties import DEFAULT_INHERIT_MODE, DEFAULT_PROVIDER, Property
from quarterdeck.core.tags import Tag

Text = str | UnsetType
Flag = bool | UnsetType


class Fields(msgspec.Struct, kw_only=True, rename="camel"):
    """A body whose absent fields mean "leave as it is". Unknown keys are ignored."""

    def given(self, **names: str) -> dict[str, Any]:
        """The fields that were sent; `names` maps a field to what core calls it."""
        sent = {name: getattr(self, name) for name in names}
        return {names[name]: value for name, value in sent.items() if value is not UNSET}


def encode_tags(tags: Iterable[Tag]) -> list[dict[str, str]]:
    """Single-key objects, sorted."""
    return [{tag.key: tag.value} for tag in sorted(tags)]


def decode_tags(tags: list[Any]) -> tuple[Tag, ...]:
    """Tags from single-key objects. Raises Invalid."""
    found: list[Tag] = []
    for one in tags:
        if not isinstance(one, dict) or not all(isinstance(value, str) for value in one.values()):
            raise Invalid('Tags are objects whose values are texts, as in [{"key":"value"}]')
        found.extend(Tag(key, value) for key, value in one.items())
    return tuple(sorted(set(found)))


def encode_property(one: Property) -> dict[str, Any]:
    """A property; what is default is left out."""
    shown: dict[str, Any] = {"name": one.name, "value": one.value}
    if one.description:
        shown["description"] = one.description
    if one.inherit_mode and one.inherit_mode != DEFAULT_INHERIT_MODE:
        shown["inheritMode"] = one.inherit_mode
    if one.provider and one.provider != DEFAULT_PROVIDER:
        shown["provider"] = one.provider
    return shown


def chosen_id(given: Text) -> str:
    """The id that the client chose, or a new one."""
    return given if given is not UNSET and given else str(uuid.uuid4())


class PropertyFields(msgspec.Struct, kw_only=True, rename="camel"):
    """A property as clients send it; an empty or null value deletes it."""

    name: str
    value: Any = None
    description: str = ""
    inherit_mode: str | None = None
    provider: str | None = None

    def to_property(self) -> Property:
        """The same in core's words. Raises Invalid for a bad inherit mode."""
        return Property(
            name=self.name,
            value=self.value,
            description=self.description,
            inherit_mode=properties.parse_inherit_mode(self.inherit_mode) if self.inherit_mode else None,
            provider=self.provider or None,
        )


def encode_inherited(one: Inherited) -> dict[str, Any]:
    """A property with every level that says something, oldest first."""
    shown: dict[str, Any] = {"name": one.name, "value": properties.sort_keys(one.value)}
    if one.inherit_mode and one.inherit_mode != DEFAULT_INHERIT_MODE:
        shown["inheritMode"] = one.inherit_mode
    if one.provider and one.provider != DEFAULT_PROVIDER:
        shown["provider"] = one.provider
    if one.hierarchy:
        shown["hierarchy"] = [_encode_origin(origin) for origin in one.hierarchy]
        shown["origval"] = properties.sort_keys(one.original)
    return shown


def _encode_origin(origin: Origin) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": origin.kind}
    if origin.kind == "group":
        shown |= {"name": origin.name, "id": origin.id}
    return shown | {"value": properties.sort_keys(origin.value)}
