# SPDX-License-Identifier: Apache-2.0
"""How methods of this package reach the engine: registered once, guarded the same way.

The guard accepts older parameter names, refuses empty mandatory parameters and relative paths, and
turns what goes wrong while looking or acting into an error finding of one sentence.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Dict, Optional, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.conditions import BadExpression
from quarterdeck_agent.methods import system
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, Look, MethodCall

#: Current parameter name -> names that older policies use for it, where the method has no such parameter today.
OLD_NAMES: Dict[str, Tuple[str, ...]] = {
    "path": ("target", "destination", "file", "file_name", "directory_name"),
    "name": ("package_name", "service_name", "module_name", "group", "variable_name"),
    "prefix": ("variable_prefix",),
    "condition": ("condition_prefix",),
    "expression": ("condition_expression", "trigger_class"),
    "login": ("user",),
    "version": ("package_version",),
    "package_version": ("version",),
    "architecture": ("package_architecture",),
    "provider": ("package_provider",),
    "source_template": ("source",),
}

#: Parameters that may legitimately hold nothing but blanks.
BLANK_ALLOWED = frozenset(("separator", "key_value_separator", "parameter_separator", "lines", "block", "content"))


def register(
    name: str,
    parameters: str,
    audit: Look,
    enforce: Optional[Look] = None,
    *,
    value: str = "",
    prefix: str = "",
    blind: bool = False,
) -> None:
    """Register a method with the engine, see `outcome.method`; audit and enforce may raise UnableError or OSError."""
    names = tuple(parameters.split())
    outcome.method(
        name,
        parameters,
        _guarded(names, audit),
        _guarded(names, _not_astray(enforce)) if enforce else None,
        value=value,
        prefix=prefix,
        blind=blind,
    )


def register_blind(name: str, parameters: str, enforce: Look, *, deed: str, value: str = "", prefix: str = "") -> None:
    """Register a method that cannot be audited; `deed` completes "in audit mode nothing is done: it would ..."."""

    def audit(_call: MethodCall) -> Finding:
        return outcome.not_applicable(f"This cannot be judged without doing it: it would {deed}.")

    register(name, parameters, audit, enforce, value=value, prefix=prefix, blind=True)


def register_alias(alias: str, name: str, prefix: str = "") -> None:
    """Register the method `name` also as `alias`, with a prefix of its own (default: the alias)."""
    known = outcome.METHODS[name]
    outcome.METHODS[alias] = dataclasses.replace(known, name=alias, prefix=prefix or alias)


def _not_astray(enforce: Look) -> Look:
    """The change, unless others' links lead it to another directory; what the path's last part is, methods look at."""

    def careful(call: MethodCall) -> Finding:
        if "path" in call.params:
            system.resolved(os.path.dirname(call["path"]))
        return enforce(call)

    return careful


def _guarded(names: Tuple[str, ...], look: Look) -> Look:
    def guarded(call: MethodCall) -> Finding:
        try:
            return look(_checked(names, call))
        except (UnableError, BadExpression) as problem:
            return outcome.error(str(problem))
        except OSError as problem:
            return outcome.error(_sentence(problem))
        except re.error as problem:
            return outcome.error(f"{problem.pattern!r} is not a valid regular expression: {problem.msg}.")

    return guarded


def _checked(names: Tuple[str, ...], call: MethodCall) -> MethodCall:
    params = {name.rstrip("?"): _parameter(name.rstrip("?"), names, call) for name in names}
    for name in names:
        text = params[name.rstrip("?")]
        if not name.endswith("?") and not (text if name in BLANK_ALLOWED else text.strip()):
            raise UnableError(f"The parameter {name} must not be empty.")
    path = params.get("path", "/")
    if not path.startswith("/") and path:
        raise UnableError(f"The path {path} must be absolute.")
    if "\0" in path:
        raise UnableError("The path contains a zero byte.")
    if "path" in params:  # with a slash at its end, a link would be followed and a file not found
        params["path"] = path.rstrip("/") or path[:1]
    return dataclasses.replace(call, params=params)


def _parameter(name: str, names: Tuple[str, ...], call: MethodCall) -> str:
    if name in call.params:
        return call.params[name]
    current = {known.rstrip("?") for known in names}
    older = (old for old in OLD_NAMES.get(name, ()) if old not in current and old in call.params)
    return next((call.params[old] for old in older), "")


def _sentence(problem: OSError) -> str:
    if problem.filename is None or problem.strerror is None:
        return f"{problem}."
    return f"{problem.filename}: {problem.strerror}."
