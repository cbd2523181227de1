# SPDX-License-Identifier: Apache-2.0
"""Reading what a client sent: a typed JSON body, times, and whole numbers in the query."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.web.operation import Request

T = TypeVar("T")


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
