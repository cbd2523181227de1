# SPDX-License-Identifier: Apache-2.0
"""Writes down what running executions do: steps that begin and end, and blocks of their logs.

Everything that waits is written in one unit of work, so that a hundred steps which begin together cost one statement.
While the database is away everything waits, and so nothing begins. What belongs to an execution that is another
worker's by now is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.services.context import Context
from quarterdeck.storage import notices
from quarterdeck.storage.executions import StepBegin, StepEnd
from quarterdeck.storage.logs import LogBlock

T = TypeVar("T")

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
#: The end of a step waits so long for the beginning of the next one, or for output, to be written with it.
_SOON_SECONDS = 0.02
#: Units of work begin so far apart: each costs the same for one step and for fifty.
_APART_SECONDS = 0.015

#: Opens a unit of work that commits when it is left without an error.
UnitsOfWork = Callable[[], AbstractContextManager[Context]]


class Unwritable(Exception):
    """What an execution wants to have kept cannot be kept, whatever one tries."""


@dataclass(slots=True)
class _Batch:
    """What waits to be written, with the futures of those who want to know."""

    begins: list[tuple[StepBegin, asyncio.Future[bool]]] = field(default_factory=list)
    ends: list[tuple[StepEnd, int]] = field(default_factory=list)
    blocks: list[tuple[LogBlock, int]] = field(default_factory=list)
    #: with the execution whose blocks they are about; 0 for whoever just wants to know
    written: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    #: an earlier attempt may have come through
    again: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.begins or self.ends or self.blocks or self.written)

    @property
    def executions(self) -> set[int]:
        """Whose it is."""
        ids = {one.execution_id for one, _ in self.begins} | {one.execution_id for one, _ in self.ends}
        return ids | {one.execution_id for one, _ in self.blocks}

    def parts(self) -> Iterator[_Batch]:
        """One batch for each execution, and one for what is nobody's."""
        for execution in (*sorted(self.executions), 0):
            yield _Batch(
                begins=[one for one in self.begins if one[0].execution_id == execution],
                ends=[one for one in self.ends if one[0].execution_id == execution],
                blocks=[one for one in self.blocks if one[0].execution_id == execution],
                written=[one for one in self.written if one[0] == execution],
                again=self.again,
            )


class Recorder:
    """One per worker. `executor` is where the unit of work runs."""

    def __init__(self, units: UnitsOfWork, executor: Executor) -> None:
        self._units = units
        self._executor = executor
        self._batch = _Batch()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self, one: StepBegin) -> bool:
        """Note that a step is about to begin; False when it must not. Waits while the database is away."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._batch.begins.append((one, future))
        self._run()
        return await future

    def end(self, one: StepEnd, epoch: int) -> None:
        """Note what came of a step, soon; `written` tells when."""
        self._batch.ends.append((one, epoch))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON_SECONDS, self._run)

    async def keep(self, blocks: Sequence[LogBlock], epoch: int) -> None:
        """Keep blocks of an execution's log; returns when they are stored, or dropped because it is another's.

        Raises Unwritable when they cannot be stored.
        """
        self._batch.blocks += [(block, epoch) for block in blocks]
        await self._written(blocks[0].execution_id if blocks else 0)

    async def written(self) -> None:
        """Wait until everything that was noted so far is written."""
        await self._written(0)

    async def close(self, seconds: float) -> None:
        """Stop writing; what is not written within this time is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.written()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _written(self, execution_id: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.written.append((execution_id, future))
        self._run()
        await future

    def _run(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            await self._wake.wait()
            if (early := next_at - loop.time()) > 0:
                await asyncio.sleep(early)
            next_at = loop.time() + _APART_SECONDS
            self._wake.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch, self._batch = self._batch, _Batch()
            if not batch.is_empty:
                await self._write(batch)

    async def _write(self, batch: _Batch) -> None:
        try:
            allowed = await self._in_the_end(batch)
        except Exception as error:
            if len(batch.executions) > 1:
                # One of them spoils it for all: each on its own.
                for part in batch.parts():
                    await self._write(part)
                return
            log.exception("what executions did could not be written")
            _refuse(batch, error)
            return
        for begin, future in batch.begins:
            _tell(future, begin in allowed)
        for _, done in batch.written:
            _tell(done, None)

    async def _in_the_end(self, batch: _Batch) -> set[StepBegin]:
        """Write it, however long the database is away; the steps that may begin."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._executor, self._in_one_unit, batch)
            except (Conflict, Unavailable) as error:
                log.warning("what executions did waits to be written: %s", error.message)
                batch.again = True
                await asyncio.sleep(_RETRY_SECONDS)

    def _in_one_unit(self, batch: _Batch) -> set[StepBegin]:
        ids = batch.executions
        if not ids:
            return set()
        with self._units() as ctx:
            store = ctx.store.executions
            held = store.hold(ids) if batch.ends or batch.blocks else {}
            if ends := [one for one, epoch in batch.ends if held.get(one.execution_id) == epoch]:
                store.end_steps(ends)
            if blocks := [one for one, epoch in batch.blocks if held.get(one.execution_id) == epoch]:
                ctx.store.logs.append(blocks)
            begins = [one for one, _ in batch.begins]
            begun = store.begin_steps(begins, again=batch.again) if begins else []
            notices.execution_changed(ctx.store, *sorted(ids))
        return set(begun)


def _refuse(batch: _Batch, error: Exception) -> None:
    for _, begun in batch.begins:
        _tell(begun, value=False)
    for execution, done in batch.written:
        if not execution:
            _tell(done, None)
        elif not done.done():
            done.set_exception(Unwritable(str(error)))


def _tell(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
