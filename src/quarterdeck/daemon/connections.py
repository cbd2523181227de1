# SPDX-License-Identifier: Apache-2.0
"""HTTP connections: nobody can hold one for nothing, and nobody who was let in is sent away without an answer.

uvicorn itself waits for ever for a first request, and for a reader. When it ends, it drops connections that are still
shaking hands, or whose first request is under way; and it lets more in for a while after it was told to end, which is
bad when its supervisor was killed: the next one may be up by then. How long a body may take: `web/bodies.py`.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

#: From the first byte to the end of a request's headers, and before the first byte.
HEAD_SECONDS = 30.0
#: A reader of one byte a minute is slow; one that takes nothing for so long is gone.
STALL_SECONDS = 900.0
#: When the server ends, a connection without a request yet may still bring one for so long.
NEWCOMER_SECONDS = 2.0
_CLOSE = (b"connection", b"close")


class State(uvicorn.server.ServerState):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving = False
        #: accepted, but not through with the handshake; those that fail in it go with the garbage
        self.coming: weakref.WeakSet[ConnectionProtocol] = weakref.WeakSet()


class ConnectionProtocol(H11Protocol):
    """What uvicorn does, with an end to every wait."""

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS
    newcomer_seconds = NEWCOMER_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    #: runs from the end of the server until a first request
    _newcomer_timer: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, server_state: State, app_state: dict[str, Any], **rest: Any) -> None:
        super().__init__(config, server_state, app_state, **rest)
        self._state = server_state
        server_state.coming.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._state.coming.discard(self)
        self._watch_head()
        if self._state.leaving:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()
        if self._newcomer_timer is not None and self.cycle is not None:
            self._newcomer_timer.cancel()
            self.shutdown()

    def shutdown(self) -> None:
        """Close after the answer that is due; at once when none is."""
        if self.transport.is_closing():
            return
        if self.cycle is None:
            if self._newcomer_timer is None:
                self._newcomer_timer = self.loop.call_later(self.newcomer_seconds, super().shutdown)
            return
        if not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._stall_timer, self._newcomer_timer):
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


class Server(uvicorn.Server):
    """Lets nobody in any more as soon as it is told to end, and sees off those who are in.

    `let_go` ends requests that would wait for long. To be used with ConnectionProtocol.
    """

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self.server_state: State = State()
        self.servers: list[asyncio.base_events.Server] = []
        self._let_go = let_go
        self._sockets: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._sockets = asyncio.get_running_loop(), sockets or []
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_to_leave)  # uvicorn itself looks ten times a second

    def _begin_to_leave(self) -> None:
        if self.server_state.leaving:
            return
        self.server_state.leaving = True
        for server in self.servers:
            server.close()
        for one in self._sockets:
            one.close()
        self._let_go()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._begin_to_leave()
        loop = asyncio.get_running_loop()
        until = loop.time() + NEWCOMER_SECONDS
        while self.server_state.coming and loop.time() < until:  # noqa: ASYNC110  # a weak set tells nobody
            await asyncio.sleep(0.02)
        self.servers.clear()  # uvicorn would wait for handshakes that nobody goes on with
        await super().shutdown(sockets)


def allow_many() -> None:
    """As many connections as the system lets this process have; the usual 1024 are few for a fleet."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
