# SPDX-License-Identifier: Apache-2.0
"""Java properties files, as RunDeck keeps the configuration of projects in them, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from quarterdeck.core.projects import Project

DESCRIPTION = "project.description"
NAME = "project.name"
_ENTRY = re.compile(r"((?:[^\\ \t\f:=]|\\.)*)(?:[ \t\f]*[:=][ \t\f]*|[ \t\f]+|$)(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_WRITTEN = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f", "\\": "\\\\"}


def read(data: bytes) -> dict[str, str]:
    """The properties of a file (UTF-8 or Latin 1); of two with one name the later counts."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    found: dict[str, str] = {}
    for line in _logical_lines(text):
        match = _ENTRY.fullmatch(line)
        if match:
            found[_plain(match[1])] = _plain(match[2])
    return found


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments; one that ends in an odd number of backslashes goes on in the next."""
    pending = ""
    for line in re.split(r"\r\n|\n|\r", text):
        part = line.lstrip(" \t\f")
        if not pending and (not part or part[0] in "#!"):
            continue
        pending += part
        if (len(pending) - len(pending.rstrip("\\"))) % 2:
            pending = pending[:-1]
            continue
        yield pending
        pending = ""
    if pending:
        yield pending


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _CONTROL.get(match[2], match[2]), text)


def write(properties: Mapping[str, str]) -> bytes:
    """A file in UTF-8, one property a line, sorted by name, in the form `name = value`."""
    lines = (f"{_escaped(name, ' :=#!')} = {_value(value)}\n" for name, value in sorted(properties.items()))
    return "".join(lines).encode()


def _value(value: str) -> str:
    escaped = _escaped(value, "")
    return "\\" + escaped if escaped.startswith(" ") else escaped


def _escaped(text: str, special: str) -> str:
    return "".join(_WRITTEN.get(one, "\\" + one if one in special else one) for one in text)


def project(name: str, data: bytes) -> Project:
    """The project of a configuration; a name in the file does not count."""
    found = read(data)
    found.pop(NAME, None)
    return Project(name, description=found.pop(DESCRIPTION, ""), properties=found)


def of_project(one: Project) -> bytes:
    """The configuration of a project."""
    description = {DESCRIPTION: one.description} if one.description else {}
    return write({NAME: one.name, **one.properties, **description})
