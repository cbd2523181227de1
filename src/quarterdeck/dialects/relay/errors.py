# SPDX-License-Identifier: Apache-2.0
"""How an error looks to a client of the relay API: one table of statuses, and plain text.

The words of unknown paths and long bodies are the peer's; for the others our own are told.
"""

from __future__ import annotations

from quarterdeck.core import errors
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.relaying.shared_files import NoWay, Unprovable
from quarterdeck.relaying.shared_folder import NotAFile

#: the most derived kind that fits counts
TABLE: dict[type[QuarterdeckError], int] = {
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NoSuchPlace: 404,
    errors.AlreadyExists: 409,
    errors.Invalid: 400,
    errors.TooLarge: 413,
    errors.Conflict: 409,
    errors.NotImplementedYet: 501,
    errors.Unavailable: 503,
    NotAFile: 400,
    # Peers answer so, and agents tell this from 404.
    NoWay: 500,
    Unprovable: 500,
}

INTERNAL = 500
_WORDS = {404: "NOT FOUND", 413: "PAYLOAD TOO LARGE"}
_FAULT = "INTERNAL SERVER ERROR"


def status(error: QuarterdeckError | None) -> int:
    """The status of an error; None is a fault of ours."""
    if error is None:
        return INTERNAL
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def text(error: QuarterdeckError | None) -> str:
    """What is told of an error."""
    if error is None:
        return _FAULT
    return _WORDS.get(status(error), error.message)
