# SPDX-License-Identifier: Apache-2.0
"""Letting every worker of a server come to rest, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from quarterdeck.daemon import administration, tls
from quarterdeck.daemon.config import Config
from quarterdeck.services import workers
from quarterdeck.services.context import Context
from quarterdeck.services.workers import ShownWorker

_LOOK_SECONDS = 0.5
#: What was asked to end does so within ten seconds; then somebody has to write it down.
_ABORT_SECONDS = 20.0


class Fleet:
    """The workers on the database of `url`, wherever they run."""

    def __init__(self, url: str, config: Config) -> None:
        self._url = url
        self._secret = tls.secret(config.data)

    def resume(self) -> int:
        """Let all that live begin again; how many they are."""
        with self._unit_of_work() as ctx:
            return len(workers.drain_all(ctx, draining=False))

    def drain(self, timeout: float | None, *, abort: bool, say: Callable[[str], None]) -> bool:
        """Wait until they run nothing; False when they still do after so many seconds. `say` hears of progress.

        With `abort` what runs is asked to end once the time is over, at once where there is no timeout.
        """
        end = time.monotonic() + timeout if timeout is not None else None
        asked, before = False, ""
        while True:
            is_over = end is not None and time.monotonic() >= end
            with self._unit_of_work() as ctx:
                living = workers.drain_all(ctx)
                running = sorted(execution for one in living for execution in one.executions)
                if running and abort and not asked and (is_over or end is None):
                    asked, end, is_over = True, time.monotonic() + _ABORT_SECONDS, False
                    workers.abort_executions(ctx, living)
                    say(f"Asking {len(running)} executions to end.")
            told = _progress(living, running)
            if told != before:
                say(told)
                before = told
            # Who was told only now may have taken something at the same moment: the next look sees it.
            if (not running and all(one.worker.draining for one in living)) or is_over:
                return not running
            time.sleep(_LOOK_SECONDS)

    def _unit_of_work(self) -> AbstractContextManager[Context]:
        return administration.unit_of_work(self._url, "quarterdeckd drain", self._secret)


def _progress(living: Sequence[ShownWorker], running: Sequence[int]) -> str:
    if not living:
        return "No worker runs."
    if not running:
        return f"{len(living)} workers run nothing any more."
    named = ", ".join(map(str, running[:5])) + (", ..." if len(running) > 5 else "")
    return f"{len(living)} workers still run {len(running)} executions: {named}"
