# SPDX-License-Identifier: Apache-2.0
"""Writes down what running executions do: steps that begin and end, and blocks of their logs.

Everything that waits is written in one unit of work, so that a hundred steps which begin together cost one statement.
While the database is away everything waits, and so nothing begins. What belongs to an execution that is another
worker's by now is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
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

#: Opens a unit of work that commits when it is left without an error.
UnitsOfWork = Callable[[], AbstractContextManager[Context]]


@dataclass(slots=True)
class _Batch:
    """What waits to be written, with the futures of those who want to know."""

    begins: list[tuple[StepBegin, asyncio.Future[bool]]] = field(default_factory=list)
    ends: list[tuple[StepEnd, int]] = field(default_factory=list)
    blocks: list[tuple[LogBlock, int]] = field(default_factory=list)
    written: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.begins or self.ends or self.blocks or self.written)


class Recorder:
    """One per worker. `executor` is where the unit of work runs."""

    def __init__(self, units: UnitsOfWork, executor: Executor) -> None:
        self._units = units
        self._executor = executor
        self._batch = _Batch()
        self._wake = asyncio.Event()
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
        self._run()

    async def keep(self, blocks: Sequence[LogBlock], epoch: int) -> None:
        """Keep blocks of a log; returns when they are stored, or dropped because the execution is another's."""
        self._batch.blocks += [(block, epoch) for block in blocks]
        await self.written()

    async def written(self) -> None:
        """Wait until everything that was noted so far is written."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.written.append(future)
        self._run()
        await future

    async def close(self) -> None:
        """Stop writing; what waits is lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _run(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, _Batch()
            if not batch.is_empty:
                await self._write(batch)

    async def _write(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        allowed: set[StepBegin] = set()
        while True:
            try:
                allowed = await loop.run_in_executor(self._executor, self._in_one_unit, batch)
                break
            except (Conflict, Unavailable) as error:
                log.warning("what executions did waits to be written: %s", error.message)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                log.exception("what executions did could not be written")
                break
        for begin, future in batch.begins:
            _tell(future, begin in allowed)
        for done in batch.written:
            _tell(done, None)

    def _in_one_unit(self, batch: _Batch) -> set[StepBegin]:
        with self._units() as ctx:
            wanted = {one.execution_id for one, _ in batch.ends} | {one.execution_id for one, _ in batch.blocks}
            held = ctx.store.executions.hold(wanted) if wanted else {}
            if ends := [one for one, epoch in batch.ends if held.get(one.execution_id) == epoch]:
                ctx.store.executions.end_steps(ends)
            if blocks := [one for one, epoch in batch.blocks if held.get(one.execution_id) == epoch]:
                ctx.store.logs.append(blocks)
            begun = ctx.store.executions.begin_steps([one for one, _ in batch.begins]) if batch.begins else []
            self._tell_others(ctx, held, begun)
        return set(begun)

    def _tell_others(self, ctx: Context, held: Iterable[int], begun: Iterable[StepBegin]) -> None:
        for execution_id in {*held, *(one.execution_id for one in begun)}:
            notices.execution_changed(ctx.store, execution_id)


def _tell(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
