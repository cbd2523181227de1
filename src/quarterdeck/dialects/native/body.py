# SPDX-License-Identifier: Apache-2.0
"""Reading what a client sent: a typed JSON body, times, node filters, and whole numbers in the query."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypeVar

import msgspec

from quarterdeck.core import node_filters
from quarterdeck.core.errors import Invalid
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.web.operation import Request

T = TypeVar("T")

#: "" stands for what the job or the server says.
Loglevel = Literal["", "DEBUG", "VERBOSE", "INFO", "WARN", "ERR"]


def read(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Raises Invalid, in words that name the field at fault."""
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"The body is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON: {error}") from error


def aware(moment: datetime | None) -> datetime | None:
    """A time with its zone; UTC where the client named none."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def integer(request: Request, key: str, default: int, *, low: int, high: int) -> int:
    """A whole number of the query. Raises Invalid."""
    text = request.first(key)
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise Invalid(f"'{key}' is a whole number from {low} to {high}, not '{text}'.")
    return number


def node_filter(given: Mapping[str, str] | None) -> NodeFilter | None:
    """A filter by RunDeck's names; None for none. Raises Invalid for an unknown name, or when it asks for nothing."""
    if given is None:
        return None
    if unknown := sorted(given.keys() - node_filters.PARAMETER_NAMES):
        known = ", ".join(sorted(node_filters.PARAMETER_NAMES))
        raise Invalid(f"There is no node filter '{unknown[0]}'. Filters: {known}.")
    found = node_filters.from_parameters(given)
    if found is None:
        raise Invalid("The node filter asks for nothing.")
    return found
