# SPDX-License-Identifier: Apache-2.0
"""The node query language: criteria over the inventory, combined by and/or, possibly inverted.

Here: the query as data, its grammar and its checks; `node_attributes.py` is the catalogue of what can be asked.
`storage/node_queries.py` compiles a query to SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from quarterdeck.core import java_regexes, node_attributes
from quarterdeck.core.errors import Invalid
from quarterdeck.core.node_attributes import CATALOGUE, Attribute, Kind

_SELECTIONS = {"node": False, "nodeandpolicyserver": True}
_TRANSFORMS = {"identity": False, "invert": True}

_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_LONG = re.compile(r"-?\d{1,30}")
_MEMORY = re.compile(r"(\d[\d_ ]{0,30}?) *([bokmgtpezy]?)[bo]?", re.IGNORECASE)
_UNITS = "kmgtpezy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Names in their canonical spelling; `value` is empty for `exists` and `notExists`."""

    object_type: str
    attribute: str
    comparator: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    #: True: policy servers too (`nodeAndPolicyServer`); False: every accepted node except root.
    with_policy_servers: bool = False
    #: "and" or "or"
    composition: str = "and"
    #: True: the complement within the selected universe.
    inverted: bool = False
    criteria: tuple[Criterion, ...] = ()


def parse(document: Mapping[str, Any]) -> NodeQuery:
    """A query from its JSON form, names in any case. Raises Invalid."""
    select = _text(document, "select") or _text(document, "returnType") or "node"
    composition = (_text(document, "composition") or "and").lower()
    transform = (_text(document, "transform") or "identity").lower()
    if select.lower() not in _SELECTIONS:
        raise Invalid(f"'select' must be 'node' or 'nodeAndPolicyServer' but was: '{select}'")
    if composition not in ("and", "or"):
        raise Invalid(f"'composition' must be 'and' or 'or' but was: '{composition}'")
    if transform not in _TRANSFORMS:
        raise Invalid(f"'transform' must be 'identity' or 'invert' but was: '{transform}'")
    where = document.get("where")
    if where is not None and not isinstance(where, list | tuple):
        raise Invalid("'where' must be a list of criteria")
    return NodeQuery(
        with_policy_servers=_SELECTIONS[select.lower()],
        composition=composition,
        inverted=_TRANSFORMS[transform],
        criteria=tuple(parse_criterion(one) for one in where or ()),
    )


def show(query: NodeQuery) -> dict[str, Any]:
    """The JSON form; the inverse of `parse`."""
    shown: dict[str, Any] = {
        "select": "nodeAndPolicyServer" if query.with_policy_servers else "node",
        "composition": query.composition,
    }
    if query.inverted:
        shown["transform"] = "invert"
    shown["where"] = [
        {
            "objectType": one.object_type,
            "attribute": one.attribute,
            "comparator": one.comparator,
            "value": one.value,
        }
        for one in query.criteria
    ]
    return shown


def parse_criterion(document: Any) -> Criterion:
    """One criterion from its JSON form, names in any case. Raises Invalid."""
    if not isinstance(document, Mapping):
        raise Invalid(f"A criterion must be an object but was: '{document}'")
    object_type, attribute, comparator = (_required(document, key) for key in ("objectType", "attribute", "comparator"))
    where = f"in criterion '{object_type}.{attribute}'"
    known_type = _canonical(object_type, CATALOGUE)
    if known_type is None:
        message = f"The object type '{object_type}' is unknown {where}. Possible object types: [{', '.join(CATALOGUE)}]"
        raise Invalid(message)
    attributes = CATALOGUE[known_type]
    known_attribute = _canonical(attribute, attributes)
    if known_attribute is None:
        message = f"The attribute '{attribute}' is unknown for type '{known_type}' {where}."
        raise Invalid(f"{message} Possible attributes: [{', '.join(attributes)}]")
    found = attributes[known_attribute]
    known_comparator = _canonical(comparator, found.kind.comparators)
    if known_comparator is None:
        message = f"The comparator '{comparator}' is unknown for attribute '{known_attribute}' {where}."
        raise Invalid(f"{message} Possible comparators: [{', '.join(found.kind.comparators)}]")
    value = ""
    if known_comparator not in node_attributes.EXISTENCE:
        value = _value(document, found, known_comparator, f"{known_type}.{known_attribute}")
    return Criterion(object_type=known_type, attribute=known_attribute, comparator=known_comparator, value=value)


def attribute_of(criterion: Criterion) -> Attribute:
    """The catalogue's entry for what a criterion asks."""
    return CATALOGUE[criterion.object_type][criterion.attribute]


def parse_memory(text: str) -> int | None:
    """Bytes of a size such as `512 MB` or `2Go`, units in powers of 1024; None when it cannot be read."""
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        return None
    number = int(re.sub("[ _]", "", found[1]))
    unit = found[2].lower()
    power = _UNITS.index(unit) + 1 if unit and unit in _UNITS else 0
    return number << (10 * power)


def parse_date(text: str) -> date:
    """A day written dd/MM/yyyy. Raises Invalid."""
    found = _DATE.fullmatch(text.strip())
    try:
        if found is not None:
            return date(int(found[3]), int(found[2]), int(found[1]))
    except ValueError:
        pass
    raise Invalid(f"Invalid date: '{text}'. Expected format is: 'dd/MM/yyyy'")


def split_pair(text: str, separator: str = "=") -> tuple[str, str]:
    """Key and value of `key=value` (or `key:jsonpath`). Raises Invalid without the separator."""
    key, found, value = text.partition(separator)
    if not found or not key:
        sought = f"key{separator}{'value' if separator == '=' else 'jsonpath'}"
        message = f"When looking for '{sought}', the '{separator}' is mandatory."
        raise Invalid(f"{message} The left part is a key name, and the right part is what to look for.")
    return key, value


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"'{key}' must be a string but was: '{value}'")
    return value or ""


def _required(document: Mapping[str, Any], key: str) -> str:
    text = _text(document, key)
    if not text:
        raise Invalid(f"Missing expected '{key}' query parameter")
    return text


def _canonical(text: str, names: Iterable[str]) -> str | None:
    return next((name for name in names if name.lower() == text.lower()), None)


def _value(document: Mapping[str, Any], attribute: Attribute, comparator: str, label: str) -> str:
    if document.get("value") is None:
        raise Invalid(f"Missing required value for comparator '{comparator}' in criterion '{label}'")
    value = _text(document, "value")
    if not value:
        raise Invalid("Empty string not allowed")
    if "\x00" in value:
        raise Invalid(f"The value of criterion '{label}' has a character that no text can have (NUL)")
    if comparator in ("regex", "notRegex"):
        java_regexes.parse(value)
        return value
    return _checked(value, attribute, comparator)


def _checked(value: str, attribute: Attribute, comparator: str) -> str:
    match attribute.kind:
        case Kind.LONG if _LONG.fullmatch(value.strip()) is None:
            raise Invalid(f"Invalid number: '{value}'")
        case Kind.MEMORY if parse_memory(value) is None:
            raise Invalid(f"Invalid memory size: '{value}', expecting '300 MB', '16KB', etc")
        case Kind.DATE:
            parse_date(value)
        case Kind.ENUMERATION:
            return _chosen(value, attribute)
        case Kind.PROPERTY | Kind.ENVIRONMENT if comparator in ("eq", "notEq"):
            split_pair(value)
        case Kind.PROPERTY if comparator == "jsonSelect":
            split_pair(value, ":")
    return value


def _chosen(value: str, attribute: Attribute) -> str:
    known = _canonical(value, attribute.choices)
    if known is None:
        choices = ", ".join(attribute.choices)
        raise Invalid(f"Invalid value '{value}' for attribute '{attribute.name}'. Possible values: [{choices}]")
    return known
