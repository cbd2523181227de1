# SPDX-License-Identifier: Apache-2.0
"""Techniques as YAML documents, format 1, read and written without loss.

To the format that editors of techniques know we add `multi_instance`, `sections` (groups of parameters, which may
be repeated), and for items `foreach` and `when`. Scalars are taken as they are written: `0644` and `1.0` stay text.
Whether the technique makes sense is for `core/technique_checks.py` to say.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import TechniqueId
from quarterdeck.core.techniques import (
    DEFAULT_CATEGORY,
    PARAMETERS_SECTION,
    Block,
    Call,
    Constraints,
    Item,
    Technique,
    TechniqueParameter,
)

MAX_LENGTH = 4 * 1024 * 1024
MAX_NESTING = 64
DEFAULT_TYPE = "multiline-string"
_IDS = uuid.UUID("5c1f7f0e-6a1e-4f3c-9a55-0d5d3f2f7b11")
_TECHNIQUE_KEYS = [
    *("format", "id", "name", "version", "description", "documentation", "category", "tags", "params", "items"),
    *("policy_mode_override", "multi_instance", "sections"),
]
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def read(text: str) -> Technique:
    """The technique of a document. Raises Invalid, whose message says the line."""
    document = _Mapping(_compose(text), "technique")
    document.only(_TECHNIQUE_KEYS)
    if document.text("format", "1") != "1":
        raise document.wrong("format", "Only format 1 is known")
    if document.text("policy_mode_override", "none") != "none":
        raise document.wrong("policy_mode_override", "Overriding the policy mode is not supported")
    identity, version = document.text("id"), document.text("version")
    parameters, repeated = _read_parameters(document)
    return Technique(
        id=TechniqueId(identity),
        version=version,
        name=document.text("name"),
        category=document.text("category", DEFAULT_CATEGORY),
        description=document.text("description", ""),
        documentation=document.text("documentation", ""),
        items=_read_items(document, f"{identity}/{version}"),
        parameters=parameters,
        repeated=repeated,
        multi_instance=document.flag("multi_instance", default=True),
        tags=document.plain("tags"),
    )


def _compose(text: str) -> yaml.Node:
    if len(text) > MAX_LENGTH:
        raise Invalid(f"A technique has at most {MAX_LENGTH} characters.")
    try:
        _guard(text)
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise Invalid(f"{line}Not YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"Not YAML: {error}") from error
    if node is None:
        raise Invalid("line 1: The document is empty.")
    return node


def _guard(text: str) -> None:
    """Refuse what makes a small document large or deep. Raises Invalid or YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, "Aliases are not supported")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            raise _error(event, f"Nested more than {MAX_NESTING} levels deep")


class _Mapping:
    """A mapping node with typed access; every error names the line."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise _error(node, f"A {what} must be a mapping")
        self.node = node
        self.what = what
        self.fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, f"A key of a {what} must be text")
            if key.value in self.fields:
                raise _error(key, f"'{key.value}' is given twice")
            self.fields[key.value] = value

    def only(self, known: list[str]) -> None:
        """Raises Invalid for a key that is not known."""
        for name, value in self.fields.items():
            if name not in known:
                raise _error(value, f"A {self.what} has no '{name}'")

    def wrong(self, name: str, message: str) -> Invalid:
        """An error at the value of `name`, or at the mapping when that is missing."""
        return _error(self.fields.get(name, self.node), message)

    def text(self, name: str, default: str | None = None) -> str:
        """The scalar as it is written; the default None means mandatory."""
        node = self.fields.get(name)
        if node is None:
            if default is None:
                raise _error(self.node, f"A {self.what} needs '{name}'")
            return default
        return _scalar(node, name)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        text = self.text(name, "true" if default else "false").lower()
        if text not in _TRUE + _FALSE:
            raise self.wrong(name, f"'{name}' must be true or false")
        return text in _TRUE

    def list(self, name: str) -> Iterator[yaml.Node]:
        """The elements of a list, none when it is missing."""
        node = self.fields.get(name)
        if node is None:
            return iter(())
        if not isinstance(node, yaml.SequenceNode):
            raise _error(node, f"'{name}' must be a list")
        return iter(node.value)

    def mapping(self, name: str, what: str) -> _Mapping | None:
        """A mapping inside, if there is one."""
        node = self.fields.get(name)
        return None if node is None else _Mapping(node, what)

    def plain(self, name: str) -> dict[str, Any]:
        """An object of any JSON values."""
        node = self.fields.get(name)
        value = {} if node is None else _plain(node)
        if not isinstance(value, dict):
            raise self.wrong(name, f"'{name}' must be a mapping")
        return value


def _error(at: yaml.Node | yaml.Event, message: str) -> Invalid:
    mark = at.start_mark
    return Invalid(f"line {mark.line + 1}: {message}" if mark else message)


def _scalar(node: yaml.Node, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _error(node, f"'{name}' must be text")
    return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(one) for one in node.value]
    if isinstance(node, yaml.MappingNode):
        mapping = _Mapping(node, "mapping")
        return {name: _plain(value) for name, value in mapping.fields.items()}
    return _plain_scalar(node)


def _plain_scalar(node: yaml.Node) -> Any:
    kind = node.tag.rpartition(":")[2]
    text = str(node.value)
    try:
        if kind == "bool":
            return text.lower() in _TRUE
        if kind == "null":
            return None
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        return text
    return text


def _read_parameters(document: _Mapping) -> tuple[tuple[TechniqueParameter, ...], frozenset[str]]:
    found = [_read_parameter(node, PARAMETERS_SECTION) for node in document.list("params")]
    repeated, names = set(), {PARAMETERS_SECTION}
    for node in document.list("sections"):
        section = _Mapping(node, "section")
        section.only(["name", "repeated", "params"])
        name = section.text("name")
        if name in names:
            raise section.wrong("name", f"The section '{name}' is given twice")
        names.add(name)
        if section.flag("repeated", default=False):
            repeated.add(name)
        found.extend(_read_parameter(one, name) for one in section.list("params"))
    return tuple(found), frozenset(repeated)


def _read_parameter(node: yaml.Node, section: str) -> TechniqueParameter:
    fields = _Mapping(node, "parameter")
    fields.only(["id", "name", "description", "documentation", "type", "default", "constraints"])
    name = fields.text("name")
    return TechniqueParameter(
        id=fields.text("id", name),
        name=name,
        description=fields.text("description", ""),
        documentation=fields.text("documentation", ""),
        type=fields.text("type", DEFAULT_TYPE),
        default=fields.text("default") if "default" in fields.fields else None,
        constraints=_read_constraints(fields),
        section=section,
    )


def _read_constraints(parameter: _Mapping) -> Constraints:
    fields = parameter.mapping("constraints", "constraint")
    if fields is None:
        return Constraints()
    fields.only(["allow_empty", "regex", "select", "password_hashes"])
    regex = fields.mapping("regex", "regex")
    if regex is not None:
        regex.only(["value", "error_message"])
    choices = [_Mapping(node, "choice") for node in fields.list("select")]
    for choice in choices:
        choice.only(["value", "name"])
    return Constraints(
        may_be_empty=fields.flag("allow_empty", default=False),
        regex=regex.text("value") if regex else "",
        regex_message=regex.text("error_message", "") if regex else "",
        select=tuple(choice.text("value") for choice in choices),
        labels={choice.text("value"): choice.text("name") for choice in choices if "name" in choice.fields},
        password_hashes=tuple(fields.text("password_hashes", "").replace(",", " ").split()),
    )


def _read_items(parent: _Mapping, path: str) -> tuple[Item, ...]:
    nodes = parent.list("items")
    return tuple(_read_item(_Mapping(node, "technique item"), f"{path}/{number}") for number, node in enumerate(nodes))


def _read_item(fields: _Mapping, path: str) -> Item:
    identity = fields.text("id", str(uuid.uuid5(_IDS, path)))
    condition = fields.text("condition", "any")
    condition = {"true": "any", "false": "false"}.get(condition.lower(), condition)
    if "items" in fields.fields:
        fields.only(["id", "name", "items", "condition", "tags", "reporting", "foreach", "when"])
        return Block(
            id=identity,
            component=fields.text("name"),
            condition=condition,
            logic=_read_logic(fields),
            items=_read_items(fields, path),
            foreach=fields.text("foreach", ""),
            when=fields.text("when", ""),
            tags=fields.plain("tags"),
        )
    fields.only(["id", "name", "method", "params", "condition", "tags", "reporting", "when"])
    params = fields.mapping("params", "mapping of parameters")
    return Call(
        id=identity,
        method=fields.text("method"),
        component=fields.text("name", ""),
        condition=condition,
        parameters={name: _scalar(value, name) for name, value in params.fields.items()} if params else {},
        report=_read_reporting(fields),
        when=fields.text("when", ""),
        tags=fields.plain("tags"),
    )


def _read_logic(block: _Mapping) -> str:
    reporting = block.mapping("reporting", "reporting")
    if reporting is None:
        return "weighted"
    reporting.only(["mode", "id"])
    mode = reporting.text("mode", "weighted")
    return f"focus:{reporting.text('id')}" if mode == "focus" else mode


def _read_reporting(call: _Mapping) -> bool:
    reporting = call.mapping("reporting", "reporting")
    if reporting is None:
        return True
    reporting.only(["mode"])
    mode = reporting.text("mode", "enabled")
    if mode not in ("enabled", "disabled"):
        raise reporting.wrong("mode", "The reporting of a call is enabled or disabled")
    return mode == "enabled"


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines stand as blocks, where that keeps every character."""

    def ignore_aliases(self, data: Any) -> bool:  # the signature is the library's
        return True


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    as_block = "\n" in text and not any(char in text for char in "\r\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if as_block else None)


_Dumper.add_representer(str, _represent_text)


def write(technique: Technique) -> str:
    """The document of a technique. Source, resources and whether it is enabled are not part of it."""
    sections = dict.fromkeys(parameter.section for parameter in technique.parameters)
    document = {
        "format": 1,
        "id": str(technique.id),
        "name": technique.name,
        "version": technique.version,
        **_given(description=technique.description, documentation=technique.documentation),
        "category": technique.category,
        **_given(tags=dict(technique.tags), multi_instance=None if technique.multi_instance else False),
        **_given(params=_write_section(technique, PARAMETERS_SECTION)),
        **_given(
            sections=[
                {
                    "name": name,
                    **_given(repeated=True if name in technique.repeated else None),
                    "params": _write_section(technique, name),
                }
                for name in sections
                if name != PARAMETERS_SECTION
            ]
        ),
        "items": [_write_item(item) for item in technique.items],
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _write_section(technique: Technique, name: str) -> list[dict[str, Any]]:
    return [_write_parameter(parameter) for parameter in technique.parameters if parameter.section == name]


def _write_parameter(parameter: TechniqueParameter) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": parameter.id,
        "name": parameter.name,
        **_given(description=parameter.description, documentation=parameter.documentation),
        **_given(type=parameter.type if parameter.type != DEFAULT_TYPE else None),
    }
    if parameter.default is not None:
        fields["default"] = parameter.default
    return {**fields, **_given(constraints=_write_constraints(parameter.constraints))}


def _write_constraints(constraints: Constraints) -> dict[str, Any]:
    labels: Mapping[str, str] = constraints.labels
    regex = {"value": constraints.regex, **_given(error_message=constraints.regex_message)} if constraints.regex else {}
    return _given(
        allow_empty=constraints.may_be_empty or None,
        regex=regex,
        select=[
            {"value": value, **({"name": labels[value]} if value in labels else {})} for value in constraints.select
        ],
        password_hashes=", ".join(constraints.password_hashes),
    )


def _write_item(item: Item) -> dict[str, Any]:
    condition = {} if item.condition == "any" else {"condition": item.condition}
    if isinstance(item, Call):
        return {
            "id": item.id,
            **_given(name=item.component),
            **condition,
            **_given(when=item.when, tags=dict(item.tags)),
            "method": item.method,
            "params": dict(item.parameters),
            **_given(reporting=None if item.report else {"mode": "disabled"}),
        }
    mode, _, focus = item.logic.partition(":")
    reporting = {"mode": mode, **_given(id=focus)} if item.logic != "weighted" else {}
    return {
        "id": item.id,
        "name": item.component,
        **condition,
        **_given(when=item.when, foreach=item.foreach, tags=dict(item.tags)),
        **_given(reporting=reporting),
        "items": [_write_item(one) for one in item.items],
    }
