# SPDX-License-Identifier: Apache-2.0
"""A renderer for mustache templates: variables, sections, inverted sections, comments, own delimiters.

`{{x}}` is HTML-escaped, `{{{x}}}` and `{{&x}}` are not; `{{.}}` is the current item, `{{@}}` its key
in a dictionary, `{{%x}}` the value as JSON on several lines, `{{$x}}` on one. There are no partials.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from typing import List, Tuple, Union

from quarterdeck_agent.methods.system import UnableError


@dataclass
class _Section:
    name: str
    inverted: bool = False
    parts: List[_Part] = field(default_factory=list)


@dataclass(frozen=True)
class _Tag:
    kind: str
    name: str


_Part = Union[str, _Tag, _Section]


@dataclass(frozen=True)
class _Scope:
    """One level of what names mean: a value, and the key it had in a dictionary."""

    value: object
    key: str = ""


_MISSING = object()


def render(template: str, data: object) -> str:
    """The template filled with `data` (dictionaries, lists, texts, numbers, booleans).

    Names that mean nothing become empty, as mustache wants. Raises UnableError for a template that
    cannot be read.
    """
    out: List[str] = []
    _render(_parse(template).parts, [_Scope(data)], out)
    return "".join(out)


def _parse(template: str) -> _Section:
    stack = [_Section("")]
    left, right, position = "{{", "}}", 0
    while True:
        start = template.find(left, position)
        if start < 0:
            stack[-1].parts.append(template[position:])
            break
        kind, name, end = _tag(template, start, left, right)
        before, after = _alone(template, position, start, end) if kind in "#^/!=" and kind else (start, end)
        stack[-1].parts.append(template[position:before])
        position = after
        if kind == "=":
            left, right = _delimiters(name)
        else:
            _nest(stack, kind, name)
    if len(stack) > 1:
        raise UnableError(f"The section {stack[-1].name} of the template is never closed.")
    return stack[0]


def _tag(template: str, start: int, left: str, right: str) -> Tuple[str, str, int]:
    """Kind, name and end of the tag at `start`; the kind of a plain variable is empty."""
    inside = start + len(left)
    kind = template[inside : inside + 1]
    closing = {"{": "}" + right, "=": "=" + right}.get(kind, right)
    end = template.find(closing, inside)
    if end < 0:
        raise UnableError(f"The tag {template[start : start + 40]!r} of the template is never closed.")
    if kind and kind in "{=#^/!&>%$":
        return kind, template[inside + 1 : end].strip(), end + len(closing)
    return "", template[inside:end].strip(), end + len(closing)


def _alone(template: str, position: int, start: int, end: int) -> Tuple[int, int]:
    """What to cut: a tag that is alone on its line takes the whole line with it."""
    line = template.rfind("\n", 0, start) + 1
    after = re.compile(r"[ \t]*(\r?\n|\Z)").match(template, end)
    if line >= position and not template[line:start].strip(" \t") and after:
        return line, after.end()
    return start, end


def _delimiters(text: str) -> Tuple[str, str]:
    parts = text.split()
    if len(parts) != 2:
        raise UnableError(f"{text!r} does not set two delimiters.")
    return parts[0], parts[1]


def _nest(stack: List[_Section], kind: str, name: str) -> None:
    if kind == ">":
        raise UnableError(f"The template asks for the partial {name}; partials are not supported.")
    if kind in ("#", "^"):
        section = _Section(name, kind == "^")
        stack[-1].parts.append(section)
        stack.append(section)
    elif kind == "/":
        if stack[-1].name != name or len(stack) == 1:
            raise UnableError(f"The template closes the section {name}, which is not the one that is open.")
        stack.pop()
    elif kind != "!":
        stack[-1].parts.append(_Tag(kind, name))


def _render(parts: List[_Part], scopes: List[_Scope], out: List[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, _Tag):
            out.append(_shown(part, scopes))
        else:
            for inner in _inner(part, scopes):
                _render(part.parts, inner, out)


def _inner(section: _Section, scopes: List[_Scope]) -> List[List[_Scope]]:
    """The scopes of each time that a section is rendered."""
    value = _find(section.name, scopes)
    empty = value is _MISSING or value is None or value is False or value in ("", [], {})
    if section.inverted:
        return [scopes] if empty else []
    if empty:
        return []
    if isinstance(value, list):
        return [[*scopes, _Scope(item, str(number))] for number, item in enumerate(value)]
    if isinstance(value, dict) and _uses_key(section):
        return [[*scopes, _Scope(item, str(key))] for key, item in value.items()]
    return [[*scopes, _Scope(value)]]


def _uses_key(section: _Section) -> bool:
    """A section that speaks of `@` goes through a dictionary entry by entry."""
    return any(isinstance(part, _Tag) and part.name == "@" for part in section.parts)


def _find(name: str, scopes: List[_Scope]) -> object:
    if name == ".":
        return scopes[-1].value
    if name == "@":
        return scopes[-1].key
    if name == "-top-":
        return scopes[0].value
    for scope in reversed(scopes):
        value = _member(scope.value, name)
        if value is not _MISSING:
            return value
    return _MISSING


def _member(value: object, name: str) -> object:
    """`a.b.c` inside nested dictionaries; a key may hold dots itself."""
    if not isinstance(value, dict):
        return _MISSING
    if name in value:
        found: object = value[name]
        return found
    for position in (found.start() for found in re.finditer(r"\.", name)):
        if name[:position] in value:
            inner = _member(value[name[:position]], name[position + 1 :])
            if inner is not _MISSING:
                return inner
    return _MISSING


def _shown(tag: _Tag, scopes: List[_Scope]) -> str:
    value = _find(tag.name, scopes)
    if value is _MISSING or value is None:
        return ""
    if tag.kind in ("%", "$"):
        return json.dumps(value, indent=2 if tag.kind == "%" else None, sort_keys=True, ensure_ascii=False)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if tag.kind in ("{", "&") else html.escape(text)
