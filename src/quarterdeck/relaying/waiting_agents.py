# SPDX-License-Identifier: Apache-2.0
"""Agents that wait here to be told to run, and what they print while they do.

An agent holds one request open (`held_requests.py`). Orders for a node that is busy wait in a short line. Output goes
through a bounded buffer: while it is full, the agent is told to send the same again. Safe for threads and for several
event loops.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.core.errors import Conflict, NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.remote_runs import Order
from quarterdeck.formats import agent
from quarterdeck.relaying import held_requests
from quarterdeck.relaying.bells import Bell
from quarterdeck.relaying.held_requests import HeldRequests

Verdict = Literal["received", "unwanted", "again"]

#: Orders of one node that wait behind its present run.
MOST_ORDERS = 8
#: Output of one run that nobody has read yet.
BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Times(held_requests.Times):
    """How long what may take, in seconds."""

    #: the longest run, and the longest wait for one
    run: float = 3600.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: the agent's exit status, or in `problem` why nobody knows."""

    status: int | None = None
    problem: str = ""


class Run:
    """A run that one node was asked for. Only this module changes it."""

    def __init__(self, node: NodeId, order: Order, now: float) -> None:
        self.id = str(uuid.uuid4())
        self.node = node
        self.order = order
        self.end: Ended | None = None
        self.begun = False
        #: whether the agent waited when it was asked
        self.at_once = False
        self.wanted = order.output
        self.since = self.heard = now
        #: the number of the piece that comes next
        self.next = 0
        self.text: deque[bytes] = deque()
        self.size = 0
        self.bell = Bell()


@dataclass(eq=False, slots=True)
class _Place(held_requests.Place):
    """What is known of one node. `run` is the last that it was given."""

    run: Run | None = None
    orders: deque[Run] = field(default_factory=deque)

    @property
    def busy(self) -> bool:
        return self.run is not None and self.run.end is None


class _Replaced:
    """What an agent is told whose node asks a second time."""


class _Nothing:
    """What an agent is told that is to ask again."""


class WaitingAgents(HeldRequests[_Place]):
    """The agents that wait here, by node, and their runs."""

    times: Times

    def __init__(self, times: Times | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(times or Times(), clock)

    # -- who asks for runs ----------------------------------------------------------------

    def reaches(self, node: NodeId) -> bool:
        """Whether the node's agent waits here, is at work, or was here a moment ago."""
        with self._lock:
            place = self._places.get(node)
            return place is not None and self._is_there(place, self._clock())

    def refusal(self, node: NodeId) -> str:
        """Why the node's agent can not be woken now; empty when it can."""
        with self._lock:
            place = self._places.get(node)
            if place is None or not self._is_there(place, self._clock()):
                return "its agent does not wait here for orders (quarterdeck-agent listen)."
            if len(place.orders) >= MOST_ORDERS:
                return f"{MOST_ORDERS} runs wait for its agent already."
            return ""

    def wake(self, node: NodeId, order: Order) -> Run:
        """Have the node's agent run, after what it was asked for before. Raises Unavailable when it is not there."""
        with self._lock:
            if refusal := self.refusal(node):
                raise Unavailable(refusal)
            place = self._places[node]
            run = Run(node, order, self._clock())
            run.at_once = place.waiter is not None
            place.orders.append(run)
        place.bell.ring()
        return run

    async def follow(self, run: Run) -> AsyncGenerator[bytes, None]:
        """What the agent prints, in whole lines, until `run.end` is there. Who leaves early only stops reading."""
        try:
            while True:
                piece = await run.bell.until(lambda: self._taken(run), self.times.look)
                if piece:
                    yield piece
                elif run.end is not None:
                    return
        finally:
            self.leave(run)

    async def begins(self, run: Run, seconds: float) -> None:
        """Wait until an agent that waited when it was asked begins, but no longer than so."""
        if run.at_once:
            await run.bell.until(lambda: run.begun or run.end is not None or None, seconds)

    def leave(self, run: Run) -> None:
        """Nobody wants to read what the agent prints any more."""
        with self._lock:
            run.wanted = False
            run.text.clear()
            run.size = 0
        run.bell.ring()

    # -- agents ---------------------------------------------------------------------------

    async def hold(self, node: NodeId) -> AsyncGenerator[bytes, None]:
        """The answer to an agent that waits: one document, when there is something to do or it waited long enough."""
        mine = object()
        place = self._arrived(node, mine)
        with self._waits(place, mine) as answer:
            found: Run | _Replaced | _Nothing | None = await place.bell.until(
                lambda: self._next(place, mine), self.times.hold
            )
            answer()
            yield agent.canonical(_wake(found))

    def belongs(self, node: NodeId, run_id: str) -> Run:
        """A run that this node was given. Raises NotFound."""
        with self._lock:
            place = self._places.get(node)
            if place is None or place.run is None or place.run.id != run_id:
                raise NotFound("This node was not asked for such a run, or it was given up.")
            return place.run

    def check(self, run: Run, number: int) -> None:
        """Raises Conflict for the number of a piece that is too high, and NotFound for a run that was given up."""
        with self._lock:
            if number > run.next:
                raise Conflict(f"Piece {run.next} of the output comes before piece {number}.")
            if number == run.next and run.end is not None:
                raise NotFound("This run was given up.")

    async def put(self, run: Run, number: int, text: bytes, status: int | None) -> Verdict:
        """Take piece `number` of a run's output, the last with the exit status; the same piece may come again.

        Piece 0 is empty and means that the agent begins. `check` says first what will be refused.
        """
        return await run.bell.until(lambda: self._accepted(run, number, text, status), self.times.room) or "again"

    # -- under the lock -------------------------------------------------------------------

    def _arrived(self, node: NodeId, mine: object) -> _Place:
        with self._lock:
            now = self._clock()
            self._sweep(now)
            place = self._places.setdefault(node, _Place(now))
            place.waiter = mine
            run = place.run
            if run is not None and run.begun and run.end is None:
                # An agent at work does not ask for more.
                self._finish(run, Ended(problem="its agent was started anew during the run."))
        place.bell.ring()
        return place

    def _next(self, place: _Place, mine: object) -> Run | _Replaced | _Nothing | None:
        with self._lock:
            if place.waiter is not mine:
                return _Replaced()
            if self._ends:
                return _Nothing()
            if place.busy:
                return place.run  # it was given before and did not arrive
            while place.orders:
                run = place.orders.popleft()
                if run.end is None:
                    place.run = run
                    run.heard = self._clock()
                    return run
            return None

    def _accepted(self, run: Run, number: int, text: bytes, status: int | None) -> Verdict | None:
        """None while there is no room."""
        with self._lock:
            now = self._clock()
            if number != run.next or run.end is not None:
                return "received" if run.wanted else "unwanted"
            run.heard = now
            if text and run.wanted:
                if run.size and run.size + len(text) > BUFFER_BYTES:
                    return None
                run.text.append(text)
                run.size += len(text)
            run.begun = True
            run.next += 1
            if status is not None:
                self._finish(run, Ended(status=status))
                self._places[run.node].seen = now
            run.bell.ring()
            return "received" if run.wanted else "unwanted"

    def _taken(self, run: Run) -> bytes | None:
        """All that is there; b"" at the end; None when there is nothing new."""
        with self._lock:
            self._settle(run)
            if run.text:
                piece = b"".join(run.text)
                run.text.clear()
                run.size = 0
                run.bell.ring()
                return piece
            return b"" if run.end is not None else None

    def _settle(self, run: Run) -> None:
        """End a run that nothing more will be heard of."""
        if run.end is not None:
            return
        now, place = self._clock(), self._places.get(run.node)
        if place is None or (not run.begun and not self._is_there(place, now)):
            self._finish(run, Ended(problem="its agent went away before it began."))
        elif run.begun and now - run.heard > self.times.silence:
            self._finish(run, Ended(problem=f"its agent has said nothing for {now - run.heard:.0f} s."))
        elif now - run.since > self.times.run:
            self._finish(run, Ended(problem=f"it takes longer than {self.times.run:.0f} s."))

    def _finish(self, run: Run, end: Ended) -> None:
        run.end = end
        run.bell.ring()

    def _is_there(self, place: _Place, now: float) -> bool:
        if place.run is not None and place.run.begun:
            self._settle(place.run)
        working = place.busy and place.run is not None and place.run.begun
        return working or super()._is_there(place, now)

    def _is_over(self, place: _Place, now: float) -> bool:
        if self._is_there(place, now):
            return False
        for run in (*place.orders, place.run):
            if run is not None and run.end is None:
                self._finish(run, Ended(problem="its agent went away before it began."))
        return True


def _wake(found: Run | _Replaced | _Nothing | None) -> agent.Wake:
    if found is None or isinstance(found, _Nothing):
        return {"status": "idle"}
    if isinstance(found, _Replaced):
        return {"status": "replaced"}
    order = found.order
    return {
        "status": "run",
        "run": found.id,
        "conditions": list(order.conditions),
        "audit": order.audit,
        "output": order.output,
    }
