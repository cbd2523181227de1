# SPDX-License-Identifier: Apache-2.0
"""Techniques and generic methods on the wire: the editor's JSON, both ways, and the method catalogue."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import TechniqueId
from quarterdeck.core.methods import Method, MethodParameter
from quarterdeck.core.techniques import (
    DEFAULT_CATEGORY,
    Block,
    Call,
    Constraints,
    Item,
    Technique,
    TechniqueParameter,
)
from quarterdeck.dialects.rudder import body


class ItemFields(msgspec.Struct, kw_only=True, rename="camel"):
    """A call or a block."""

    id: str = ""
    type: str | None = None
    method: str = ""
    component: str = ""
    condition: str = "any"
    disabled_reporting: bool = False
    parameters: dict[str, str] | list[dict[str, Any]] = {}
    reporting_logic: Any = "weighted"
    calls: list[Any] = []

    def to_item(self) -> Item:
        """The same in core's words. Raises Invalid."""
        identity: dict[str, Any] = {
            "id": self.id or str(uuid.uuid4()),
            "component": self.component,
            "condition": self.condition or "any",
        }
        if self.type == "block" or (self.type is None and self.calls):
            logic = "disabled" if self.disabled_reporting else _decode_logic(self.reporting_logic)
            return Block(items=tuple(decode_item(one) for one in self.calls), logic=logic, **identity)
        if not self.method:
            raise Invalid("A call needs a method", problems={"method": "is missing"})
        return Call(method=self.method, parameters=self._arguments(), report=not self.disabled_reporting, **identity)

    def _arguments(self) -> dict[str, str]:
        if isinstance(self.parameters, dict):
            return self.parameters
        # Older editors send a list of {"name", "value"}.
        return {str(one.get("name", "")): str(one.get("value", "")) for one in self.parameters}


class TechniqueFields(msgspec.Struct, kw_only=True, rename="camel"):
    """A technique as the editor sends it."""

    id: str = ""
    version: str = "1.0"
    name: str = ""
    category: str = DEFAULT_CATEGORY
    description: str = ""
    documentation: str = ""
    calls: list[Any] = []
    parameters: list[dict[str, Any]] = []
    #: Read and left alone: files come and go by themselves.
    resources: list[dict[str, Any]] = []
    tags: dict[str, Any] = {}
    internal_id: str | UnsetType = UNSET

    def to_technique(self) -> Technique:
        """The same in core's words. Raises Invalid."""
        return Technique(
            id=TechniqueId(self.id),
            version=self.version,
            name=self.name,
            category=self.category,
            description=self.description,
            documentation=self.documentation,
            items=tuple(decode_item(one) for one in self.calls),
            parameters=tuple(_decode_parameter(one) for one in self.parameters),
            tags=self.tags,
            source="editor",
        )


def decode_item(document: Any) -> Item:
    """A call or a block from plain objects. Raises Invalid."""
    return body.convert(document, ItemFields).to_item()


def _decode_parameter(document: dict[str, Any]) -> TechniqueParameter:
    name = str(document.get("name", ""))
    constraints = document.get("constraints") or {}
    may_be_empty = bool(document.get("mayBeEmpty", constraints.get("allow_empty", False)))
    return TechniqueParameter(
        id=str(document.get("id") or uuid.uuid4()),
        name=name,
        description=str(document.get("description") or ""),
        documentation=str(document.get("documentation") or ""),
        default=document.get("default"),
        constraints=Constraints(may_be_empty=may_be_empty),
    )


def _decode_logic(logic: Any) -> str:
    """Text, or the object older editors send: {"type": "focus", "value": "component"}."""
    if isinstance(logic, str):
        return logic
    if isinstance(logic, dict) and isinstance(logic.get("type"), str):
        return f"focus:{logic['value']}" if logic["type"] == "focus" else logic["type"]
    raise Invalid(f"'{logic}' is not a reporting logic", problems={"reportingLogic": "is not known"})


def encode_technique(technique: Technique) -> dict[str, Any]:
    """An editor technique whole; of a built-in one what identifies it."""
    if technique.source == "built-in":
        return {"name": technique.name, "id": technique.id, "version": technique.version, "source": "built-in"}
    encoded: dict[str, Any] = {
        "id": technique.id,
        "version": technique.version,
        "name": technique.name,
        "category": technique.category,
        "description": technique.description,
        "documentation": technique.documentation,
        "calls": [_encode_item(item) for item in technique.items],
        "parameters": [_encode_parameter(one) for one in technique.parameters],
        "resources": encode_resources(technique),
    }
    if technique.tags:
        encoded["tags"] = dict(technique.tags)
    return encoded | {"source": technique.source}


def encode_resources(technique: Technique) -> list[dict[str, str]]:
    """The technique's resource files. Every change is kept at once, so none differs from what was kept last."""
    return [{"path": one.path, "state": "untouched"} for one in technique.resources]


def _encode_item(item: Item) -> dict[str, Any]:
    if isinstance(item, Call):
        return {
            "type": "call",
            "id": item.id,
            "method": item.method,
            "component": item.component,
            "condition": item.condition,
            "disabledReporting": not item.report,
            "parameters": dict(item.parameters),
        }
    return {
        "type": "block",
        "id": item.id,
        "component": item.component,
        "condition": item.condition,
        "reportingLogic": item.logic,
        "calls": [_encode_item(child) for child in item.items],
    }


def _encode_parameter(one: TechniqueParameter) -> dict[str, Any]:
    encoded: dict[str, Any] = {"id": one.id, "name": one.name}
    if one.description:
        encoded["description"] = one.description
    if one.documentation:
        encoded["documentation"] = one.documentation
    return encoded | {"mayBeEmpty": one.constraints.may_be_empty}


def encode_method(method: Method) -> dict[str, Any]:
    """A generic method of the catalogue."""
    encoded: dict[str, Any] = {
        "id": method.id,
        "name": method.name,
        "description": method.description,
        "condition": {"prefix": method.prefix, "parameter": method.class_parameter},
        "agents": list(method.agents),
        "parameters": [_encode_method_parameter(one) for one in method.parameters],
    }
    if method.documentation:
        encoded["documentation"] = method.documentation
    if method.deprecated is not None:
        encoded["deprecated"] = {"info": method.deprecated.info}
        if method.deprecated.replaced_by:
            encoded["deprecated"]["replacedBy"] = method.deprecated.replaced_by
    return encoded


def _encode_method_parameter(one: MethodParameter) -> dict[str, Any]:
    limits = one.constraints
    constraints: dict[str, Any] = {
        "allow_empty_string": limits.allow_empty,
        "allow_whitespace_string": limits.allow_whitespace,
        "max_length": limits.max_length,
    }
    if limits.min_length is not None:
        constraints["min_length"] = limits.min_length
    if limits.regex:
        constraints["regex"] = limits.regex
    if limits.not_regex:
        constraints["not_regex"] = limits.not_regex
    if limits.select:
        constraints["select"] = list(limits.select)
    return {"name": one.name, "description": one.description, "constraints": constraints, "type": one.type}
