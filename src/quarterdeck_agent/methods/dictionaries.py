# SPDX-License-Identifier: Apache-2.0
"""Methods that define dictionary variables: from JSON text, from files, by merging two others."""

from __future__ import annotations

import json
import os
from typing import Dict

from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.variables import define, text_file
from quarterdeck_agent.outcome import Finding, MethodCall


def _json(text: str, where: str) -> object:
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise UnableError(f"{where} is not valid JSON: {problem}.") from problem
    if not isinstance(value, (dict, list)):
        raise UnableError(f"{where} is JSON but neither an object nor a list.")
    return value


def _yaml(text: str, where: str) -> object:
    try:
        import yaml  # not part of Python: a node may have it or not
    except ImportError as problem:
        raise UnableError(f"{where} is YAML; this node's Python has no yaml module (python3-yaml).") from problem
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise UnableError(f"{where} is not valid YAML: {problem}.") from problem
    return value


def _csv(text: str, _where: str) -> object:
    import csv  # few policies read such files

    return [row for row in csv.reader(text.splitlines(keepends=True)) if row]


_READERS = {"JSON": _json, "YAML": _yaml, "CSV": _csv}
_SUFFIXES = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".csv": "CSV"}


def _from_text(call: MethodCall) -> Finding:
    return define(call, _json(call["value"], "The parameter value"))


def _from_file(call: MethodCall) -> Finding:
    return define(call, _json(text_file(call["file_name"]), call["file_name"]))


def _from_file_type(call: MethodCall) -> Finding:
    path, kind = call["file_name"], call["file_type"].strip().upper()
    if kind in ("", "AUTO"):
        kind = _SUFFIXES.get(os.path.splitext(path)[1].lower(), "JSON")
    if kind not in _READERS:
        raise UnableError(f"The parameter file_type must be auto, JSON, YAML or CSV, not {call['file_type']}.")
    return define(call, _READERS[kind](text_file(path), path))


def _source(call: MethodCall, name: str, *, tolerant: bool) -> Dict[str, object]:
    value = call.facts.variables.get(name, {} if tolerant else None)
    if isinstance(value, dict):
        return value
    raise UnableError(f"The variable {name} is {'undefined' if value is None else 'not a dictionary'}.")


def _merge(call: MethodCall, *, tolerant: bool = False) -> Finding:
    first = _source(call, call["first_variable"], tolerant=tolerant)
    return define(call, {**first, **_source(call, call["second_variable"], tolerant=tolerant)})


def _merge_tolerant(call: MethodCall) -> Finding:
    return _merge(call, tolerant=True)


register("variable_dict", "prefix name value", _from_text, value="name")
register("variable_dict_from_file", "prefix name file_name", _from_file, value="name")
register("variable_dict_from_file_type", "prefix name file_name file_type?", _from_file_type, value="name")
register("variable_dict_merge", "prefix name first_variable second_variable", _merge, value="name")
register("variable_dict_merge_tolerant", "prefix name first_variable second_variable", _merge_tolerant, value="name")
