# SPDX-License-Identifier: Apache-2.0
"""Waking those who wait for something to change, each on their own event loop; from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")


class Bell:
    """Wakes those who wait for something, each on their own event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Let all who wait look again."""
        with self._lock:
            ears = list(self._ears.items())
        for event, loop in ears:
            with suppress(RuntimeError):  # a loop that was closed
                loop.call_soon_threadsafe(event.set)

    async def until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """What `look` finds, as soon as it finds something; None after so long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with self._heard(loop) as event:
            while (found := look()) is None and (rest := deadline - loop.time()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await event.wait()
                event.clear()
            return found

    @contextmanager
    def _heard(self, loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        with self._lock:
            self._ears[event] = loop
        try:
            yield event
        finally:
            with self._lock:
                del self._ears[event]
