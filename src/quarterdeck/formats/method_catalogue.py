# SPDX-License-Identifier: Apache-2.0
"""The catalogue of generic methods as data (`methods.yaml`), read into core objects."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from quarterdeck.core.methods import MAX_LENGTH, Constraints, Deprecation, Method, MethodParameter

_LINUX_ONLY = ("cfengine-community",)


@functools.cache
def load() -> Mapping[str, Method]:
    """Every method by id, sorted. Read once."""
    text = resources.files("quarterdeck.formats").joinpath("methods.yaml").read_bytes()
    document = yaml.load(text, Loader=yaml.CSafeLoader)
    return {name: _method(name, document[name]) for name in sorted(document)}


def _method(name: str, entry: Mapping[str, Any]) -> Method:
    deprecated = None
    if "deprecated" in entry:
        deprecated = Deprecation(info=entry["deprecated"], replaced_by=entry.get("replaced_by", ""))
    return Method(
        id=name,
        name=name.replace("_", " ").capitalize(),
        description=entry["description"],
        parameters=tuple(_parameter(one) for one in entry["parameters"]),
        prefix=entry.get("prefix", name),
        class_parameter=entry["class_parameter"],
        agents=tuple(entry.get("agents", _LINUX_ONLY)),
        documentation=entry.get("documentation", ""),
        deprecated=deprecated,
        renamed=entry.get("renamed", {}),
    )


def _parameter(entry: Mapping[str, Any]) -> MethodParameter:
    constraints = Constraints(
        allow_empty=entry.get("empty", False),
        allow_whitespace=entry.get("whitespace", False),
        max_length=entry.get("max_length", MAX_LENGTH),
        regex=entry.get("regex", ""),
        select=tuple(entry.get("select", ())),
    )
    return MethodParameter(name=entry["name"], description=entry["description"], constraints=constraints)
