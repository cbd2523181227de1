# SPDX-License-Identifier: Apache-2.0
"""Agents that wait here for commands, and what these print.

Beside the request for runs (`waiting_agents.py`) an agent that takes commands holds one open for them, also while it
carries some out: so a command hears at once that it is to stop, and neither runs nor commands wait for each other.
Nothing that is printed is left out: while nobody reads, the agent is told to send the same again and reads no more
itself. An order that was given and did not begin is given again, which the agent notices; one that began never is.
Safe for threads and for several event loops, as there.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from quarterdeck.core.errors import AlreadyExists, Conflict, NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import Begun, End, Event, Output, Stream
from quarterdeck.formats import agent
from quarterdeck.relaying import held_requests
from quarterdeck.relaying.bells import Bell
from quarterdeck.relaying.held_requests import HeldRequests

#: Orders of one node that wait until its agent has room for them.
MOST_ORDERS = 64
#: Output of one command that nobody has read yet.
BUFFER_BYTES = 1024 * 1024

_NOT_THERE = "its agent does not wait here for commands (quarterdeck-agent listen --commands)."
_THIS_ENDS = "the server or relay that its agent waits at was told to end."
_BEFORE_IT_BEGAN = "its agent went away before it began."


@dataclass(frozen=True, slots=True, kw_only=True)
class Times(held_requests.Times):
    """How long what may take, in seconds."""

    #: how long an order waits until the agent has room for it
    line: float = 240.0
    #: how long an agent may take to begin what it was given
    begin: float = 30.0
    #: after so long an order that did not begin is given again, and a stop that is not followed told again
    again: float = 2.0
    #: how long a command may take to end that is to stop
    stop: float = 10.0
    #: the end of a command is remembered so long, for an agent that did not hear that it was taken
    kept: float = 120.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an agent is told of a piece: whether there was room for it, and whether the command is to stop."""

    received: bool
    stop: bool


class Command:
    """An order for one node, on its way and while it is carried out. Only this module changes it."""

    def __init__(self, node: NodeId, order: str, parcel: bytes, now: float) -> None:
        self.id, self.node, self.parcel = order, node, parcel
        self.end: End | None = None
        self.begun = self.told_begun = False
        #: nobody reads any more
        self.left = False
        self.since = self.heard = now
        #: when it was first and last given to the agent; when somebody wanted it to stop, and when the agent was told
        self.given = self.given_again = self.stopped = self.stop_told = 0.0
        self.ended = 0.0
        #: which process of the agent has it
        self.listener = ""
        #: the number of the piece that comes next
        self.next = 0
        self.output: deque[Output] = deque()
        self.size = 0
        self.bell = Bell()


@dataclass(eq=False, slots=True)
class _Place(held_requests.Place):
    """What is known of one node. `commands` are those that wait in `line`, those under way, and some that ended."""

    listener: str = ""
    commands: dict[str, Command] = field(default_factory=dict)
    line: deque[Command] = field(default_factory=deque)

    @property
    def under_way(self) -> list[Command]:
        return [one for one in self.commands.values() if one.given and one.end is None]


class WaitingCommands(HeldRequests[_Place]):
    """The agents that take commands here, by node, and their commands."""

    times: Times

    def __init__(self, times: Times | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(times or Times(), clock)

    @property
    def under_way(self) -> int:
        """How many commands were given to agents and have not ended."""
        with self._lock:
            return sum(len(place.under_way) for place in self._places.values())

    def let_go(self) -> None:
        """Answer all who wait now and from now on at once: this process ends, and with it what is known of commands.

        Their agents end them, when they find that nobody knows of them any more.
        """
        with self._lock:
            super().let_go()
            for command in [one for place in self._places.values() for one in place.commands.values() if not one.end]:
                self._finish(command, End("lost" if command.begun else "unreachable", reason=_THIS_ENDS))

    # -- who orders -----------------------------------------------------------------------

    def order(self, node: NodeId, order: str, parcel: bytes) -> Command:
        """Have the node's agent carry an order out. Raises Unavailable when it is not there, AlreadyExists."""
        with self._lock:
            now, place = self._clock(), self._places.get(node)
            if place is None or not self._is_there(place, now):
                raise Unavailable(_NOT_THERE)
            if self._ends:
                raise Unavailable(_THIS_ENDS)
            self._purge(place, now)
            if order in place.commands:
                raise AlreadyExists("this order came before.")
            if len(place.line) >= MOST_ORDERS:
                raise Unavailable(f"{MOST_ORDERS} commands wait for its agent already.")
            command = place.commands[order] = Command(node, order, parcel, now)
            place.line.append(command)
        place.bell.ring()
        return command

    async def follow(self, command: Command) -> AsyncGenerator[Event | None, None]:
        """What becomes of a command, to its end; None now and then when there is nothing new.

        Who leaves early has it stopped.
        """
        try:
            while True:
                event: Event | None = await command.bell.until(lambda: self._taken(command), self.times.look)
                yield event
                if isinstance(event, End):
                    return
        finally:
            self._leave(command)

    def stop(self, node: NodeId, order: str) -> None:
        """Have a command end that is under way, or not begin. Raises NotFound."""
        with self._lock:
            place = self._places.get(node)
            command = place.commands.get(order) if place is not None else None
            if command is None:
                raise NotFound("There is no such command here.")
            self._stop(command)

    # -- agents ---------------------------------------------------------------------------

    async def hold(self, node: NodeId, listener: str, room: int) -> AsyncGenerator[bytes, None]:
        """The answer to an agent that waits: one document, when there is something to do or it waited long enough."""
        mine = object()
        place, most = self._arrived(node, mine, listener, room)
        with self._waits(place, mine) as answer:
            found = await self._something(place, mine, most)
            answer()
            yield agent.canonical(found)

    def belongs(self, node: NodeId, order: str) -> Command:
        """A command that this node was given. Raises NotFound."""
        with self._lock:
            place = self._places.get(node)
            command = place.commands.get(order) if place is not None else None
            if command is None or not command.given:
                raise NotFound("This node was not given such a command, or it was given up.")
            return command

    def check(self, command: Command, number: int) -> None:
        """Raises Conflict for the number of a piece that is too high, NotFound for a command that was given up."""
        with self._lock:
            if number > command.next:
                raise Conflict(f"Piece {command.next} of the output comes before piece {number}.")
            if number == command.next and command.end is not None:
                raise NotFound("This command was given up.")

    async def put(self, command: Command, number: int, output: Output | None, end: End | None) -> Verdict:
        """Take piece `number` of what a command prints, or its end; the same piece may come again.

        Piece 0 means that the agent begins, unless it is the end. `check` says first what will be refused.
        """
        taken = await command.bell.until(lambda: self._accepted(command, number, output, end), self.times.room)
        given_up = end is None and command.end is not None  # what came late must not begin
        return Verdict(received=taken is not None, stop=given_up or bool(command.stopped))

    # -- under the lock -------------------------------------------------------------------

    def _arrived(self, node: NodeId, mine: object, listener: str, room: int) -> tuple[_Place, int]:
        """What is known of the node, and how many commands may be under way there while its agent waits."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            place = self._places.setdefault(node, _Place(now))
            self._purge(place, now)
            place.waiter, place.listener = mine, listener
            for command in place.under_way:
                if command.begun and command.listener != listener:
                    self._finish(command, End("lost", reason="its agent was started anew."))
            most = room + len(place.under_way)
        place.bell.ring()
        return place, most

    async def _something(self, place: _Place, mine: object, most: int) -> agent.CommandWake:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.times.hold
        while (rest := deadline - loop.time()) > 0:
            patience = min(rest, self.times.again) if self._may_repeat(place) else rest
            found = await place.bell.until(lambda: self._next(place, mine, most), patience)
            if found is not None:
                return found
        return {"status": "idle"}

    def _may_repeat(self, place: _Place) -> bool:
        """Whether something may have to be told again, so that one has to look although nothing happens."""
        with self._lock:
            return any(not one.begun or one.stopped for one in place.under_way)

    def _next(self, place: _Place, mine: object, most: int) -> agent.CommandWake | None:
        with self._lock:
            if place.waiter is not mine:
                return {"status": "replaced"}
            if self._ends:
                return {"status": "idle"}
            now = self._clock()
            for command in place.under_way:
                if command.begun and command.stopped and now - command.stop_told >= self.times.again:
                    command.stop_told = now
                    return {"status": "stop", "command": command.id}
                if not command.begun and now - command.given_again >= self.times.again:
                    return self._given(place, command, now)
            while place.line and len(place.under_way) < most:
                command = place.line.popleft()
                if command.end is None:
                    command.given = now
                    return self._given(place, command, now)
            return None

    def _given(self, place: _Place, command: Command, now: float) -> agent.CommandWake:
        command.given_again, command.listener = now, place.listener
        return {"status": "command", "command": command.id, "order": base64.b64encode(command.parcel).decode()}

    def _accepted(self, command: Command, number: int, output: Output | None, end: End | None) -> bool | None:
        """None while there is no room."""
        with self._lock:
            if number != command.next or command.end is not None:
                return True
            command.heard = self._clock()
            if output is not None and output.data and not command.left:
                if command.size and command.size + len(output.data) > BUFFER_BYTES:
                    return None
                command.output.append(output)
                command.size += len(output.data)
            command.next += 1
            if end is not None:
                self._finish(command, end)
            else:
                command.begun = True
                command.bell.ring()
            return True

    def _taken(self, command: Command) -> Event | None:
        """What is new; the end comes last."""
        with self._lock:
            self._settle(command)
            if command.begun and not command.told_begun:
                command.told_begun = True
                return Begun()
            if command.output:
                stream, data = _together(command.output)
                command.size -= len(data)
                command.bell.ring()
                return Output(stream, data)
            return command.end

    def _settle(self, command: Command) -> None:
        """End a command that nothing more will be heard of."""
        if command.end is not None:
            return
        now, place = self._clock(), self._places.get(command.node)
        if command.begun:
            if command.stopped and now - command.stopped > self.times.stop:
                self._finish(command, End("lost", reason="its agent does not tell that it ended."))
            elif now - command.heard > self.times.silence:
                self._finish(
                    command, End("lost", reason=f"its agent has said nothing for {now - command.heard:.0f} s.")
                )
        elif place is None or not self._is_there(place, now):
            self._finish(command, End("unreachable", reason=_BEFORE_IT_BEGAN))
        elif command.given and now - command.given > self.times.begin:
            self._finish(command, End("unreachable", reason="its agent did not begin what it was given."))
        elif not command.given and now - command.since > self.times.line:
            self._finish(command, End("unreachable", reason="its agent is busy with other commands."))

    def _stop(self, command: Command) -> None:
        if command.end is not None:
            return
        if not command.begun:
            # The agent asks before it begins, and is told then that it must not.
            self._finish(command, End("aborted", reason="Stopped before it began."))
        command.stopped = command.stopped or self._clock()
        place = self._places.get(command.node)
        if place is not None:
            place.bell.ring()

    def _leave(self, command: Command) -> None:
        with self._lock:
            command.left = True
            command.output.clear()
            command.size = 0
            self._stop(command)
        command.bell.ring()

    def _finish(self, command: Command, end: End) -> None:
        command.end, command.ended, command.parcel = end, self._clock(), b""
        command.bell.ring()
        place = self._places.get(command.node)
        if place is not None:
            if not command.given:
                place.line = deque(one for one in place.line if one is not command)
            place.bell.ring()

    def _purge(self, place: _Place, now: float) -> None:
        for command in place.commands.values():
            if command.left:
                self._settle(command)  # nobody else looks
        old = [one.id for one in place.commands.values() if one.end is not None and now - one.ended > self.times.kept]
        for order in old:
            del place.commands[order]

    def _is_over(self, place: _Place, now: float) -> bool:
        self._purge(place, now)
        return not self._is_there(place, now) and not place.commands


def _together(output: deque[Output]) -> tuple[Stream, bytes]:
    """All that comes next of one stream."""
    stream = output[0].stream
    pieces = []
    while output and output[0].stream == stream:
        pieces.append(output.popleft().data)
    return stream, b"".join(pieces)
