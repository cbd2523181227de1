# SPDX-License-Identifier: Apache-2.0
"""A step that applies policies, on one node: its agent runs, and the run's report is waited for.

    the agent runs ── what it prints ──> log;  its end ──> the report is in the database ──> compliance ──> verdict

How agents are reached is `relaying/`'s; a worker asks the API process of its server, as for commands (`agents.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from quarterdeck.core import policy_steps
from quarterdeck.core.ids import NodeId
from quarterdeck.core.policy_steps import Wanted
from quarterdeck.core.remote_runs import Order, Printed, RunEnd
from quarterdeck.engine.transports import NodeResult, Sink
from quarterdeck.services.compliance import LatestRun, NodeCompliance

#: The agent's exit statuses that say that it applied the policies.
_DONE, _IN_ERROR = 0, 2
#: Ours, as the agent's, where the node is not as compliant as it should be.
_NOT_COMPLIANT = 3
_REASONS = {
    1: "The agent could not apply the policies",
    _IN_ERROR: "Some component is in error",
    4: "Another run of the agent is under way",
}
#: Between two looks for the report: the first pause, which doubles up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
#: A new run that seems to have begun before it was asked for is taken for ours when no other follows for so long: the
#: node's clock may be behind.
_SETTLE_SECONDS = 5.0


class Runs(Protocol):
    """Where runs are asked for: `relaying/policy_runs.py`."""

    def run(self, node: NodeId, order: Order) -> AsyncGenerator[Printed | RunEnd, None]:
        """What the agent prints, to its end; the run goes on when nobody reads any more."""


class Known(Protocol):
    """What the server knows of a node's runs."""

    async def latest_run(self, node: NodeId) -> LatestRun:
        """The newest run that was heard of."""

    async def compliance(self, node: NodeId) -> NodeCompliance:
        """What was decided about the node last."""


@dataclass(kw_only=True)
class PolicyRun:
    """One step on one node. `say` writes a line into the log, of a level."""

    node: NodeId
    name: str
    wanted: Wanted
    runs: Runs
    known: Known
    say: Callable[[str, Literal["INFO", "WARN"]], None]
    settle_seconds: float = _SETTLE_SECONDS
    _asked: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)

    async def carry_out(self, sink: Sink, stop: asyncio.Event) -> NodeResult:
        """Whether the policies were applied, and the node is as compliant as wanted. A stop ends this at once."""
        if stop.is_set():
            return NodeResult(ending="aborted", reason="Stopped before it began.")
        working = asyncio.create_task(self._whole(sink))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else NodeResult(ending="aborted", reason=self._left())
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({stopping, working})

    def _left(self) -> str:
        if self._over:
            return f"Stopped: the policies of {self.name} were applied, its report is not waited for."
        if self._asked:
            return f"Stopped: a run of policies is not cut, the one on {self.name} goes on."
        return "Stopped before it began."

    async def _whole(self, sink: Sink) -> NodeResult:
        before = await self.known.latest_run(self.node)
        self._asked = True
        end, printed = await self._run(sink)
        self._over = True
        if end.problem or end.status is None:
            return _not_done(end, printed=printed)
        if end.status not in (_DONE, _IN_ERROR):
            return _ended(end.status, _REASONS.get(end.status, f"The agent ended with status {end.status}"))
        if not self.wanted.audit:  # else it sends no report
            missed = await self._compliance(before, end.status)
            if missed is not None:
                return missed
        if end.status == _IN_ERROR and self.wanted.compliance is None:
            return _ended(end.status, _REASONS[end.status])
        return _ended(_DONE)

    async def _run(self, sink: Sink) -> tuple[RunEnd, bool]:
        """The end, and whether the agent has said anything; all of that is written down."""
        printed = False
        order = Order(conditions=self.wanted.conditions, audit=self.wanted.audit)
        async with aclosing(self.runs.run(self.node, order)) as events:
            async for event in events:
                if isinstance(event, RunEnd):
                    return event, printed
                printed = True
                if not sink.write("stdout", f"{event.text}\n".encode(errors="replace")):
                    await sink.ready()
        return RunEnd(problem="its end was not told."), printed

    # -- the report -----------------------------------------------------------------------

    async def _compliance(self, before: LatestRun, status: int) -> NodeResult | None:
        """Tell the compliance after the run; what keeps the step from succeeding because of it."""
        least = self.wanted.compliance
        if not (await self.known.compliance(self.node)).reports:
            if least is None:
                return None
            reason = f"No reports are expected of {self.name}, so that its compliance is not known"
            return _ended(status or _NOT_COMPLIANT, reason)
        if not await self._reported(before):
            reason = f"No report of the run came within {self.wanted.wait_seconds} s"
            if least is not None:
                return NodeResult(ending="timeout", reason=f"{reason}, so that the compliance is not known")
            self.say(f"{reason}.", "WARN")
            return None
        counts = (await self.known.compliance(self.node)).counts
        self.say(policy_steps.described(self.name, counts), "INFO")
        reason = "" if least is None else policy_steps.shortfall(counts, least)
        return _ended(status or _NOT_COMPLIANT, reason) if reason else None

    async def _reported(self, before: LatestRun) -> bool:
        """Whether the report of the run comes in time."""
        loop = asyncio.get_running_loop()
        last = loop.time() + self.wanted.wait_seconds
        pause = _FIRST_PAUSE
        #: the newest run that is not certainly ours, and since when it is
        doubtful: tuple[datetime, float] | None = None
        while True:
            found = (await self.known.latest_run(self.node)).at
            now = loop.time()
            if found is not None and (before.at is None or found > before.at):
                # Some agents tell whole seconds.
                if found >= before.now.replace(microsecond=0):
                    return True
                if doubtful is None or doubtful[0] != found:
                    doubtful = (found, now)
                if now - doubtful[1] >= self.settle_seconds:
                    return True
            if now >= last:
                return doubtful is not None
            await asyncio.sleep(min(pause, max(last - now, 0.0)))
            pause = min(2 * pause, _LONGEST_PAUSE)


def _not_done(end: RunEnd, *, printed: bool) -> NodeResult:
    problem = end.problem or "its end is not known."
    if printed or end.via:
        return NodeResult(ending="lost", reason=f"What became of the run is not known: {problem}")
    return NodeResult(ending="unreachable", reason=f"The node's agent is not asked to run: {problem}")


def _ended(status: int, reason: str = "") -> NodeResult:
    return NodeResult(ending="ended", exit_status=status, reason=reason)
