# SPDX-License-Identifier: Apache-2.0
"""Commands over real SSH: their output, their ends, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.sshd import Kept, Sshd

from quarterdeck.engine.ssh import Access, Pool
from quarterdeck.engine.transports import Command, NodeResult

T = TypeVar("T")


def with_pool(work: Callable[[Pool], Awaitable[T]]) -> T:
    async def main() -> T:
        pool = Pool()
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(main())


def run(access: Access, line: str, **command: object) -> tuple[NodeResult, Kept]:
    kept = Kept()

    async def work(pool: Pool) -> NodeResult:
        wanted = Command(line=line, **command)  # type: ignore[arg-type]  # the test names fields
        return await pool.transport(access).run(wanted, kept, asyncio.Event())

    return with_pool(work), kept


def test_a_command_runs_on_the_node_and_says_how_it_ended(sshd: Sshd) -> None:
    result, kept = run(sshd.access(), "echo hello; exit 3")

    assert result == NodeResult(ending="ended", exit_status=3)
    assert kept.stdout == b"hello\n"
