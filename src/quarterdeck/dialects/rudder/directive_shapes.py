# SPDX-License-Identifier: Apache-2.0
"""A directive's parameters on the wire: a tree of sections, one per instance where a section is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Invalid
from quarterdeck.core.modes import print_own_mode
from quarterdeck.core.techniques import Technique, TechniqueParameter
from quarterdeck.dialects.rudder.node_shapes import print_date
from quarterdeck.dialects.rudder.shapes import encode_tags
from quarterdeck.storage.history import Change

_ROOT = "sections"


def decode_parameters(tree: Any) -> dict[str, tuple[str, ...]]:
    """Variable name -> values, one per section that has it, in document order. Raises Invalid."""
    found: dict[str, list[str]] = {}
    for name, value in _variables(tree):
        found.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in found.items()}


def _variables(tree: Any) -> Iterator[tuple[str, str]]:
    section = tree.get("section") if isinstance(tree, dict) else None
    if not isinstance(section, dict):
        raise Invalid('Expected {"section":{"name":...,"vars":[...],"sections":[...]}} for parameters')
    for one in section.get("vars") or ():
        variable = one.get("var") if isinstance(one, dict) else None
        if not (isinstance(variable, dict) and isinstance(variable.get("name"), str)):
            raise Invalid('Expected {"var":{"name":...,"value":...}} in the vars of a section')
        value = variable.get("value", "")
        if not isinstance(value, str):
            raise Invalid(f"The value of '{variable['name']}' must be a text")
        yield variable["name"], value
    for child in section.get("sections") or ():
        yield from _variables(child)


def encode_parameters(technique: Technique | None, values: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The tree of sections; a directive whose technique is gone shows what it has in one section."""
    by_section: dict[str, list[TechniqueParameter]] = {}
    for parameter in technique.parameters if technique is not None else ():
        by_section.setdefault(parameter.section, []).append(parameter)
    sections: list[dict[str, Any]] = []
    for name in sorted(by_section):
        names = [parameter.id for parameter in by_section[name]]
        repeated = technique is not None and name in technique.repeated
        count = max((len(values.get(one, ())) for one in names), default=0) if repeated else 1
        sections.extend(_section(name, _instance(names, values, index)) for index in range(count))
    root: dict[str, Any] = {"name": _ROOT}
    if technique is None and values:
        root["vars"] = _instance(sorted(values), values, 0)
    if sections:
        root["sections"] = sections
    return {"section": root}


def _section(name: str, variables: list[dict[str, Any]]) -> dict[str, Any]:
    return {"section": {"name": name, "vars": variables} if variables else {"name": name}}


def _instance(names: list[str], values: Mapping[str, tuple[str, ...]], index: int) -> list[dict[str, Any]]:
    return [
        {"var": {"name": name, "value": values[name][index]}}
        for name in sorted(names)
        if index < len(values.get(name, ()))
    ]


def encode_directive(directive: Directive, technique: Technique | None) -> dict[str, Any]:
    """A directive with its parameters as its technique orders them."""
    return {
        "id": directive.id,
        "displayName": directive.name,
        "shortDescription": directive.short_description,
        "longDescription": directive.long_description,
        "techniqueName": directive.technique,
        "techniqueVersion": directive.version,
        "parameters": encode_parameters(technique, directive.parameters),
        "priority": directive.priority,
        "enabled": directive.enabled,
        "system": directive.system,
        "policyMode": print_own_mode(directive.mode),
        "tags": encode_tags(directive.tags),
    }


def encode_revision(change: Change) -> dict[str, Any]:
    """One change of an object as a revision."""
    return {
        "revision": str(change.id),
        "date": print_date(change.at),
        "author": change.actor,
        "message": change.reason or f"{change.kind} {change.object_id} {change.change}",
    }
