# SPDX-License-Identifier: Apache-2.0
"""Work that takes as long for one as for many, done once for all threads that wait for it, as syncs of a disk are.

Whoever comes first does it; whoever comes meanwhile waits for the next turn, which one of them has. Knows no files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    #: rung when it is done, or when its thread is to do it for all that wait
    bell: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    error: BaseException | None = None


class GroupSync(Generic[T]):
    """Safe for threads. `work` gets the items of all that wait; when it raises, it has failed for each of them.

    What failed for one item only, `work` notes in that item.
    """

    def __init__(self, work: Callable[[Sequence[T]], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._queue: list[_Waiting[T]] = []
        self._working = False

    def take(self, item: T) -> None:
        """Have the work done for an item; done when this returns. Raises what the work raised."""
        mine = _Waiting(item)
        with self._lock:
            self._queue.append(mine)
            first, self._working = not self._working, True
        if not first:
            mine.bell.wait()
        if not mine.done:
            self._work_for_all()
        if mine.error is not None:
            raise mine.error

    def _work_for_all(self) -> None:
        with self._lock:
            group, self._queue = self._queue, []
        error: BaseException | None = None
        try:
            self._work([one.item for one in group])
        except BaseException as problem:  # noqa: BLE001  # each of them raises it
            error = problem
        with self._lock:
            if self._queue:
                self._queue[0].bell.set()
            else:
                self._working = False
        for one in group:
            one.error = error
            one.done = True
            one.bell.set()
