# SPDX-License-Identifier: Apache-2.0
"""Writes of one turn of the event loop leave together, in order, and none is lost at the end."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.engine.ssh_writes import Direct, Gathering


class Wire(asyncio.Transport):
    """What left, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.left.append(bytes(data))

    def close(self) -> None:
        self.left.append(b"<close>")

    def abort(self) -> None:
        self.left.append(b"<abort>")


def test_writes_of_one_turn_leave_as_one_in_order() -> None:
    async def main() -> list[bytes]:
        wire = Wire()
        transport = Gathering(wire)
        for piece in (b"one ", b"two ", b"three"):
            transport.write(piece)
        before = list(wire.left)
        await asyncio.sleep(0)
        transport.write(b"later")
        await asyncio.sleep(0)
        return [*before, b"|", *wire.left]

    assert asyncio.run(main()) == [b"|", b"one two three", b"later"]


@pytest.mark.parametrize(("end", "last"), [("close", b"<close>"), ("abort", b"<abort>")])
def test_what_was_written_leaves_before_the_end(end: str, last: bytes) -> None:
    async def main() -> list[bytes]:
        wire = Wire()
        transport = Gathering(wire)
        transport.write(b"good")
        transport.write(b"bye")
        getattr(transport, end)()
        await asyncio.sleep(0)
        return wire.left

    assert asyncio.run(main()) == [b"goodbye", last]


class Caller(asyncio.Protocol):
    """Says something, and hears the answer."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello ")
        transport.write(b"there\n")

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


def test_a_connection_carries_both_ways_to_its_end() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> bytes:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            _, caller = await Direct().create_connection(Caller, "127.0.0.1", port)
            await asyncio.wait_for(caller.lost, 10)
            return caller.heard

    assert asyncio.run(main()) == b"hello there\n"
