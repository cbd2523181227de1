# SPDX-License-Identifier: Apache-2.0
"""Long outputs read for clients, a page at a time: between two pages no thread and no connection is held."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.logs import LogEntry
from quarterdeck.services import execution_output
from quarterdeck.services.context import Context
from quarterdeck.services.execution_output import PAGE_BYTES, Page
from quarterdeck.storage.database import Database, Provenance

#: Pages read at the same time, with a connection each.
_READERS = 2


class LogPages:
    """Reads outputs of a database's executions. Who calls has made sure that the client may see them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limiter = anyio.CapacityLimiter(_READERS)

    async def __call__(self, execution_id: int, begin: int, end: int) -> AsyncIterator[list[LogEntry]]:
        """What lies between two offsets; less when it is forgotten meanwhile."""
        while begin < end:
            most = min(PAGE_BYTES, end - begin)
            page = await anyio.to_thread.run_sync(self._read, execution_id, begin, most, limiter=self._limiter)
            if page.next_offset <= begin:
                return
            yield page.entries
            begin = page.next_offset

    def _read(self, execution_id: int, offset: int, most: int) -> Page:
        with self._database.unit_of_work(Provenance(actor=SYSTEM.name)) as store:
            ctx = Context(account=SYSTEM, store=store)
            return execution_output.read(ctx, execution_id, offset=offset, most_bytes=most)
