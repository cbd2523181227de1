# SPDX-License-Identifier: Apache-2.0
"""Generic methods as the catalogue describes them, and the check of a call's arguments against it.

The catalogue itself is data (`formats/methods.yaml`); what a method does is the agent's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_LENGTH = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What an argument must be like. Lengths in characters; an empty `select` allows any text."""

    allow_empty: bool = False
    allow_whitespace: bool = False
    max_length: int = MAX_LENGTH
    min_length: int | None = None
    regex: str = ""
    not_regex: str = ""
    select: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodParameter:
    name: str
    description: str = ""
    constraints: Constraints = field(default_factory=Constraints)
    #: string | raw | HereString
    type: str = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    info: str
    replaced_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`class_parameter` names the argument whose value reports carry and result conditions are named after."""

    id: str
    name: str
    description: str
    parameters: tuple[MethodParameter, ...]
    prefix: str
    class_parameter: str
    #: cfengine-community, dsc
    agents: tuple[str, ...] = ("cfengine-community",)
    documentation: str = ""
    deprecated: Deprecation | None = None
    #: Former names of parameters -> present ones; both are accepted.
    renamed: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, given: Mapping[str, str]) -> dict[str, str]:
        """Arguments under the parameters' present names."""
        return {self.renamed.get(name, name): value for name, value in given.items()}


def problems(method: Method, given: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with a call's arguments: parameter name -> sentence. Values with variables are not matched."""
    arguments = method.arguments(given)
    found = {}
    for parameter in method.parameters:
        sentence = problem(parameter.constraints, arguments.get(parameter.name, ""))
        if sentence:
            found[parameter.name] = sentence
    known = {parameter.name for parameter in method.parameters}
    for name in sorted(arguments.keys() - known):
        found[name] = f"Method '{method.id}' has no parameter '{name}'"
    return found


def problem(constraints: Constraints, value: str) -> str:
    """The first constraint that the value breaks, as a sentence; empty when there is none."""
    if not value:
        return "" if constraints.allow_empty or "" in constraints.select else "Must not be empty"
    if not constraints.allow_whitespace and value != value.strip():
        return "Must not have leading or trailing whitespaces"
    if len(value) > constraints.max_length:
        advice = (
            " Keep longer texts in a file that the technique copies." if constraints.max_length == MAX_LENGTH else ""
        )
        return f"Max length is {constraints.max_length}. Current size is {len(value)}.{advice}"
    if constraints.min_length is not None and len(value) < constraints.min_length:
        return f"Min length is {constraints.min_length}. Current size is {len(value)}."
    return "" if "${" in value else _pattern_problem(constraints, value)


def _pattern_problem(constraints: Constraints, value: str) -> str:
    if constraints.regex and not re.search(constraints.regex, value):
        return f"Must match regex '{constraints.regex}'"
    if constraints.not_regex and re.search(constraints.not_regex, value):
        return f"Must not match regex '{constraints.not_regex}'"
    if constraints.select and value not in constraints.select:
        return f"Must be one of {', '.join(repr(one) for one in constraints.select)}"
    return ""
