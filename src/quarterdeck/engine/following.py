# SPDX-License-Identifier: Apache-2.0
"""Following executions while they run: many wait on one connection that listens, and look when there is something new.

Who waits holds no thread and no connection. What a look finds is `services/following.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

import anyio
import anyio.to_thread

from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.sites import Site
from quarterdeck.services import following
from quarterdeck.services.context import Context
from quarterdeck.services.following import Event, Look, Position, State
from quarterdeck.storage import notices
from quarterdeck.storage.database import Database, Provenance

log = logging.getLogger(__name__)

#: Looks at the same time, with a connection each.
LOOKS = 2
#: Who follows looks at least this often, notice or not, and shows that the execution is still there.
SILENCE_SECONDS = 15.0
#: Looks of one follower are this far apart, and at least so many times as long as a look takes.
SHORTEST_SECONDS = 0.05
_RESTS = 4.0
_RETRY_SECONDS = 1.0
_EXECUTION = "execution "


class Follower:
    """Follows executions of a database, of whose pool it uses up to LOOKS connections."""

    def __init__(self, database: Database, site: Site | None = None, *, silence: float = SILENCE_SECONDS) -> None:
        self._database = database
        self._site = site or Site()
        self._silence = silence
        self._limiter = anyio.CapacityLimiter(LOOKS)
        self._waiting: dict[int, set[asyncio.Event]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Notices wake those who follow meanwhile."""
        task = asyncio.create_task(self._listen(), name="follower")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def follow(self, account: Account, execution_id: int, offset: int = 0) -> AsyncIterator[Event]:
        """Everything of an execution from an offset of its output on, until its end; `account` is who asks.

        It ends without an End when they may not see it any more, or it is gone.
        """
        news = asyncio.Event()
        self._waiting.setdefault(execution_id, set()).add(news)
        try:
            position = Position(execution_id, offset)
            while True:
                news.clear()
                began = monotonic()
                found = await self._looked(account, position)
                if found is None:
                    return
                took = monotonic() - began
                for event in found.events or [State(found.execution)]:
                    yield event
                if found.is_last:
                    return
                position = found.position
                if not found.more:
                    await asyncio.sleep(max(SHORTEST_SECONDS, _RESTS * took))
                    await self._rest(news)
        finally:
            self._forget(execution_id, news)

    async def _looked(self, account: Account, position: Position) -> Look | None:
        """What is new; None when there is nothing to see any more. A database that is away is waited for."""
        while True:
            try:
                return await anyio.to_thread.run_sync(self._look, account, position, limiter=self._limiter)
            except Unavailable as error:
                log.warning("execution %d is followed once the database answers: %s", position.execution_id, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except QuarterdeckError as error:
                log.info("execution %d is not followed any more: %s", position.execution_id, error)
                return None

    def _look(self, account: Account, position: Position) -> Look:
        with self._database.unit_of_work(Provenance(actor=account.name)) as store:
            ctx = Context(account=account, store=store, site=self._site)
            return following.look(following.as_now(ctx), position)

    async def _rest(self, news: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), self._silence)

    async def _listen(self) -> None:
        async for notice in notices.listen(self._database.url):
            self._wake(notice)

    def _wake(self, notice: str) -> None:
        """A new connection may have missed anything."""
        number = notice.removeprefix(_EXECUTION)
        if not notice:
            waiting = [one for some in self._waiting.values() for one in some]
        elif notice.startswith(_EXECUTION) and number.isdecimal():
            waiting = list(self._waiting.get(int(number), ()))
        else:
            return
        for one in waiting:
            one.set()

    def _forget(self, execution_id: int, news: asyncio.Event) -> None:
        some = self._waiting[execution_id]
        some.discard(news)
        if not some:
            del self._waiting[execution_id]
