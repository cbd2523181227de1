# SPDX-License-Identifier: Apache-2.0
"""TCP connections whose writes leave together, once in a turn of the event loop.

asyncssh writes each packet on its own, and an empty one before it: a command with its environment is some twenty. To
send each by itself takes a sixth more of our processor time for a command on an open connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Session = TypeVar("Session", bound=asyncio.Protocol)


class Direct:
    """The way to a host without a jump host; stands where asyncssh expects a connection to tunnel through."""

    async def create_connection(
        self, session_factory: Callable[[], Session], remote_host: str, remote_port: int
    ) -> tuple[asyncio.BaseTransport, Session]:
        """Connect; the transport and what is at its end. Raises OSError."""
        loop = asyncio.get_running_loop()
        transport, between = await loop.create_connection(lambda: _Between(session_factory()), remote_host, remote_port)
        return transport, between.session


class _Between(asyncio.Protocol):
    """Hands everything on, and the transport in another form."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.session.connection_made(Gathering(transport))

    def data_received(self, data: bytes) -> None:
        self.session.data_received(data)

    def eof_received(self) -> bool | None:
        keep_open: bool | None = self.session.eof_received()
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.connection_lost(exc)

    def pause_writing(self) -> None:
        self.session.pause_writing()

    def resume_writing(self) -> None:
        self.session.resume_writing()


class Gathering(asyncio.Transport):
    """A transport that keeps what is written until this turn of the loop has ended."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._kept: list[bytes | bytearray | memoryview[int]] = []

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._kept:
            asyncio.get_running_loop().call_soon(self._flush)
        self._kept.append(data)

    def _flush(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, []
            self._transport.write(kept[0] if len(kept) == 1 else b"".join(kept))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._flush()  # what says goodbye would have left by now
        self._transport.abort()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + sum(map(len, self._kept))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport.is_reading()
