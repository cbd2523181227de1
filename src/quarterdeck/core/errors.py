# SPDX-License-Identifier: Apache-2.0
"""The one error tree. No status codes: each dialect's `errors.py` says how a kind looks on its wire.

    QuarterdeckError
    ├── Unauthenticated   nobody we know asks
    ├── Forbidden         somebody we know asks for what they may not do
    ├── NotFound          no such thing
    │   └── NoSuchPlace   what is to be kept would stand in a category that does not exist
    ├── AlreadyExists     an id or a name is taken
    ├── Invalid           what was sent cannot be accepted; `problems` names the fields
    │   └── TooLarge      more bytes than we read
    ├── Conflict          would be fine, but not in the present state of things
    ├── NotImplementedYet the operation stands in the ledger as "not yet"
    └── Unavailable       a part we need does not answer now; trying again may help

A subclass is added only when some caller tells it apart.
"""

from __future__ import annotations

from collections.abc import Mapping


class QuarterdeckError(Exception):
    """`message` is fit for anyone to read; `detail` is for the log only."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class Unauthenticated(QuarterdeckError):
    """The caller is not known: token or session missing, wrong or expired."""


class Forbidden(QuarterdeckError):
    """The caller is known and lacks the right."""


class NotFound(QuarterdeckError):
    """What was named does not exist."""


class NoSuchPlace(NotFound):
    """The category in which something is to stand does not exist."""


class AlreadyExists(QuarterdeckError):
    """An id or a name is already in use."""


class Invalid(QuarterdeckError):
    """What was sent cannot be accepted. `problems` maps a field to its sentence, where fields are known."""

    def __init__(self, message: str, *, problems: Mapping[str, str] | None = None, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.problems = dict(problems or {})


class TooLarge(Invalid):
    """A body or a document is longer than its limit."""


class Conflict(QuarterdeckError):
    """The present state forbids it (not empty, still in use, system object, changed meanwhile)."""


class NotImplementedYet(QuarterdeckError):
    """A documented operation that this version does not serve yet."""


class Unavailable(QuarterdeckError):
    """A part that is needed (database, relay, node) does not answer now."""
