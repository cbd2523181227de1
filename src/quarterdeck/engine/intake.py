# SPDX-License-Identifier: Apache-2.0
"""From the spool into the database, as long as the process lives: one batch is one unit of work.

Runs as a thread of any one process of the machine that has the spool; a lock settles which. A batch whose process
is killed is done again by the next one, and stored once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from quarterdeck.core import accounts
from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.formats import run_documents
from quarterdeck.relaying.spool import Drain
from quarterdeck.services import reactions, reports
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

log = logging.getLogger(__name__)

_MOST_RECORDS = 500
#: What the reports of one unit of work hold at most, decompressed; small files may unpack to a thousand times as much.
_MOST_BYTES = 64 * 1024 * 1024
_ATTEMPTS = 5
_DELAY_SECONDS = 0.05


class Intake:
    """Takes batches. Not safe for threads: one drain, one intake."""

    def __init__(
        self, database: Database, *, keep_raw: bool = True, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._keep_raw = keep_raw
        self._clock = clock
        self._prepared: date | None = None

    def take(self, records: Sequence[bytes]) -> Sequence[tuple[int, str]]:
        """Keep a batch; those that can never be kept, with reasons. Raises Unavailable, or what is at fault."""
        self._prepare()
        rejected: list[tuple[int, str]] = []
        for start, end in portions([run_documents.announced_bytes(record) for record in records], _MOST_BYTES):
            rejected += [(start + position, reason) for position, reason in self._keep(records[start:end])]
        return rejected

    def _keep(self, records: Sequence[bytes]) -> Sequence[tuple[int, str]]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._in_one_unit(records)
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(_DELAY_SECONDS * attempt)
        raise Unavailable("The batch met others too often.")

    def _in_one_unit(self, records: Sequence[bytes]) -> Sequence[tuple[int, str]]:
        with self._database.unit_of_work(Provenance(actor=accounts.SYSTEM.name, reason="reports")) as store:
            store.now = self._clock()
            ctx = Context(account=accounts.SYSTEM, store=store)
            rejected = reports.ingest(ctx, records, keep_raw=self._keep_raw)
            reactions.follow(ctx)
            store.commit()
        return rejected

    def _prepare(self) -> None:
        """Partitions for today and the next days, once a day."""
        today = self._clock().astimezone(UTC).date()
        if self._prepared == today:
            return
        with self._database.unit_of_work(Provenance(actor=accounts.SYSTEM.name, reason="partitions")) as store:
            store.now = self._clock()
            reports.prepare_partitions(Context(account=accounts.SYSTEM, store=store))
            store.commit()
        self._prepared = today


def portions(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """(start, end) of neighbours that together are at most `most`; what is larger stands alone."""
    start = total = 0
    for position, size in enumerate(sizes):
        if total + size > most and position > start:
            yield start, position
            start, total = position, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def run(database: Database, spool: Path, stop: threading.Event, *, keep_raw: bool = True) -> None:
    """Drain the spool until told to stop. Blocks; give it a thread of its own and a connection of the pool."""
    Drain(spool, Intake(database, keep_raw=keep_raw).take, max_records=_MOST_RECORDS).run(stop)
