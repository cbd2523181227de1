# SPDX-License-Identifier: Apache-2.0
"""The agent transport: a command on a node, over the connection that the node's own agent holds open somewhere.

A worker holds no such connections itself: it asks the API process of its server, as that asks the relays below it. The
order is signed here for the one node, and good for some minutes. A command that may have begun is never sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from quarterdeck.core.connections import AgentWay
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import End, Event, Order, Output
from quarterdeck.engine.transports import KILL_SECONDS, TERM_SECONDS, Command, Ending, NodeResult, Sink, Transport
from quarterdeck.formats import agent, node_commands
from quarterdeck.formats.signature import SigningKey

log = logging.getLogger(__name__)

#: The agent ends what takes too long; this long after that its silence counts as an answer.
_PATIENCE_SECONDS = 10.0


class Commands(Protocol):
    """Where orders are taken: `relaying/node_commands.py: CommandsElsewhere`."""

    def order(self, node: NodeId, order: str, parcel: bytes) -> AsyncGenerator[Event | None, None]:
        """What becomes of an order, to its end; stopped when nobody reads any more."""

    async def stop(self, node: NodeId, order: str) -> None:
        """Have it stopped. Raises Unavailable."""


class Agents:
    """The nodes' agents, for one worker. `key` signs policies, and so orders."""

    def __init__(self, commands: Commands, key: SigningKey, clock: Callable[[], float] = time.time) -> None:
        self._commands, self._key, self._clock = commands, key, clock

    def transport(self, way: AgentWay) -> Transport:
        """The way to a node."""
        return _Way(self._commands, way, self._seal)

    def _seal(self, way: AgentWay, order: str, command: Command) -> bytes:
        sealed = Order(
            id=order,
            node=way.node,
            expires=int(self._clock()) + agent.ORDER_SECONDS,
            line=command.line,
            stdin=command.stdin,
            environment=command.environment,
            seconds=command.limit(way.run_seconds) or 0.0,
            user=way.user,
        )
        return node_commands.seal(sealed, self._key)


class _Way:
    """A node that is reached over its agent."""

    def __init__(self, commands: Commands, way: AgentWay, seal: Callable[[AgentWay, str, Command], bytes]) -> None:
        self._commands, self._way, self._seal = commands, way, seal

    async def run(self, command: Command, sink: Sink, stop: asyncio.Event) -> NodeResult:
        """As `transports.Transport`."""
        if stop.is_set():
            return NodeResult(ending="aborted", reason="Stopped before it began.")
        if command.fault:
            return NodeResult(ending="refused", reason=command.fault)
        order = str(uuid.uuid4())
        try:
            parcel = await asyncio.to_thread(self._seal, self._way, order, command)
        except QuarterdeckError as error:
            return NodeResult(ending="refused", reason=error.message)
        told = asyncio.create_task(self._told(order, parcel, sink))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({told, stopping}, timeout=self._limit(command), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return _result(told.result(), stopped=stop.is_set())
            return await self._stopped(order, told, "aborted" if stopping.done() else "timeout")
        finally:
            stopping.cancel()
            told.cancel()  # whoever reads no more has the command stopped
            await asyncio.wait({stopping, told})

    async def _told(self, order: str, parcel: bytes, sink: Sink) -> End:
        """The end, after all output has been written down."""
        async with aclosing(self._commands.order(self._way.node, order, parcel)) as events:
            async for event in events:
                if isinstance(event, End):
                    return event
                if isinstance(event, Output) and not sink.write(event.stream, event.data):
                    await sink.ready()
        return End("lost", reason="its end is not known.")

    async def _stopped(self, order: str, told: asyncio.Task[End], ending: Ending) -> NodeResult:
        """TERM and KILL are the agent's; who does not tell of an end in time is left behind."""
        asking = asyncio.create_task(self._ask_to_stop(order))
        try:
            await asyncio.wait({told}, timeout=TERM_SECONDS + KILL_SECONDS)
        finally:
            asking.cancel()
        if not told.done():
            left = "It did not end when it was asked to, and may still run on the node."
            return NodeResult(ending="abandoned" if ending == "aborted" else ending, reason=left)
        result = _result(told.result(), stopped=True)
        return NodeResult(ending="abandoned", reason=result.reason) if result.ending == "lost" else result

    async def _ask_to_stop(self, order: str) -> None:
        try:
            await self._commands.stop(self._way.node, order)
        except Unavailable as error:
            log.warning("Node %s is not told to stop a command: %s", self._way.node, error.message)

    def _limit(self, command: Command) -> float | None:
        limit = command.limit(self._way.run_seconds)
        return limit + agent.ORDER_SECONDS + _PATIENCE_SECONDS if limit is not None else None


def _result(end: End, *, stopped: bool) -> NodeResult:
    """What was told, as the result of a step."""
    match end.ending:
        case "ended" if not stopped or end.status == 0:
            return NodeResult(ending="ended", exit_status=end.status, reason=end.reason)
        case "ended" | "aborted":
            reason = end.reason or ("" if stopped else "The agent ended it.")
            return NodeResult(ending="aborted", exit_status=end.status, reason=reason)
        case "timeout":
            return NodeResult(ending="timeout", exit_status=end.status, reason="The command took longer than it may.")
        case "refused":
            return NodeResult(ending="refused", reason=f"The node's agent refuses: {end.reason}")
        case "lost":
            return NodeResult(ending="lost", reason=f"What became of the command is not known: {end.reason}")
    return NodeResult(ending="unreachable", reason=f"The node's agent is not reached: {end.reason}")
