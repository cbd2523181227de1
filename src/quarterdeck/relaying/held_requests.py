# SPDX-License-Identifier: Apache-2.0
"""Nodes whose agents hold a request open here: who waits, who was here a moment ago, and who is gone.

Who waits costs no thread. Safe for threads and for several event loops: state changes under one lock, and who waits is
woken on the loop where they wait. What they wait for: `waiting_agents.py`, `waiting_commands.py`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent
from quarterdeck.relaying.bells import Bell


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long what may take, in seconds."""

    #: how long a request of an agent that waits is held
    hold: float = agent.HOLD_SECONDS
    #: how long an agent may take to ask again
    back: float = 10.0
    #: how long a piece of output waits for room
    room: float = 20.0
    #: an agent at work says something, perhaps that there is nothing new, at least this often
    silence: float = 3.0 * agent.BEAT_SECONDS
    #: who reads output looks this often whether the agent is still there
    look: float = 5.0


@dataclass(eq=False, slots=True)
class Place:
    """What is known of one node: when its agent was last seen, and which of its requests waits."""

    seen: float
    waiter: object | None = None
    bell: Bell = field(default_factory=Bell)


PlaceT = TypeVar("PlaceT", bound=Place)


class HeldRequests(ABC, Generic[PlaceT]):
    """The requests that are held for one purpose, by node."""

    def __init__(self, times: Times, clock: Callable[[], float]) -> None:
        self.times = times
        self._clock = clock
        self._lock = threading.RLock()
        self._places: dict[NodeId, PlaceT] = {}
        self._swept = clock()
        self._ends = False

    @property
    def count(self) -> int:
        """How many agents wait now."""
        with self._lock:
            return sum(place.waiter is not None for place in self._places.values())

    def let_go(self) -> None:
        """Answer all who wait now and from now on at once: this process ends."""
        with self._lock:
            self._ends = True
            bells = [place.bell for place in self._places.values()]
        for bell in bells:
            bell.ring()

    @contextmanager
    def _waits(self, place: PlaceT, mine: object) -> Iterator[Callable[[], None]]:
        """While a request is held; to be called when it is answered."""
        answered = False

        def answer() -> None:
            nonlocal answered
            answered = True

        try:
            yield answer
        finally:
            with self._lock:
                if place.waiter is mine:
                    place.waiter = None
                    # Who hung up is gone; who got an answer comes again.
                    place.seen = self._clock() if answered else -self.times.back

    # -- under the lock -------------------------------------------------------------------

    def _is_there(self, place: PlaceT, now: float) -> bool:
        return place.waiter is not None or now - place.seen < self.times.back

    @abstractmethod
    def _is_over(self, place: PlaceT, now: float) -> bool:
        """Whether there is nothing to be remembered of a node; called now and then."""

    def _sweep(self, now: float) -> None:
        """Forget nodes that are gone, now and then."""
        if now - self._swept < self.times.hold:
            return
        self._swept = now
        for node in [node for node, place in self._places.items() if self._is_over(place, now)]:
            del self._places[node]
