# SPDX-License-Identifier: Apache-2.0
"""What people do with global parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from quarterdeck.core.events import ParameterChanged
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.properties import DEFAULT_PROVIDER
from quarterdeck.services.context import Context


def all_parameters(ctx: Context) -> list[Parameter]:
    """Every parameter, sorted by name."""
    return ctx.store.parameters.all()


def get(ctx: Context, name: str) -> Parameter:
    """One parameter. Raises NotFound."""
    return ctx.store.parameters.get(name)


def create(ctx: Context, parameter: Parameter) -> Parameter:
    """Add a parameter. Raises Invalid, AlreadyExists."""
    if ctx.store.parameters.find(parameter.name) is not None:
        raise AlreadyExists(
            f"Cannot create a global parameter with name {parameter.name} :"
            " there is already a parameter with the same name"
        )
    _require_value(parameter)
    ctx.store.parameters.add(parameter)
    ctx.emit(ParameterChanged(parameter.name))
    return parameter


def update(ctx: Context, name: str, changes: Mapping[str, Any]) -> Parameter:
    """Change a parameter; one that another provider owns stays as it is. Raises NotFound, Invalid."""
    before = ctx.store.parameters.find(name, lock=True)
    if before is None:
        raise NotFound(f"Could not find Parameter '{name}''")
    if _provider(before) != DEFAULT_PROVIDER:
        return before
    after = replace(before, **changes)
    _require_value(after)
    ctx.store.parameters.replace(after)
    if after != before:
        ctx.emit(ParameterChanged(after.name))
    return after


def delete(ctx: Context, name: str) -> Parameter | None:
    """Remove a parameter; None when there was none. Raises Conflict when another provider owns it."""
    parameter = ctx.store.parameters.find(name, lock=True)
    if parameter is None:
        return None
    provider = _provider(parameter)
    if provider != DEFAULT_PROVIDER:
        raise Conflict(
            f"Parameter '{name}' which has property provider '{provider}'"
            f" can't be deleted by property provider '{DEFAULT_PROVIDER}'"
        )
    ctx.store.parameters.remove(parameter.name)
    ctx.emit(ParameterChanged(parameter.name))
    return parameter


def _provider(parameter: Parameter) -> str:
    return parameter.provider or DEFAULT_PROVIDER


def _require_value(parameter: Parameter) -> None:
    if parameter.value is None:
        raise Invalid("A global parameter needs a value.", problems={"value": "is null"})
