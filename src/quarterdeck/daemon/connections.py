# SPDX-License-Identifier: Apache-2.0
"""HTTP connections that nobody can hold for nothing: who says nothing, or reads nothing, is let go.

uvicorn itself waits for ever for a first request, and for a reader. How long a body may take: `web/bodies.py`.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

#: From the first byte to the end of a request's headers, and before the first byte.
HEAD_SECONDS = 30.0
#: A reader of one byte a minute is slow; one that takes nothing for so long is gone.
STALL_SECONDS = 900.0


class ConnectionProtocol(H11Protocol):
    """What uvicorn does, with an end to every wait."""

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _watch_head(self) -> None:
        """Let the time run while a request is awaited; more bytes of its headers do not prolong it."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def allow_many() -> None:
    """As many connections as the system lets this process have; the usual 1024 are few for a fleet."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
