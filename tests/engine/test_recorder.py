# SPDX-License-Identifier: Apache-2.0
"""What is written about executions: only by their owner, everything of it once, and none at the cost of another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from tests.engine.worlds import World

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.executions import State, StepState
from quarterdeck.engine.recorder import Recorder, Unwritable
from quarterdeck.services import execution_work, executions
from quarterdeck.services.context import Context
from quarterdeck.storage.executions import StepBegin, StepEnd
from quarterdeck.storage.logs import LogBlock

Scene = Callable[[Recorder], Awaitable[None]]


def play(world: World, scene: Scene, units: Callable[[], object] | None = None) -> None:
    """Let a scene use a recorder."""

    async def whole() -> None:
        with ThreadPoolExecutor(1) as pool:
            recorder = Recorder(units or world.units, pool)  # type: ignore[arg-type]  # as `World.units`
            try:
                async with asyncio.timeout(20):
                    await scene(recorder)
            finally:
                await recorder.close(5)

    asyncio.run(whole())


@pytest.fixture
def owned(world: World) -> tuple[int, int]:
    """Two executions that worker 1 owns, each in epoch 1."""
    worker = world.do(lambda ctx: ctx.store.workers.add("host", 1))
    numbers = world.command("true"), world.command("true")
    for number in numbers:
        world.do(lambda ctx, number=number: execution_work.claim(ctx, number, worker))  # type: ignore[misc]  # the loop's
    return numbers


def step(execution: int, name: str = "1", *, epoch: int = 1) -> StepBegin:
    return StepBegin(execution_id=execution, epoch=epoch, step=name, node="here")


def block(execution: int, number: int, size: int = 2) -> LogBlock:
    now = datetime.now(UTC)
    return LogBlock(execution_id=execution, number=number, at=now, offset=0, size=size, lines=1, data=b"x")


def test_a_step_begins_once_in_its_epoch_and_not_after_an_abort(world: World, owned: tuple[int, int]) -> None:
    one, other = owned

    async def scene(recorder: Recorder) -> None:
        begun = await asyncio.gather(
            recorder.begin(step(one)), recorder.begin(step(one, "2", epoch=2)), recorder.begin(step(other))
        )
        assert list(begun) == [True, False, True]
        assert not await recorder.begin(step(one))
        await asyncio.to_thread(world.do, lambda ctx: ctx.store.executions.ask_to_abort(one, "somebody"))
        assert not await recorder.begin(step(one, "2"))

    play(world, scene)

    assert world.steps(one) == world.steps(other) == {("1", "here"): "begun"}


def test_what_belongs_to_another_epoch_is_dropped(world: World, owned: tuple[int, int]) -> None:
    one, other = owned

    async def scene(recorder: Recorder) -> None:
        await recorder.begin(step(one))
        await recorder.begin(step(other))
        await asyncio.to_thread(world.do, lambda ctx: ctx.store.executions.raise_epoch(one))
        for number in owned:
            recorder.end(StepEnd(execution_id=number, step="1", node="here", state=StepState.SUCCEEDED), 1)
            await recorder.keep([block(number, 0)], 1)

    play(world, scene)

    assert world.steps(one) == {("1", "here"): "begun"}
    assert world.steps(other) == {("1", "here"): "succeeded"}
    assert world.do(lambda ctx: [ctx.store.logs.end(number)[0] for number in owned]) == [0, 1]


def test_what_cannot_be_written_harms_its_own_execution_alone(world: World, owned: tuple[int, int]) -> None:
    one, other = owned

    async def scene(recorder: Recorder) -> None:
        results = await asyncio.gather(
            recorder.begin(step(one)),
            recorder.begin(step(other)),
            recorder.keep([block(one, 0, size=2**40)], 1),
            recorder.keep([block(other, 0)], 1),
            return_exceptions=True,
        )
        assert list(results[:2]) == [False, True]
        assert isinstance(results[2], Unwritable)
        assert results[3] is None
        assert await recorder.begin(step(one, "2"))

    play(world, scene)

    assert world.steps(one) == {("2", "here"): "begun"}
    assert world.do(lambda ctx: [ctx.store.logs.end(number)[0] for number in owned]) == [0, 1]


def test_a_beginning_of_which_nobody_heard_is_not_refused_when_it_is_asked_for_again(
    world: World, owned: tuple[int, int]
) -> None:
    attempts = 0

    @contextmanager
    def deaf() -> Iterator[Context]:
        """The first commit comes through, and its answer does not."""
        nonlocal attempts
        attempts += 1
        with world.units() as ctx:
            yield ctx
        if attempts == 1:
            raise Unavailable("The database does not answer.")

    async def scene(recorder: Recorder) -> None:
        assert await recorder.begin(step(owned[0]))
        assert not await recorder.begin(step(owned[0]))

    play(world, scene, deaf)

    assert attempts == 3
    assert world.steps(owned[0]) == {("1", "here"): "begun"}


def test_the_end_leaves_no_step_begun(world: World, owned: tuple[int, int]) -> None:
    async def scene(recorder: Recorder) -> None:
        await recorder.begin(step(owned[0]))

    play(world, scene)
    ended = world.do(lambda ctx: executions.finish(ctx, owned[0], 1, State.FAILED))

    assert ended
    assert world.steps(owned[0]) == {("1", "here"): "abandoned"}
    assert not world.do(lambda ctx: executions.finish(ctx, owned[0], 1, State.SUCCEEDED))
