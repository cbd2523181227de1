# SPDX-License-Identifier: Apache-2.0
"""Expanding what the server left to the agent: `${prefix.name}` and `${prefix.name[key][key]}`.

Keys may hold references themselves. A value is put in as it is: references inside it stay text, so
that the content of a file or a property can never pull in another one. `${resources_dir}` is ours
where the technique has files. Anything of another shape (`${HOME}`, `$(command)`, `${a.b:-x}`) is not
ours and stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import Callable, List, Mapping, Optional, Tuple

_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)+)\s*")

#: The directory with the files of the technique whose calls are expanded.
RESOURCES = "resources_dir"
_RESOURCES = re.compile(r"resources_dir\s*\}")


class UndefinedVariable(ValueError):
    """A reference to a variable that no call and no property defined."""


def expand(text: str, variables: Mapping[str, object], put: Optional[Callable[[str], str]] = None) -> str:
    """`text` with its references replaced, each value through `put` if given.

    Text is put in as it is, numbers and structures as JSON. Raises UndefinedVariable.
    """
    if "${" not in text:
        return text
    pieces: List[str] = []
    position = 0
    while True:
        start = text.find("${", position)
        if start < 0:
            pieces.append(text[position:])
            return "".join(pieces)
        pieces.append(text[position:start])
        value, position = _reference(text, start, variables)
        pieces.append(text[start:position] if value is None else put(value) if put else value)


def lookup(name: str, keys: List[str], variables: Mapping[str, object]) -> object:
    """The value of a variable, or of what its keys lead to. Raises UndefinedVariable.

    A value that is one says why there is none.
    """
    shown = name + "".join(f"[{key}]" for key in keys)
    if name not in variables:
        raise UndefinedVariable(f"undefined variable ${{{shown}}}")
    value = variables[name]
    if isinstance(value, UndefinedVariable):
        raise value
    for key in keys:
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise UndefinedVariable(f"undefined variable ${{{shown}}}")
    return value


def as_text(value: object) -> str:
    """How a value looks inside text: text as it is, everything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _reference(text: str, start: int, variables: Mapping[str, object]) -> Tuple[Optional[str], int]:
    """Value and end of the reference at `start`; (None, end of `${`) when it is not one of ours."""
    own = _RESOURCES.match(text, start + 2) if RESOURCES in variables else None
    if own:
        return as_text(lookup(RESOURCES, [], variables)), own.end()
    named = _NAME.match(text, start + 2)
    if not named or named.group(1).startswith("match."):  # what file_replace_lines captures
        return None, start + 2
    position = named.end()
    keys: List[str] = []
    while text.startswith("[", position):
        end = _closing(text, position)
        if end < 0:
            return None, start + 2
        keys.append(expand(text[position + 1 : end], variables))
        position = end + 1
    if not text.startswith("}", position):
        return None, start + 2
    return as_text(lookup(named.group(1), keys, variables)), position + 1


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` closes, brackets inside counted; -1 when it does not."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"[": 1, "]": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return -1
