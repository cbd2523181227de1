# SPDX-License-Identifier: Apache-2.0
"""What handlers of this dialect need beside the unit of work: made once by wiring, found through the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.logs import LogEntry
from quarterdeck.dialects.rundeck import version
from quarterdeck.web.operation import Request
from quarterdeck.web.sessions import LoginThrottle

_MEMO = "parts"


def _fetch_nothing(address: str) -> bytes:
    raise Unavailable("This server fetches no documents.", detail=address)


_NO_PAGES: tuple[list[LogEntry], ...] = ()


async def no_output(execution_id: int, begin: int, end: int) -> AsyncIterator[list[LogEntry]]:
    """Pages of an execution that wrote nothing."""
    for page in _NO_PAGES:
        yield page


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One per dialect. `max_version` is the newest version of the API that is served.

    `fetch` gets what is at an address and raises Invalid with the cause. `output` gives what an execution wrote between
    two offsets, page by page.
    """

    max_version: int = version.LATEST
    throttle: LoginThrottle = field(default_factory=LoginThrottle)
    fetch: Callable[[str], bytes] = _fetch_nothing
    output: Callable[[int, int, int], AsyncIterator[list[LogEntry]]] = no_output
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def give(request: Request, parts: Parts) -> None:
    """Let the request's handler find them."""
    request.memo[_MEMO] = parts


def of(request: Request) -> Parts:
    """The parts that were given."""
    return cast("Parts", request.memo[_MEMO])
