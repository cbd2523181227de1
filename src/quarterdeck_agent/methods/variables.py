# SPDX-License-Identifier: Apache-2.0
"""Methods that define text variables and lists for the calls after them, and one that checks a text.

They live in the run only, so that audit mode defines them too. Dictionaries are in dictionaries.py.
"""

from __future__ import annotations

import re
from typing import List

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, processes
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


def define(call: MethodCall, value: object) -> Finding:
    """Define the call's variable, `prefix.name`."""
    name = f"{call['prefix']}.{call['name']}"
    call.facts.variables[name] = value
    return outcome.compliant(f"The variable {name} is defined.")


def text_file(path: str) -> str:
    """The text of a file that must exist. Raises UnableError."""
    if not path.startswith("/"):
        raise UnableError(f"The path {path} must be absolute.")
    if contents.is_secret(path):
        raise UnableError(f"{path} holds secrets and is not read into a variable.")
    data = contents.read(path)
    if data is None:
        raise UnableError(f"{path} does not exist.")
    return data.decode("utf-8", "surrogateescape")


def _without_line_end(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _string(call: MethodCall) -> Finding:
    return define(call, call["value"])


def _default(call: MethodCall) -> Finding:
    return define(call, call.facts.variables.get(call["source_variable"], call["default_value"]))


def _escaped(call: MethodCall) -> Finding:
    value = _text(call)
    call.facts.variables[f"{call['name']}_escaped"] = re.escape(value)
    return outcome.compliant(f"The variable {call['name']}_escaped is defined.")


def _text(call: MethodCall) -> str:
    value = call.facts.variables.get(call["name"])
    if not isinstance(value, str):
        raise UnableError(f"The variable {call['name']} is {'undefined' if value is None else 'not a text'}.")
    return value


def _from_file(call: MethodCall) -> Finding:
    return define(call, _without_line_end(text_file(call["file_name"])))


def _from_command(call: MethodCall) -> Finding:
    done = processes.shell(call["command"])
    if done.code != 0:
        return outcome.error(f"{call['command']} returned {done.code}{done.told}")
    return define(call, _without_line_end(done.out))


def _from_math(call: MethodCall) -> Finding:
    from quarterdeck_agent.methods import arithmetic  # with Python's parser, for the few policies that compute

    return define(call, arithmetic.formatted(arithmetic.evaluate(call["expression"]), call["format"]))


def _match(call: MethodCall) -> Finding:
    name, value = call["name"], call.facts.variables.get(call["name"])
    if not isinstance(value, str):
        return outcome.drift(f"The variable {name} is {'undefined' if value is None else 'not a text'}.")
    if re.fullmatch(call["expected_match"], value, re.DOTALL):
        return outcome.compliant(f"The variable {name} matches {call['expected_match']}.")
    return outcome.drift(f"The variable {name} does not match {call['expected_match']}.")


def _iterator(call: MethodCall) -> Finding:
    return define(call, call["value"].split(call["separator"]) if call["value"] else [])


def _iterator_from_file(call: MethodCall) -> Finding:
    comments, separator = re.compile(call["comments_regex"]), re.compile(call["separator_regex"])
    text = comments.sub("", text_file(call["file_name"]))
    items: List[str] = [item for item in separator.split(text) if item]
    return define(call, items)


def _register(name: str, parameters: str, audit: outcome.Look) -> None:
    register(name, f"prefix name {parameters}", audit, value="name")


_register("variable_string", "value", _string)
_register("variable_string_default", "source_variable default_value", _default)
_register("variable_string_from_file", "file_name", _from_file)
_register("variable_string_from_command", "command", _from_command)
_register("variable_string_from_math_expression", "expression format", _from_math)
_register("variable_iterator", "value separator", _iterator)
_register("variable_iterator_from_file", "file_name separator_regex comments_regex", _iterator_from_file)
register("variable_string_escaped", "name", _escaped)
register("variable_string_match", "name expected_match", _match)
