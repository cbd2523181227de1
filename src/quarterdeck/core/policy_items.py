# SPDX-License-Identifier: Apache-2.0
"""A directive turned into what an agent gets: its technique's calls with the directive's values in place.

The result is a `Fragment`: canonical JSON in which a value that depends on the node is left as a hole, so that
one fragment serves all nodes. Only where such a value decides which calls stand there at all are there several.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from quarterdeck.core import variables
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import RuleId
from quarterdeck.core.methods import Method
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.techniques import Block, Call, Item, Technique, TechniqueParameter

#: JSON bytes that are equal for equal documents; the agent's contract, `formats/agent.py`, checks that it agrees.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
#: Stands around a hole's name in a fragment's bytes: the one byte that JSON text never has in a string.
HOLE = b"\x00"
#: Stands around a hole's number while the document is a Python object: no UTF-8 text contains it.
_MARK = "\udfff"
_MARKED = re.compile(f"{_MARK}([0-9]+){_MARK}")
DEFAULT_LOGIC = "weighted"
_NOT_TEXT = "A value contains characters that no text can have (lone surrogates)."
_CLAUSE = re.compile(r"(!?)([A-Za-z0-9_-]+)(?:\s*(==|!=)\s*(.*))?")
_SCRIPT = re.compile(r"(?:plain:)?eval(?:js)?:")
_HASHED = re.compile(r"[a-z0-9-]+:")


@dataclass(frozen=True, slots=True)
class Fragment:
    """One directive as one rule brings it: JSON bytes with holes, and what fills them."""

    digest: str
    body: bytes
    holes: tuple[variables.Reference, ...]


class NeedsNode(Exception):
    """What the fragment looks like depends on these values of the node."""

    def __init__(self, references: Iterable[variables.Reference]) -> None:
        super().__init__()
        self.references = tuple(references)


def canonical(document: Any) -> bytes:
    """JSON bytes that are equal for equal documents: sorted keys, no blanks, UTF-8."""
    return _ENCODER.encode(document).encode()


def fill(body: bytes, values: Mapping[str, str]) -> bytes:
    """A fragment's bytes for one node: holes filled by name. Raises KeyError when a value is missing."""
    if HOLE not in body:
        return body
    parts = body.split(HOLE)
    parts[1::2] = [encode_basestring(values[name.decode()])[1:-1].encode() for name in parts[1::2]]
    return b"".join(parts)


def compile_fragment(
    technique: Technique,
    directive: Directive,
    rule: RuleId,
    mode: PolicyMode,
    *,
    scope: variables.Scope,
    methods: Mapping[str, Method],
    known: Mapping[str, str],
) -> Fragment:
    """Expand a directive; `known` holds node values, by the key of their reference, that decide its structure.

    Raises NeedsNode when more of them are needed, Invalid when the directive cannot be expanded.
    """
    if _MARK in directive.name:
        raise Invalid(_NOT_TEXT)
    expansion = _Expansion(technique, methods, known)
    items = expansion.items(technique.items, _values(technique, directive, scope), "")
    document = {
        "rule": rule,
        "directive": directive.id,
        "name": directive.name,
        "technique": technique.id,
        "version": technique.version,
        "mode": mode.value,
        "items": items,
    }
    if technique.resources:
        document["resources"] = [
            {"path": one.path, "sha256": one.sha256, "size": one.size} for one in technique.resources
        ]
    return _fragment(document, expansion.holes)


def contents_of(body: bytes) -> tuple[str, ...]:
    """The digests (SHA-256, hex) of the resources that a fragment's bytes name, each once."""
    if b'"resources":' not in body:
        return ()
    document = json.loads(body.replace(HOLE, b""))
    return tuple(sorted({one["sha256"] for one in document.get("resources", ())}))


def _fragment(document: dict[str, Any], holes: list[variables.Reference]) -> Fragment:
    hole = HOLE.decode()
    text = _MARKED.sub(lambda found: f"{hole}{holes[int(found[1])].key}{hole}", _ENCODER.encode(document))
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(_NOT_TEXT) from error
    return Fragment(hashlib.sha256(body).hexdigest(), body, tuple(holes))


@dataclass(frozen=True, slots=True)
class Values:
    """A directive's values by parameter name, bound; repeated sections have one mapping per instance."""

    single: Mapping[str, variables.Template]
    repeated: Mapping[str, tuple[Mapping[str, variables.Template], ...]]


def _values(technique: Technique, directive: Directive, scope: variables.Scope) -> Values:
    single = {}
    sections: dict[str, list[dict[str, variables.Template]]] = {name: [] for name in technique.repeated}
    for parameter in technique.parameters:
        given = directive.parameters.get(parameter.id, ())
        templates = [_bind(parameter, value, scope) for value in given or (parameter.default or "",)]
        single[parameter.name] = templates[0]
        if parameter.section in sections:
            _add_instances(sections[parameter.section], parameter.name, templates)
    _complete(technique, sections, scope)
    return Values(single, {name: tuple(instances) for name, instances in sections.items()})


def _add_instances(instances: list[dict[str, variables.Template]], name: str, values: list[variables.Template]) -> None:
    while len(instances) < len(values):
        instances.append({})
    for instance, value in zip(instances, values, strict=False):
        instance[name] = value


def _complete(
    technique: Technique, sections: Mapping[str, list[dict[str, variables.Template]]], scope: variables.Scope
) -> None:
    for parameter in technique.parameters:
        for instance in sections.get(parameter.section, ()):
            if parameter.name not in instance:
                instance[parameter.name] = _bind(parameter, parameter.default or "", scope)


def _bind(parameter: TechniqueParameter, value: str, scope: variables.Scope) -> variables.Template:
    if _SCRIPT.match(value):
        raise Invalid(f"The value of '{parameter.name}' is a script, and scripts in directives are not supported.")
    if parameter.type == "password":
        value = _HASHED.sub("", value, count=1) if _HASHED.match(value) else value
    template = scope.bind(variables.parse(value))
    if any(_MARK in part for part in template.parts if isinstance(part, str)):
        raise Invalid(_NOT_TEXT)
    return template


class _Expansion:
    """The walk through one technique's items; `holes` grows as values that depend on the node are met."""

    def __init__(self, technique: Technique, methods: Mapping[str, Method], known: Mapping[str, str]) -> None:
        self.holes: list[variables.Reference] = []
        self._numbers: dict[str, int] = {}
        self._technique = technique
        self._own = re.compile(r"\$\{\s*" + re.escape(technique.id) + r"\.([A-Za-z0-9_-]+)\s*\}")
        self._methods = methods
        self._known = known

    def items(self, items: Iterable[Item], values: Values, suffix: str) -> list[dict[str, Any]]:
        """The documents of these items; `suffix` tells instances of a repeated section apart."""
        documents: list[dict[str, Any]] = []
        for item in items:
            if isinstance(item, Call):
                if self._holds(item.when, values.single):
                    documents.append(self._call(item, values, suffix))
                continue
            for inner, inner_suffix in self._instances(item, values, suffix):
                if self._holds(item.when, inner.single):
                    documents.extend(self._block(item, inner, inner_suffix))
        return documents

    def _instances(self, block: Block, values: Values, suffix: str) -> Iterator[tuple[Values, str]]:
        if not block.foreach:
            yield values, suffix
            return
        for number, instance in enumerate(values.repeated.get(block.foreach, ())):
            yield Values({**values.single, **instance}, values.repeated), f"{suffix}-{number}"

    def _block(self, block: Block, values: Values, suffix: str) -> list[dict[str, Any]]:
        items = self.items(block.items, values, suffix)
        if block.logic == "disabled":
            _silence(items)
        if not items:
            return []
        document = {
            "type": "block",
            "id": block.id + suffix,
            "component": self._text(block.component, values.single),
            "condition": self._condition(block.condition, values.single),
            "logic": _logic(block, suffix),
            "items": items,
        }
        return [document]

    def _call(self, call: Call, values: Values, suffix: str) -> dict[str, Any]:
        method = self._methods.get(call.method)
        given = method.arguments(call.parameters) if method else call.parameters
        params = {name: self._text(text, values.single) for name, text in given.items()}
        value = params.get(method.class_parameter, "") if method else ""
        return {
            "type": "call",
            "id": call.id + suffix,
            "component": self._text(call.component, values.single) or (method.name if method else call.method),
            "method": call.method,
            "value": value or "None",
            "params": params,
            "condition": self._condition(call.condition, values.single),
            "report": call.report,
        }

    def _parts(self, text: str, values: Mapping[str, variables.Template]) -> Iterator[tuple[bool, variables.Template]]:
        """The text cut into (comes from a parameter, template)."""
        pieces = self._own.split(text)
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                yield False, variables.parse_technique_text(piece)
            elif piece in values:
                yield True, values[piece]
            else:
                yield False, variables.literal("${" + f"{self._technique.id}.{piece}" + "}")

    def _text(self, text: str, values: Mapping[str, variables.Template]) -> str:
        """The text with holes marked."""
        if _MARK in text:
            raise Invalid(_NOT_TEXT)
        if "${" not in text:
            return text
        return "".join(self._marked(template) for _, template in self._parts(text, values))

    def _marked(self, template: variables.Template) -> str:
        return "".join(part if isinstance(part, str) else self._mark(part) for part in template.parts)

    def _mark(self, reference: variables.Reference) -> str:
        key = reference.key
        if key in self._known:
            if _MARK in self._known[key]:
                raise Invalid(_NOT_TEXT)
            return self._known[key]
        if key not in self._numbers:
            self._numbers[key] = len(self.holes)
            self.holes.append(reference)
        return f"{_MARK}{self._numbers[key]}{_MARK}"

    def _plain(self, template: variables.Template) -> str:
        """The template's text; raises NeedsNode when that is not known yet."""
        missing = [part for part in template.parts if not isinstance(part, str) and part.key not in self._known]
        if missing:
            raise NeedsNode(missing)
        return "".join(part if isinstance(part, str) else self._known[part.key] for part in template.parts)

    def _condition(self, text: str, values: Mapping[str, variables.Template]) -> str:
        """A class expression; a value inside it becomes part of a name, one that is all of it may be an expression."""
        if "${" in text:
            parts = list(self._parts(text.strip(), values))
            filled = [(own, template) for own, template in parts if own or template.parts]
            if len(filled) == 1 and filled[0][0]:
                text = self._plain(filled[0][1])
            else:
                text = "".join(self._marked(variables.canonified(one, literals=own)) for own, one in filled)
        text = text.strip()
        return {"": "any", "true": "any", "false": "!any"}.get(text, text)

    def _holds(self, when: str, values: Mapping[str, variables.Template]) -> bool:
        return not when or any(
            all(_clause_holds(self._plain(_named(values, name)), test) for name, test in clauses)
            for clauses in read_when(when)
        )


def _named(values: Mapping[str, variables.Template], name: str) -> variables.Template:
    if name not in values:
        raise Invalid(f"'when' names no parameter: '{name}'")
    return values[name]


def _silence(items: Iterable[dict[str, Any]]) -> None:
    for item in items:
        if item["type"] == "call":
            item["report"] = False
        else:
            _silence(item["items"])


def _logic(block: Block, suffix: str) -> str:
    if block.logic == "disabled":
        return DEFAULT_LOGIC
    kind, _, target = block.logic.partition(":")
    if suffix and kind == "focus" and target in {item.id for item in block.items}:
        return f"{block.logic}{suffix}"
    return block.logic


@dataclass(frozen=True, slots=True)
class Test:
    """What a clause asks of a value: to be among `choices` (None: to be set and not "false"), or not."""

    choices: tuple[str, ...] | None
    negated: bool


def read_when(when: str) -> list[list[tuple[str, Test]]]:
    """Read `name`, `!name`, `name == a|b`, `name != a|b`, joined by `and`, and those by `or`.

    One list per alternative, (parameter name, test) each. Raises Invalid when it has another form.
    """
    return [
        [_read_clause(clause, when) for clause in re.split(r"\s+and\s+", alternative)]
        for alternative in re.split(r"\s+or\s+", when.strip())
    ]


def _read_clause(clause: str, when: str) -> tuple[str, Test]:
    found = _CLAUSE.fullmatch(clause)
    if found is None or (found[1] and found[3]):
        raise Invalid(f"'when' must be of the form NAME, !NAME, NAME == A|B or NAME != A|B but was: '{when}'")
    choices = tuple(choice.strip() for choice in found[4].split("|")) if found[3] else None
    return found[2], Test(choices, bool(found[1]) or found[3] == "!=")


def _clause_holds(value: str, test: Test) -> bool:
    fits = value not in ("", "false") if test.choices is None else value in test.choices
    return fits != test.negated
