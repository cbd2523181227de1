# SPDX-License-Identifier: Apache-2.0
"""Output of executions, read page by page. Offsets count bytes of text.

Any offset is good; those that are handed out lie between two lines. How output is written: `engine/output.py`.
Whoever calls has made sure that the account may see the execution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from quarterdeck.core import logs
from quarterdeck.core.logs import LogEntry
from quarterdeck.formats import log_blocks
from quarterdeck.services.context import Context

#: What a page holds at most unless asked otherwise.
PAGE_BYTES = 1024 * 1024
#: A day of output is one partition; these many are made ahead.
DAYS_AHEAD = 3

#: Blocks that are read at once; they are small where output comes slowly.
_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the output; empty when there is nothing (yet) behind its offset. `next_offset`: to go on reading."""

    entries: list[LogEntry]
    next_offset: int


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is, in bytes, and when the last of it came; None while there is none."""

    size: int
    modified: datetime | None


def extent(ctx: Context, execution_id: int) -> Extent:
    """How far the output goes."""
    _, size, modified = ctx.store.logs.end(execution_id)
    return Extent(size, modified)


def read(ctx: Context, execution_id: int, *, offset: int = 0, most_bytes: int = PAGE_BYTES) -> Page:
    """What comes at an offset: whole lines of at most `most_bytes` together, but at least one."""
    entries: list[LogEntry] = []
    room, position = most_bytes, max(offset, 0)
    while True:
        blocks = ctx.store.logs.blocks(execution_id, position, _BLOCKS, most_bytes=room)
        for block in blocks:
            begin = max(position, block.offset)
            for entry in _behind(log_blocks.decode(block.data), begin - block.offset):
                taken = _fitting(entry, room, anyway=not entries)
                if taken.text:
                    entries.append(taken)
                room -= len(taken.text)
                begin += len(taken.text)
                if len(taken.text) < len(entry.text) or room <= 0:
                    return Page(entries, begin)
            position = block.offset + block.size
        # The small rest of a page is not worth another block, which may be large.
        if not blocks or room < most_bytes // 2:
            return Page(entries, position)


def last_offset(ctx: Context, execution_id: int, lines: int) -> int:
    """Where the last `lines` lines begin."""
    if lines <= 0:
        return extent(ctx, execution_id).size
    found = ctx.store.logs.last_lines(execution_id, lines)
    if found is None:
        return 0
    block, others = found
    offset = block.offset
    for entry in log_blocks.decode(block.data):
        count = logs.count_lines(entry.text)
        if count > others:
            return offset + sum(len(line.text) for line, _ in zip(logs.lines(entry), range(others), strict=False))
        others -= count
        offset += len(entry.text)
    return offset


def last(ctx: Context, execution_id: int, lines: int, *, most_bytes: int = PAGE_BYTES) -> Page:
    """The last lines; the first page of them, when they are more."""
    return read(ctx, execution_id, offset=last_offset(ctx, execution_id, lines), most_bytes=most_bytes)


def prepare_partitions(ctx: Context) -> None:
    """Make the partitions of the next days, so that dropping old days costs nothing."""
    for ahead in range(DAYS_AHEAD + 1):
        ctx.store.logs.ensure_partition((ctx.now + timedelta(days=ahead)).astimezone(UTC).date())


def forget_before(ctx: Context, before: datetime) -> int:
    """Forget the output of days that were over before this time; how many days went."""
    return ctx.store.logs.drop_before(before.astimezone(UTC).date())


def _behind(entries: list[LogEntry], skipped: int) -> list[LogEntry]:
    """The entries without so many bytes of text at their beginning."""
    for position, entry in enumerate(entries):
        if skipped < len(entry.text):
            first = replace(entry, text=entry.text[skipped:]) if skipped else entry
            return [first, *entries[position + 1 :]]
        skipped -= len(entry.text)
    return []


def _fitting(entry: LogEntry, room: int, *, anyway: bool) -> LogEntry:
    """The lines of an entry that fit; `anyway`: the first one even if it does not."""
    if len(entry.text) <= room:
        return entry
    end = logs.line_border(entry.text, max(room, 0))
    if not end and anyway:
        end = entry.text.find(b"\n") + 1 or len(entry.text)
    return replace(entry, text=entry.text[:end])
