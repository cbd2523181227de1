# SPDX-License-Identifier: Apache-2.0
"""Output of executions, in numbered blocks; what a block holds is `formats/log_blocks.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.storage.partitions import DailyPartitions
from quarterdeck.storage.runbook_tables import execution_logs

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_log = execution_logs.c
_DAYS = DailyPartitions("execution_logs", "at")
#: as many as a comparison takes
_ANY_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBlock:
    """`offset` counts the bytes of text before it, `size` those in it; `data` is the encoded block."""

    execution_id: int
    number: int
    at: datetime
    offset: int
    size: int
    lines: int
    data: bytes


class LogTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, blocks: Sequence[LogBlock]) -> None:
        """Keep blocks; one that is there already (it was sent twice) stays as it is."""
        rows = [
            {
                "execution_id": one.execution_id,
                "number": one.number,
                "at": one.at,
                "offset": one.offset,
                "size": one.size,
                "lines": one.lines,
                "data": one.data,
            }
            for one in blocks
        ]
        self._store.run(insert(execution_logs).on_conflict_do_nothing(), rows)

    def end(self, execution_id: int) -> tuple[int, int, datetime | None]:
        """Number of the next block, bytes of text so far, and when the last block was made."""
        last = (
            sqlalchemy.select(_log.number, _log.offset, _log.size, _log.at)
            .where(_log.execution_id == execution_id)
            .order_by(_log.number.desc())
            .limit(1)
        )
        row = self._store.run(last).first()
        return (row.number + 1, row.offset + row.size, row.at) if row is not None else (0, 0, None)

    def blocks(self, execution_id: int, offset: int, most: int, *, most_bytes: int = _ANY_BYTES) -> list[LogBlock]:
        """The next blocks that hold text behind an offset: `most` of them, and no more than `most_bytes` take."""
        behind = (
            sqlalchemy.select(execution_logs)
            .where(_log.execution_id == execution_id, _log.offset + _log.size > offset)
            .order_by(_log.number)
            .limit(most)
            .subquery()
        )
        before = sqlalchemy.func.sum(behind.c.size).over(order_by=behind.c.number) - behind.c.size
        counted = sqlalchemy.select(behind, before.label("before")).subquery()
        query = (
            sqlalchemy.select(counted).where(counted.c.before < min(most_bytes, _ANY_BYTES)).order_by(counted.c.number)
        )
        return [_from_row(row) for row in self._store.rows(query)]

    def last_lines(self, execution_id: int, lines: int) -> tuple[LogBlock, int] | None:
        """The block in which the last `lines` lines begin (at least 1), and how many of its lines are none of them.

        None when there are not that many.
        """
        total = sqlalchemy.func.sum(_log.lines).over(order_by=_log.number.desc()).label("total")
        counts = sqlalchemy.select(_log.number, total).where(_log.execution_id == execution_id).subquery()
        # Counted from the end, and no further than needed.
        enough = sqlalchemy.select(counts).where(counts.c.total >= lines).order_by(counts.c.number.desc()).limit(1)
        found = self._store.run(enough).first()
        if found is None:
            return None
        query = sqlalchemy.select(execution_logs).where(_log.execution_id == execution_id, _log.number == found.number)
        return _from_row(self._store.run(query).one()), int(found.total) - lines

    # -- partitions and retention -----------------------------------------------

    def ensure_partition(self, day: date) -> None:
        """Make the partition of a day (UTC) unless it is there."""
        _DAYS.ensure(self._store, day)

    def drop_before(self, day: date) -> int:
        """Forget the output of all days before this one (UTC); how many days went."""
        return _DAYS.drop_before(self._store, day)


def _from_row(row: sqlalchemy.Row[tuple[object, ...]]) -> LogBlock:
    return LogBlock(
        execution_id=row.execution_id,
        number=row.number,
        at=row.at,
        offset=row.offset,
        size=row.size,
        lines=row.lines,
        data=bytes(row.data),
    )
