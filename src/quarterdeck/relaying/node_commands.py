# SPDX-License-Identifier: Apache-2.0
"""Commands for nodes over the whole tree: carried out by an agent that waits here, or passed to the relay above it.

An order goes as it is: only the server can make one, and the agent checks it. What becomes of it comes back as lines
of `formats/node_commands.py`; whoever stops reading them has the command stopped, at each level down to the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from quarterdeck.core.errors import AlreadyExists, Invalid, NotFound, QuarterdeckError, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import Begun, End, Event
from quarterdeck.core.relays import KeyHash
from quarterdeck.formats import agent, node_commands, nodes_list
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import Signer, Times
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.streams import BrokenOff, Place
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands

log = logging.getLogger(__name__)

#: Whoever has nothing to tell says so after this long; who says nothing for much longer is gone.
_BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 40.0
#: How long it may take to tell a server that a command is to stop.
STOP_SECONDS = 3.0
_PATH = "/rudder/relay-api/commands"
_OPAQUE = "application/octet-stream"
_NOT_ALLOWED = "its agent waits here for runs and takes no commands (quarterdeck-agent listen --commands)."


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandsElsewhere:
    """The commands of another server: a relay below, or for a worker the server that it belongs to."""

    url: str
    key_hash: KeyHash
    signer: Signer
    #: its clock
    times: Times = field(default_factory=Times)

    async def order(self, node: NodeId, order: str, parcel: bytes) -> AsyncGenerator[Event | None, None]:
        """What becomes of an order, to its end; None now and then. Never raises for what happens on the way."""
        begun = False
        try:
            place = self._place(_SILENCE_SECONDS)
            async with aclosing(place.lines("POST", _path(node, order), parcel, _OPAQUE)) as lines:
                async for line in lines:
                    event = node_commands.decode(line)
                    begun = begun or isinstance(event, Begun)
                    yield event
                    if isinstance(event, End):
                        return
            yield End("lost", reason=f"{self.url} broke off.")
        except (BrokenOff, Invalid) as error:
            yield End("lost", reason=error.message)
        except QuarterdeckError as error:
            yield End("lost" if begun else "unreachable", reason=error.message)

    async def stop(self, node: NodeId, order: str) -> None:
        """Have a command stopped; its end comes where its output does. Raises Unavailable."""
        async with aclosing(self._place(STOP_SECONDS).ask("DELETE", _path(node, order), b"", _OPAQUE)) as told:
            async for _ in told:
                pass

    def _place(self, read_seconds: float) -> Place:
        return Place(
            url=self.url, key_hash=self.key_hash, signer=self.signer, read_seconds=read_seconds, times=self.times
        )


def own(url: str, pin: str, signer: Signer) -> CommandsElsewhere:
    """The commands of the server that one belongs to, by the pin of its key; plain HTTP shows none."""
    return CommandsElsewhere(url=url, key_hash=nodes_list.key_hash(pin) or KeyHash("sha256", b""), signer=signer)


def _path(node: NodeId, order: str) -> str:
    return f"{_PATH}/{node}/{order}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCommands:
    """What this server or relay does with orders. Without addresses and a signer, it reaches no relays."""

    nodes: NodesList
    agents: WaitingCommands
    #: who waits for runs only
    others: WaitingAgents
    addresses: Addresses | None = None
    signer: Signer | None = None
    #: of the relays whose clock is not ours
    times: dict[NodeId, Times] = field(default_factory=dict)

    def order(self, node: NodeId, order: str, parcel: bytes) -> AsyncGenerator[bytes, None]:
        """Have a node carry an order out, from when somebody reads on; what is told of it."""
        return _lines(self._events(node, order, parcel))

    def stop(self, node: NodeId, order: str) -> AsyncGenerator[bytes, None]:
        """Have a command stopped, wherever its node is. Raises NotFound, Unavailable."""
        below = self._behind(node)
        if below is None:
            self.agents.stop(node, order)
        return _stopped(below, node, order)

    async def _events(self, node: NodeId, order: str, parcel: bytes) -> AsyncGenerator[Event | None, None]:
        try:
            below = self._behind(node)
            if below is not None:
                told = below.order(node, order, parcel)
            else:
                told = self.agents.follow(self.agents.order(node, order, parcel))
        except QuarterdeckError as error:
            reason = error.message
            if self.others.reaches(node) and isinstance(error, Unavailable):
                reason = _NOT_ALLOWED
            log.info("A command does not get to node %s: %s", node[:80], reason)
            # Whoever sent it before knows what becomes of it.
            yield End("lost" if isinstance(error, AlreadyExists) else "unreachable", reason=reason)
            return
        async with aclosing(told) as events:
            async for event in events:
                yield event

    def _behind(self, node: NodeId) -> CommandsElsewhere | None:
        """The relay that a node is behind; None when it is served here. Raises NotFound, Unavailable."""
        topology = self.nodes.current().topology
        split = topology.split([node])
        if split.unknown:
            raise NotFound("it is not below this server.")
        for relay in split.behind:
            listed = topology.nodes[relay]
            if self.addresses is None or self.signer is None or listed.key_hash is None:
                raise Unavailable(f"there is no way to the relay {listed.hostname}, which it is behind.")
            url = self.addresses.of(relay) or f"https://{listed.hostname}"
            times = self.times.setdefault(relay, Times())
            return CommandsElsewhere(url=url, key_hash=listed.key_hash, signer=self.signer, times=times)
        return None


async def _stopped(below: CommandsElsewhere | None, node: NodeId, order: str) -> AsyncGenerator[bytes, None]:
    if below is not None:
        try:
            await below.stop(node, order)
        except Unavailable as error:
            log.warning("A command on node %s is not told to stop: %s", node, error.message)
    yield agent.canonical({"status": "stopping"}) + b"\n"


async def _lines(events: AsyncGenerator[Event | None, None]) -> AsyncGenerator[bytes, None]:
    """Events as lines; an empty one when there is nothing new for a while."""
    async with aclosing(events):
        coming = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=_BEAT_SECONDS)
                if not done:
                    yield node_commands.NOTHING_NEW
                    continue
                event = coming.result()
                yield node_commands.NOTHING_NEW if event is None else node_commands.encode(event)
                if isinstance(event, End):
                    return
                coming = asyncio.ensure_future(anext(events))
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
