# SPDX-License-Identifier: Apache-2.0
"""How an error looks to a RunDeck client: one table of statuses and codes, and the peer's words.

Business errors are status 200 for this peer; clients look at the envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quarterdeck.core import errors
from quarterdeck.core.accounts import LacksRight
from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.dialects.rundeck.version import TooOldVersion, UnsupportedVersion
from quarterdeck.web.operation import Request

#: Where a request's memo holds the name of who asks, and the token that was shown.
ACCOUNT = "account"
TOKEN = "token"  # noqa: S105  # a key

UNKNOWN = "An unknown error occurred"


class Look(NamedTuple):
    status: int
    code: str = ""


class UnknownPath(errors.NotFound):
    """No operation has this path."""


class WrongMethod(errors.Invalid):
    """The path is there, and not for this method."""


#: the most derived kind that fits counts
TABLE: dict[type[QuarterdeckError], Look] = {
    errors.Unauthenticated: Look(403, "unauthorized"),
    errors.Forbidden: Look(200, "unauthorized"),
    errors.NotFound: Look(200),
    errors.NoSuchPlace: Look(200),
    errors.AlreadyExists: Look(200),
    errors.Invalid: Look(200),
    errors.TooLarge: Look(413),
    errors.Conflict: Look(200),
    errors.NotImplementedYet: Look(501),
    errors.Unavailable: Look(503),
    UnknownPath: Look(404),
    WrongMethod: Look(405),
    UnsupportedVersion: Look(200, "api-version-unsupported"),
    TooOldVersion: Look(400, "api-version-unsupported"),
}

INTERNAL = Look(500)


def look_up(error: QuarterdeckError | None) -> Look:
    """How an error looks; None is a fault of ours."""
    if error is None:
        return INTERNAL
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def messages(request: Request, error: QuarterdeckError | None) -> list[str]:
    """What is told of an error, never nothing."""
    if error is None:
        return [UNKNOWN]
    if isinstance(error, errors.Unauthenticated):
        return [f"{_stranger(request)} is not authorized for: {request.path}"]
    if isinstance(error, LacksRight):
        return [f"{request.memo.get(ACCOUNT, '')} is not authorized for: {request.path}"]
    problems = error.problems.values() if isinstance(error, Invalid) else ()
    return [error.message or UNKNOWN, *problems]


def several(problems: Sequence[str]) -> Invalid:
    """One error that tells several things at once."""
    return Invalid(problems[0], problems={str(number): one for number, one in enumerate(problems[1:], 2)})


def _stranger(request: Request) -> str:
    token = request.memo.get(TOKEN, "")
    return f"(Token:{token[:5]}****)" if token else "(unauthenticated)"
