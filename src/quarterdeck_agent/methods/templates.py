# SPDX-License-Identifier: Apache-2.0
"""Methods that render a template into a file. mustache is our own; jinja2 is used where a node has it.

A template sees `vars` (prefix, then name) and `classes` (each condition that holds: true).
"""

from __future__ import annotations

import re
from typing import Dict, Optional

from quarterdeck_agent.methods import contents, mustache, registration, texts
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Facts, Finding, MethodCall


def data(facts: Facts) -> Dict[str, object]:
    """What templates see of a run."""
    spaces: Dict[str, Dict[str, object]] = {}
    for name, value in facts.variables.items():
        prefix, _, rest = name.partition(".")
        spaces.setdefault(prefix, {})[rest] = value
    return {"vars": spaces, "classes": dict.fromkeys(sorted(facts.conditions), True)}


def _jinja2(template: str, facts: Facts) -> str:
    try:
        import jinja2  # type: ignore[import-not-found,unused-ignore]  # a node may have it or not
    except ImportError as problem:
        raise UnableError("This node's Python has no jinja2 module (python3-jinja2).") from problem
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)

    def classmatch(pattern: str) -> bool:
        return any(re.fullmatch(pattern, name) for name in facts.conditions)

    environment.globals["classmatch"] = classmatch
    try:
        return str(environment.from_string(template).render(data(facts)))
    except jinja2.TemplateError as problem:
        raise UnableError(f"The template cannot be rendered: {problem}.") from problem


def _mustache(template: str, facts: Facts) -> str:
    return mustache.render(template, data(facts))


_ENGINES = {"mustache": _mustache, "jinja2": _jinja2}


def _template(path: str) -> str:
    found: Optional[bytes] = contents.read(path)
    if found is None:
        raise UnableError(f"The template {path} does not exist.")
    return found.decode("utf-8", "surrogateescape")


def _rendered(engine: str, template: str, call: MethodCall) -> bytes:
    if engine not in _ENGINES:
        raise UnableError(f"The parameter template_type must be {' or '.join(_ENGINES)}, not {engine}.")
    return _ENGINES[engine](template, call.facts).encode("utf-8", "surrogateescape")


def _register(name: str, parameters: str, engine: str, prefix: str = "") -> None:
    def wanted(call: MethodCall) -> bytes:
        if name == "file_from_string_mustache":
            return _rendered(engine, call["template"], call)
        return _rendered(engine or call["template_type"].strip(), _template(call["source_template"]), call)

    def audit(call: MethodCall) -> Finding:
        return texts.judge(call["path"], contents.read(call["path"]), wanted(call))

    def enforce(call: MethodCall) -> Finding:
        return texts.put(call, call["path"], contents.read(call["path"]), wanted(call))

    registration.register(name, parameters, audit, enforce, value="path", prefix=prefix)


_FROM_FILE = "file_from_template"
_register("file_from_string_mustache", "template path", "mustache")
_register("file_from_template_mustache", "source_template path", "mustache", _FROM_FILE)
_register("file_from_template_jinja2", "source_template path", "jinja2", _FROM_FILE)
_register("file_from_template_type", "source_template path template_type", "", _FROM_FILE)
