# SPDX-License-Identifier: Apache-2.0
"""Output of executions, in numbered blocks; what a block holds is `formats/log_blocks.py`'s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.storage.tables import execution_logs

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


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
            sqlalchemy.select(execution_logs)
            .where(execution_logs.c.execution_id == execution_id)
            .order_by(execution_logs.c.number.desc())
            .limit(1)
        )
        row = self._store.run(last).first()
        return (row.number + 1, row.offset + row.size, row.at) if row is not None else (0, 0, None)

    def blocks(self, execution_id: int, offset: int, most: int) -> list[LogBlock]:
        """The next blocks that hold text at or behind an offset, `most` of them."""
        query = (
            sqlalchemy.select(execution_logs)
            .where(
                execution_logs.c.execution_id == execution_id,
                execution_logs.c.offset + execution_logs.c.size > offset,
            )
            .order_by(execution_logs.c.number)
            .limit(most)
        )
        return [_from_row(row) for row in self._store.rows(query)]

    def last_blocks(self, execution_id: int, lines: int) -> Iterator[LogBlock]:
        """The last blocks that together hold so many lines (as far as there are), oldest first."""
        query = (
            sqlalchemy.select(execution_logs.c.number, execution_logs.c.lines)
            .where(execution_logs.c.execution_id == execution_id)
            .order_by(execution_logs.c.number.desc())
        )
        first, wanted = 0, lines
        for row in self._store.rows(query):
            first, wanted = row.number, wanted - row.lines
            if wanted <= 0:
                break
        whole = sqlalchemy.select(execution_logs).where(
            execution_logs.c.execution_id == execution_id, execution_logs.c.number >= first
        )
        return (_from_row(row) for row in self._store.rows(whole.order_by(execution_logs.c.number)))


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
