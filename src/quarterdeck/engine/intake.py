# SPDX-License-Identifier: Apache-2.0
"""From the spool into the database, as long as the process lives: one batch is one unit of work.

Runs as a thread of any one process of the machine that has the spool; a lock settles which. A batch whose process
is killed is done again by the next one, and stored once. How genuine agents' files get into the spool: `run_logs.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from quarterdeck.core import accounts
from quarterdeck.core.errors import Conflict, Invalid, Unavailable
from quarterdeck.formats import report_files
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Drain, Rejection
from quarterdeck.services import reactions, reports
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

log = logging.getLogger(__name__)

_MOST_RECORDS = 500
#: What the reports of one unit of work hold at most, decompressed; small files may unpack to a thousand times as much.
_MOST_BYTES = 64 * 1024 * 1024
_ATTEMPTS = 5
_DELAY_SECONDS = 0.05
QUARANTINE = "quarantine"


class Intake:
    """Takes batches. Not safe for threads: one drain, one intake."""

    def __init__(
        self,
        database: Database,
        *,
        keep_raw: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        counters: Counters | None = None,
    ) -> None:
        self._database = database
        self._keep_raw = keep_raw
        self._clock = clock
        self._counters = counters or Counters()
        self._prepared: date | None = None

    def take(self, records: Sequence[bytes]) -> Sequence[Rejection]:
        """Keep a batch; those that can never be kept, with reasons. Raises Unavailable, or what is at fault."""
        self._prepare()
        rejected: list[Rejection] = []
        for start, end in portions([reports.announced_bytes(record) for record in records], _MOST_BYTES):
            rejected += [one._replace(position=start + one.position) for one in self._keep(records[start:end])]
        return rejected

    def _keep(self, records: Sequence[bytes]) -> Sequence[Rejection]:
        began = time.perf_counter()
        try:
            rejected = self._in_one_unit_at_last(records)
        except reports.BatchTooLong:
            middle = len(records) // 2
            first, second = self._keep(records[:middle]), self._keep(records[middle:])
            return [*first, *(one._replace(position=middle + one.position) for one in second)]
        except Unavailable:
            self._counters.failed_for_now()
            raise
        self._count(len(records), len(rejected), time.perf_counter() - began)
        return rejected

    def _count(self, number: int, rejected: int, seconds: float) -> None:
        """What was rejected is counted when it is set aside."""
        if number > rejected:
            self._counters.report("ok", number - rejected)
            self._counters.succeeded(time.time())
        self._counters.processed(seconds / number, number)

    def _in_one_unit_at_last(self, records: Sequence[bytes]) -> Sequence[Rejection]:
        """The same, again a few times when the batch meets others. Raises Conflict when it meets them always."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return self._in_one_unit(records)
            except Conflict:
                self._counters.failed_for_now()
                time.sleep(_DELAY_SECONDS * attempt)
        return self._in_one_unit(records)

    def _in_one_unit(self, records: Sequence[bytes]) -> Sequence[Rejection]:
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


class SetAside:
    """Where rejected records go: genuine agents' files to failed files, under their names; others beside the spool."""

    def __init__(self, spool: Path, failed: FailedFiles | None, counters: Counters) -> None:
        self._quarantine = spool / QUARANTINE
        self._failed = failed
        self._counters = counters

    def __call__(self, record: bytes, rejection: Rejection) -> None:
        """Keep a record that was rejected; durable when this returns."""
        self._keep(record, rejection)
        self._counters.report(rejection.kind)
        self._counters.set_aside()

    def _keep(self, record: bytes, rejection: Rejection) -> None:
        try:
            slip, content = reports.unpack(record)
        except Invalid:
            spooling.quarantine(self._quarantine, record, rejection.reason)
            return
        if self._failed is None or not slip.file:
            spooling.quarantine(self._quarantine, record, rejection.reason)
            return
        identity = report_files.queue_id(slip.file)
        log.error("[%s] the report of node %s was set aside: %s", identity, slip.node, rejection.reason)
        self._failed.put(slip.file, content, rejection.reason, rejection.kind)


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


def run(
    database: Database,
    spool: Path,
    stop: threading.Event,
    *,
    keep_raw: bool = True,
    failed: FailedFiles | None = None,
    counters: Counters | None = None,
) -> None:
    """Drain the spool until told to stop. Blocks; give it a thread of its own and a connection of the pool."""
    counted = counters or Counters()
    taking = Intake(database, keep_raw=keep_raw, counters=counted)
    setting_aside = SetAside(spool, failed, counted)
    Drain(spool, taking.take, max_records=_MOST_RECORDS, set_aside=setting_aside).run(stop)
