# SPDX-License-Identifier: Apache-2.0
"""Agents that wait to be told to run, played in the process of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from quarterdeck.core.ids import NodeId
from quarterdeck.relaying.waiting_agents import Times, WaitingAgents

NEAR, NEXT = NodeId("near"), NodeId("next")
QUICK = Times(hold=5, back=0.05, room=0.1, silence=0.3, run=5, look=0.02)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


async def asks(agents: WaitingAgents, node: NodeId) -> dict[str, Any]:
    """One request of an agent that waits, and its answer."""
    found = [json.loads(piece) async for piece in agents.hold(node)]
    assert len(found) == 1
    return dict(found[0])


async def listens(agents: WaitingAgents, node: NodeId, *lines: str, status: int = 0, rests: float = 0.0) -> Any:
    """An agent that carries out one order: it begins, prints, and ends. The order."""
    order = await asks(agents, node)
    run = agents.belongs(node, order["run"])
    assert await agents.put(run, 0, b"", None) in ("received", "unwanted")
    for number, line in enumerate(lines, 1):
        await agents.put(run, number, f"{line}\n".encode(), None)
        await asyncio.sleep(rests)
    await agents.put(run, len(lines) + 1, b"", status)
    return order


async def waiting(agents: WaitingAgents, count: int) -> None:
    """Until so many agents wait."""
    while agents.count < count:  # noqa: ASYNC110  # nobody tells when an agent has come
        await asyncio.sleep(0.005)


async def everything(pieces: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in pieces]).decode()
