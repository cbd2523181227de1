# SPDX-License-Identifier: Apache-2.0
"""How an error looks to a Rudder client: one table of statuses and type prefixes, and the two chaining styles.

Business errors are status 500 for this peer. An operation's row may carry `hint` (what was being done) and
`style` ("new": `hint; cause was: text`, the default, or "old": `hint <- text`), and `unknown_status` for the
one operation that answers an unknown id with 404.
"""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.core import errors
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dialects.rudder.body import NotJson, Undecodable
from quarterdeck.dialects.rudder.version import UnknownVersion
from quarterdeck.web.operation import Operation, Request

#: Where a request's memo holds the name of who asks.
ACCOUNT = "account"

#: kind -> (status, prefix of new-style texts); the most derived kind that fits counts
TABLE: dict[type[QuarterdeckError], tuple[int, str]] = {
    errors.Unauthenticated: (401, ""),
    errors.Forbidden: (500, ""),
    errors.NotFound: (500, "Inconsistency: "),
    errors.NoSuchPlace: (500, "Consistancy: "),
    errors.AlreadyExists: (500, "Consistancy: "),
    errors.Invalid: (500, "Inconsistency: "),
    errors.TooLarge: (413, ""),
    errors.Conflict: (500, "Inconsistency: "),
    errors.NotImplementedYet: (501, ""),
    errors.Unavailable: (503, ""),
    UnknownVersion: (404, ""),
    NotJson: (412, ""),
    Undecodable: (500, ""),
}


class UnknownPath(errors.NotFound):
    """No operation has this method and path."""


TABLE[UnknownPath] = (404, "")


class BadRequest(errors.Invalid):
    """A request that names no operation we could serve: wrong version header, unknown method."""


TABLE[BadRequest] = (500, "")


def look_up(error: QuarterdeckError) -> tuple[int, str]:
    """Status and prefix of an error."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def status(operation: Operation | None, error: QuarterdeckError) -> int:
    """The HTTP status of an error of an operation."""
    if operation is not None and isinstance(error, errors.NotFound) and "unknown_status" in operation.options:
        return int(operation.options["unknown_status"])
    return look_up(error)[0]


def text(operation: Operation | None, request: Request, error: QuarterdeckError) -> str:
    """`errorDetails` of an error of an operation."""
    if isinstance(error, errors.Forbidden) and operation is not None:
        return f"Authorization error: {_denied(request)}: {error.message}"
    if operation is None or status(operation, error) != 500 or isinstance(error, Undecodable):
        return error.message
    prefix = look_up(error)[1]
    hint = _hint(operation.options, request)
    if operation.options.get("style") == "old":
        return f"{hint} <- {error.message}" if hint else error.message
    return f"{hint}; cause was: {prefix}{error.message}" if hint else f"{prefix}{error.message}"


def _denied(request: Request) -> str:
    """The peer's sentence, which clients look for; it names the path from `api/` on."""
    path = request.target.partition("?")[0].removeprefix("/rudder/")
    return f"User '{request.memo.get(ACCOUNT, '')}' is not allowed to access {request.method} {path}"


def _hint(options: Mapping[str, object], request: Request) -> str:
    return str(options.get("hint", "")).format_map(request.params)
