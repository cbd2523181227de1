# SPDX-License-Identifier: Apache-2.0
"""Threads that want the same work have it done together: nobody is told before it is done, and nobody is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from quarterdeck.relaying.group_syncs import GroupSync


class Held:
    """Work that stands still until it is let go on, turn by turn; `groups` is what was done together."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.fault: BaseException | None = None

    def __call__(self, items: Sequence[int]) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=30)
        if self.fault is not None:
            raise self.fault
        self.groups.append(list(items))


def begin(pool: ThreadPoolExecutor, sync: GroupSync[int], *items: int) -> list[Future[None]]:
    """Have items taken, each by a thread of its own, all of which wait when this returns."""
    futures = [pool.submit(sync.take, item) for item in items]
    while len(sync._queue) < len(items):
        threading.Event().wait(0.001)
    return futures


def test_those_who_come_during_a_turn_share_the_next_one_and_no_third() -> None:
    work = Held()
    sync = GroupSync(work)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(sync.take, 0)
        assert work.begun.acquire(timeout=30)
        second = begin(pool, sync, 1, 2, 3)
        work.go_on.release()

        first.result(30)
        assert work.begun.acquire(timeout=30)
        third = begin(pool, sync, 4)
        assert not any(one.done() for one in (*second, *third))
        work.go_on.release()
        for one in second:  # while the third turn stands still
            one.result(30)
        assert work.begun.acquire(timeout=30)
        assert not third[0].done()
        work.go_on.release()
        third[0].result(30)

    assert [sorted(group) for group in work.groups] == [[0], [1, 2, 3], [4]]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), MemoryError()])
def test_all_of_a_turn_that_fails_are_told_and_the_next_turn_is_another_one(fault: BaseException) -> None:
    work = Held()
    sync = GroupSync(work)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(sync.take, 0)
        assert work.begun.acquire(timeout=30)
        second = begin(pool, sync, 1, 2)
        work.go_on.release()
        first.result(30)
        assert work.begun.acquire(timeout=30)
        work.fault = fault
        work.go_on.release()

        assert [one.exception(30) for one in second] == [fault, fault]

        work.fault = None
        work.go_on.release()
        pool.submit(sync.take, 3).result(30)

    assert work.groups == [[0], [3]]


def test_each_of_many_threads_that_come_again_and_again_is_served_once() -> None:
    taken: list[int] = []
    sync = GroupSync(taken.extend)

    def work(number: int) -> None:
        for turn in range(200):
            mine = number * 1000 + turn
            sync.take(mine)
            assert mine in taken[-64:]  # at most eight wait at a time

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert sorted(taken) == [number * 1000 + turn for number in range(8) for turn in range(200)]
