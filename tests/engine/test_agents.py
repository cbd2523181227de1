# SPDX-License-Identifier: Apache-2.0
"""Commands over nodes' agents as a worker runs them: what it orders, and what it makes of what it is told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from tests import agents as keys

from quarterdeck.core.connections import AgentWay
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import Begun, End, Event, Output
from quarterdeck.engine.agents import Agents
from quarterdeck.engine.transports import KILL_SECONDS, TERM_SECONDS, Command, NodeResult, Stream
from quarterdeck.formats import agent, signature
from quarterdeck.formats.signature import SigningKey

NODE = NodeId("n1")
KEY = SigningKey(
    keys.private_key(4).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
)


@dataclass
class Server:
    """Tells these events of any order; after them nothing more until it is told to stop, then `ends`."""

    events: tuple[Event | None, ...] = (Begun(), End("ended", 0))
    ends: End | None = None
    away: bool = False
    orders: list[tuple[NodeId, str, bytes]] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    left: int = 0

    async def order(self, node: NodeId, order: str, parcel: bytes) -> AsyncGenerator[Event | None, None]:
        self.orders.append((node, order, parcel))
        try:
            for event in self.events:
                yield event
            await self.stopped.wait()
            if self.ends is not None:
                yield self.ends
            await asyncio.Event().wait()
        finally:
            self.left += 1

    async def stop(self, node: NodeId, order: str) -> None:
        assert (node, order) == self.orders[-1][:2]
        if self.away:
            raise Unavailable("away")
        self.stopped.set()


@dataclass
class Written:
    """A sink that is full after each piece."""

    pieces: list[tuple[Stream, bytes]] = field(default_factory=list)
    waits: int = 0

    def write(self, stream: Stream, data: bytes) -> bool:
        self.pieces.append((stream, data))
        return False

    async def ready(self) -> None:
        self.waits += 1


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


async def run(server: Server, command: Command | None = None, *, stop_after: float | None = None) -> NodeResult:
    stop = asyncio.Event()
    if stop_after is not None:
        asyncio.get_running_loop().call_later(stop_after, stop.set)
    transport = Agents(server, KEY).transport(AgentWay(node=NODE, user="deploy", run_seconds=9.0))
    return await transport.run(command or Command(line="true"), Written(), stop)


def test_an_order_is_signed_for_its_node_and_good_for_some_minutes() -> None:
    async def story() -> None:
        server = Server()
        command = Command(line="cat", stdin=b"\0script", environment={"RD_A": "b"}, run_seconds=5.0)

        assert await run(server, command) == NodeResult(ending="ended", exit_status=0)

        ((node, order, sealed),) = server.orders
        parcel = agent.open_parcel(sealed)
        assert (node, parcel.kind, parcel.node) == (NODE, "command", NODE)
        assert signature.verify(KEY.public_pem, parcel.message(), signature.decode_base64(parcel.signature))
        said = parcel.payload()
        assert 0 < said.pop("expires") - time.time() <= agent.ORDER_SECONDS
        assert said == {
            "format": agent.FORMAT,
            "node": NODE,
            "id": order,
            "line": "cat",
            "stdin": "AHNjcmlwdA==",
            "environment": {"RD_A": "b"},
            "seconds": 5.0,
            "user": "deploy",
        }

    play(story())


def test_output_goes_to_the_sink_which_is_waited_for() -> None:
    async def story() -> None:
        server = Server((Begun(), None, Output("stdout", b"a"), Output("stderr", b"b"), End("ended", 2)))
        sink = Written()

        result = await Agents(server, KEY).transport(AgentWay(node=NODE)).run(Command(line="x"), sink, asyncio.Event())

        assert (result.ending, result.exit_status) == ("ended", 2)
        assert sink.pieces == [("stdout", b"a"), ("stderr", b"b")]
        assert sink.waits == 2

    play(story())


@pytest.mark.parametrize("ending", ["refused", "unreachable", "lost", "timeout"])
def test_what_kept_a_command_from_its_end_is_told(ending: Any) -> None:
    async def story() -> None:
        result = await run(Server((End(ending, None, "Because."),)))

        assert result.ending == ending
        assert result.reason

    play(story())


def test_a_command_that_is_stopped_tells_its_end() -> None:
    async def story() -> None:
        server = Server((Begun(),), End("aborted", 143))

        result = await run(server, stop_after=0.05)

        assert (result.ending, result.exit_status) == ("aborted", 143)
        assert server.left == 1

    play(story())


@pytest.mark.parametrize("away", [False, True])
def test_a_command_that_does_not_tell_of_its_end_is_left_behind(*, away: bool) -> None:
    async def story() -> None:
        server = Server((Begun(),), away=away)
        began = time.monotonic()

        result = await run(server, stop_after=0.05)

        assert result.ending == "abandoned"
        assert time.monotonic() - began < TERM_SECONDS + KILL_SECONDS + 1
        assert server.left == 1

    play(story())


def test_what_is_stopped_before_it_began_is_not_ordered() -> None:
    async def story() -> None:
        server, stop = Server(), asyncio.Event()
        stop.set()

        result = await Agents(server, KEY).transport(AgentWay(node=NODE)).run(Command(line="x"), Written(), stop)

        assert result.ending == "aborted"
        assert server.orders == []

    play(story())


def test_a_worker_that_ends_reads_no_more() -> None:
    async def story() -> None:
        server = Server((Begun(),))
        running = asyncio.create_task(run(server))
        while not server.orders:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)

        running.cancel()
        await asyncio.wait({running})

        assert server.left == 1

    play(story())


@pytest.mark.parametrize(
    "command",
    [Command(line="a\0b"), Command(line="x", environment={"A": "\0"}), Command(line="\udc80")],
    ids=["line", "environment", "no text"],
)
def test_what_no_process_can_be_given_is_refused(command: Command) -> None:
    async def story() -> None:
        server = Server()

        assert (await run(server, command)).ending == "refused"
        assert server.orders == []

    play(story())


def test_a_script_that_is_too_long_is_refused() -> None:
    async def story() -> None:
        noise = random.Random(1).randbytes(agent.MAX_ORDER_BYTES)

        result = await run(Server(), Command(line="x", stdin=noise))

        assert result.ending == "refused"
        assert "longer than" in result.reason

    play(story())
