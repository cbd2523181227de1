# SPDX-License-Identifier: Apache-2.0
"""Variables in directive values: `${rudder.node.*}`, `${rudder.param.*}`, `${node.properties[..]}` and their kin.

A text is parsed once into a `Template`; a `Scope` replaces what is the same for the whole fleet (global
parameters), so that what is left depends on the node; `resolve` gives a reference's text on one node.
Variables of the agent, and `${technique_id.parameter}` (see `policy_items`), pass untouched.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quarterdeck.core.errors import Invalid

#: How deep parameters may name other parameters.
MAX_DEPTH = 5

NODE_FIELDS = ("id", "hostname", "admin", "state", "policymode")
SERVER_FIELDS = ("id", "hostname", "admin")

_START = re.compile(r"\$\{\s*(?:(rudder|node)\s*\.|(?:rudder-)?data\s*\.\s*([\w-]+)\s*\[)", re.IGNORECASE)
_WORD = re.compile(r"\s*([A-Za-z0-9_-]+)\s*")
_INDEX = re.compile(r"\s*\[\s*([^\s\x00-\x1f\x7f\"${}\[\]]+)\s*\]\s*")
_OPTION = re.compile(r"\s*\|\s*(node|default\s*=)\s*", re.IGNORECASE)
_TEXT = re.compile(r'"""(.*?)"""|"([^"]*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of the node (`("node", "id")`) or of its policy server (`("policyserver", "hostname")`)."""

    of: str
    name: str

    @property
    def key(self) -> str:
        """The reference's canonical name: equal for references that mean the same."""
        return f"rudder.{self.of}.{self.name}" if self.of == "node" else f"rudder.node.{self.of}.{self.name}"


@dataclass(frozen=True, slots=True)
class ParameterReference:
    """A global parameter, or a value inside it."""

    path: tuple[str, ...]

    @property
    def key(self) -> str:
        """The reference's canonical name: equal for references that mean the same."""
        return "rudder.parameters" + "".join(f"[{part}]" for part in self.path)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a property is worth on a node that has it from a global parameter: the parameter's value, bound."""

    value: Any
    template: Template


@dataclass(frozen=True, slots=True)
class PropertyReference:
    """A merged property of the node, or a value inside it."""

    path: tuple[str, ...]
    default: Template | None = None
    inherited: Inherited | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The reference's canonical name: equal for references that mean the same."""
        name = "node.properties" + "".join(f"[{part}]" for part in self.path)
        if self.default is None:
            return name
        parts = [part if isinstance(part, str) else [part.key] for part in self.default.parts]
        return f"{name}|{json.dumps(parts, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class Canonified:
    """Another reference's text, as part of the name of an agent's condition."""

    reference: Fact | PropertyReference

    @property
    def key(self) -> str:
        """The reference's canonical name: equal for references that mean the same."""
        return f"canonify({self.reference.key})"


#: What stays in a bound template.
NodeReference = Fact | PropertyReference | Canonified
Reference = NodeReference | ParameterReference
Part = str | Reference
_P = TypeVar("_P", bound=Part)


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and references, in order; bound when no parameter reference is left."""

    parts: tuple[Part, ...]

    @property
    def literal(self) -> str | None:
        """The text, if it is the same everywhere."""
        if not self.parts:
            return ""
        first = self.parts[0]
        return first if len(self.parts) == 1 and isinstance(first, str) else None

    def references(self) -> Iterable[Reference]:
        """Its references, those inside defaults left out."""
        return (part for part in self.parts if not isinstance(part, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A node as variables see it. `facts` maps (of, name) of a `Fact` to its text."""

    id: str
    hostname: str
    properties: Mapping[str, Any]
    facts: Mapping[tuple[str, str], str]


def join(parts: Iterable[Part]) -> Template:
    """A template of literals and references, neighbouring literals made one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif part != "":
            joined.append(part)
    return Template(tuple(joined))


def canonify(text: str) -> str:
    """A text as part of the name of an agent's condition."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def canonified(template: Template, *, literals: bool) -> Template:
    """A bound template whose text on a node is the canonified text of this one; `literals`: of its literals too."""
    parts: list[Part] = []
    for part in template.parts:
        if isinstance(part, str):
            parts.append(canonify(part) if literals else part)
        elif isinstance(part, (Fact, PropertyReference)):
            parts.append(Canonified(part))
        else:
            parts.append(part)
    return Template(tuple(parts))


def literal(text: str) -> Template:
    """A template of this text as it stands."""
    return Template((text,)) if text else Template(())


def parse(text: str) -> Template:
    """Read a value. Raises Invalid when a variable of the server is malformed or unknown."""
    return _parse(text, own=False) if "${" in text else literal(text)


def parse_technique_text(text: str) -> Template:
    """Read a text that a technique's author wrote: what the server does not know is left to the agent.

    So are plain `${node.properties[..]}`: a missing one then fails one component, not the node's whole policy.
    """
    return _parse(text, own=True) if "${" in text else literal(text)


@functools.lru_cache(maxsize=16384)
def _parse(text: str, *, own: bool) -> Template:
    parts: list[Part] = []
    position = 0
    while found := _START.search(text, position):
        parts.append(text[position : found.start()])
        reader = _Reader(text, found.start())
        try:
            part = reader.variable()
        except Invalid:
            if not own:
                raise
            part, reader.position = found[0], found.end()
        if own and isinstance(part, PropertyReference) and part.default is None:
            part = text[found.start() : reader.position]
        parts.append(part)
        position = reader.position
    parts.append(text[position:])
    return join(parts)


class _Reader:
    """Reads one variable of `text`, beginning at `position`."""

    def __init__(self, text: str, position: int) -> None:
        self.depth = 0
        self.text = text
        self.start = position
        self.position = position

    def variable(self) -> Part:
        """The reference at the position, or the text that it is replaced by."""
        found = _START.match(self.text, self.position)
        if found is None:
            raise self._wrong("a variable was expected")
        self.position = found.end()
        if engine := found[2]:
            raise Invalid(f"Unknown property engine '{engine}' in '{self.text}'")
        return self._rudder() if found[1].lower() == "rudder" else self._node()

    def _rudder(self) -> Reference:
        kind = self._word()
        if kind == "node":
            return self._end(self._fact())
        if kind == "param":
            self._dot()
            return self._end(ParameterReference((self._word(lower=False),)))
        if kind == "parameters":
            return self._end(ParameterReference(self._path()))
        raise self._unknown()

    def _fact(self) -> Fact:
        self._dot()
        name, of = self._word(), "node"
        if name == "policyserver":
            self._dot()
            name, of = self._word(), "policyserver"
        if name not in (NODE_FIELDS if of == "node" else SERVER_FIELDS):
            raise self._unknown()
        return Fact(of, name)

    def _node(self) -> Part:
        if self._word() != "properties":
            raise self._unknown()
        path = self._path()
        option = _OPTION.match(self.text, self.position)
        if option is None:
            return self._end(PropertyReference(path))
        self.position = option.end()
        if option[1].lower() == "node":
            return self._end("${node.properties" + "".join(f"[{part}]" for part in path) + "}")
        return self._end(PropertyReference(path, self._default()))

    def _default(self) -> Template:
        text = _TEXT.match(self.text, self.position)
        if text is None:
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self._wrong(f"defaults are nested more than {MAX_DEPTH} levels deep")
            return join([self.variable()])
        self.position = text.end()
        return literal(text[1] if text[1] is not None else text[2])

    def _path(self) -> tuple[str, ...]:
        path = []
        while index := _INDEX.match(self.text, self.position):
            path.append(index[1])
            self.position = index.end()
        if not path:
            raise self._wrong("a name in brackets was expected")
        return tuple(path)

    def _word(self, *, lower: bool = True) -> str:
        found = _WORD.match(self.text, self.position)
        if found is None:
            raise self._wrong("a name was expected")
        self.position = found.end()
        return found[1].lower() if lower else found[1]

    def _dot(self) -> None:
        if not self.text.startswith(".", self.position):
            raise self._unknown()
        self.position += 1

    def _end(self, value: _P) -> _P:
        rest = self.text[self.position :]
        blanks = len(rest) - len(rest.lstrip())
        if not rest.startswith("}", blanks):
            raise self._wrong("'}' was expected")
        self.position += blanks + 1
        return value

    def _unknown(self) -> Invalid:
        end = self.text.find("}", self.start)
        if end < 0:
            return self._wrong("'}' was expected")
        return Invalid(f"Unknown interpolated variable {self.text[self.start : end + 1]}")

    def _wrong(self, why: str) -> Invalid:
        return Invalid(f"Error when parsing value (without ''): '{self.text}': {why} at character {self.position + 1}")


class Scope:
    """What variables mean in the whole fleet: the global parameters, name -> any JSON value."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def bind(self, template: Template, depth: int = 0) -> Template:
        """Replace parameters by their values, so that only what depends on the node is left.

        Raises Invalid when a parameter does not exist or parameters name each other too deeply.
        """
        if depth > MAX_DEPTH:
            raise Invalid(f"Parameters are nested more than {MAX_DEPTH} levels deep: this is a circular dependency")
        if template.literal is not None:
            return template
        parts: list[Part] = []
        for part in template.parts:
            if isinstance(part, ParameterReference):
                parts.extend(self._parameter(part.path, depth).parts)
            elif isinstance(part, PropertyReference):
                parts.append(self._property(part, depth))
            else:
                parts.append(part)
        return join(parts)

    def _parameter(self, path: tuple[str, ...], depth: int) -> Template:
        value = look_up(self._parameters, path)
        if value is _ABSENT:
            raise Invalid("Missing parameter '${node.parameter" + "".join(f"[{part}]" for part in path) + "}'")
        return self._content(value, depth)

    def _content(self, value: Any, depth: int) -> Template:
        return self.bind(parse(value), depth + 1) if isinstance(value, str) else literal(show(value))

    def _property(self, reference: PropertyReference, depth: int) -> PropertyReference:
        default = reference.default and self.bind(reference.default, depth)
        value = look_up(self._parameters, reference.path)
        inherited = None
        if value is not _ABSENT:
            inherited = Inherited(self._parameters[reference.path[0]], self._content(value, depth))
        return PropertyReference(reference.path, default, inherited)


class _Absent:
    pass


_ABSENT = _Absent()


def look_up(tree: Any, path: Iterable[str]) -> Any:
    """The value at a path of nested objects, or a mark that equals nothing else."""
    for part in path:
        if not isinstance(tree, Mapping) or part not in tree:
            return _ABSENT
        tree = tree[part]
    return tree


def show(value: Any) -> str:
    """A JSON value as text inside a directive: strings as they are, null as nothing, the rest as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def resolve(reference: Reference, subject: Subject) -> str:
    """The text of a bound reference on one node. Raises Invalid when the node lacks the property.

    The text of a node's own property is never read for variables: an agent may have sent it.
    """
    assert not isinstance(reference, ParameterReference), "the template was not bound"
    if isinstance(reference, Canonified):
        return canonify(resolve(reference.reference, subject))
    if isinstance(reference, Fact):
        return subject.facts[reference.of, reference.name]
    value = look_up(subject.properties, reference.path)
    inherited = reference.inherited
    if inherited is not None and (value is _ABSENT or subject.properties[reference.path[0]] == inherited.value):
        return render(inherited.template, subject)
    if value is not _ABSENT:
        return show(value)
    if reference.default is not None:
        return render(reference.default, subject)
    name = "${node.properties" + "".join(f"[{part}]" for part in reference.path) + "}"
    raise Invalid(f"Missing property '{name}' on node '{subject.hostname}' [{subject.id}]")


def render(template: Template, subject: Subject) -> str:
    """A bound template's text on one node. Raises Invalid as `resolve` does."""
    return "".join(part if isinstance(part, str) else resolve(part, subject) for part in template.parts)
