# SPDX-License-Identifier: Apache-2.0
"""What handlers of this dialect need beside the unit of work: made once by wiring, found through the request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

from quarterdeck.dialects.rudder.fragments import FragmentCache
from quarterdeck.services.node_runs import AgentTransport, NoTransport
from quarterdeck.web.operation import Request

_MEMO = "parts"


class Watcher(Protocol):
    """Reads inventories that are dropped into a directory. Both calls return at once and may be repeated."""

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Look no more; what is being read is finished."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One per dialect, and so per database. Without a watcher its operations say that there is none."""

    fragments: FragmentCache = field(default_factory=FragmentCache)
    agents: AgentTransport = field(default_factory=NoTransport)
    watcher: Watcher | None = None


def give(request: Request, parts: Parts) -> None:
    """Let the request's handler find them."""
    request.memo[_MEMO] = parts


def of(request: Request) -> Parts:
    """The parts that were given."""
    return cast("Parts", request.memo[_MEMO])
