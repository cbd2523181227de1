# SPDX-License-Identifier: Apache-2.0
"""Output of executions is read page by page, from any offset and from its end, and forgotten by days."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from quarterdeck.core import accounts, logs
from quarterdeck.core.logs import LogEntry
from quarterdeck.formats import log_blocks
from quarterdeck.services import execution_output
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.storage.logs import LogBlock

BEGIN = datetime(2026, 11, 27, 12, tzinfo=UTC)
ID = 4711


@pytest.fixture
def ctx(postgres_url: str) -> Iterator[Context]:
    database = Database(postgres_url, pool_size=1)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        store.now = BEGIN
        yield Context(account=accounts.SYSTEM, store=store)
    database.close()


def keep(ctx: Context, *blocks: Sequence[LogEntry], execution_id: int = ID) -> None:
    number, offset, _ = ctx.store.logs.end(execution_id)
    for count, entries in enumerate(blocks):
        size = sum(len(one.text) for one in entries)
        block = LogBlock(
            execution_id=execution_id,
            number=number + count,
            at=entries[-1].time,
            offset=offset,
            size=size,
            lines=sum(logs.count_lines(one.text) for one in entries),
            data=log_blocks.encode(entries),
        )
        ctx.store.logs.append([block])
        offset += size


def entry(text: str, node: str = "web1", after: float = 0.0) -> LogEntry:
    return LogEntry(BEGIN + timedelta(seconds=after), "INFO", node, "1", "alice", text.encode())


def story() -> list[list[LogEntry]]:
    """Blocks with lines and entries of many sizes, always the same."""
    chance = random.Random(3)
    blocks = []
    for number in range(12):
        entries = []
        for _ in range(chance.randint(1, 6)):
            lines = [f"{number} {'x' * chance.randint(0, 30)}\n" for _ in range(chance.randint(1, 5))]
            entries.append(entry("".join(lines)[: -1 if chance.random() < 0.2 else None], f"web{chance.randint(1, 3)}"))
        blocks.append(entries)
    return blocks


def text_of(entries: Sequence[LogEntry]) -> bytes:
    return b"".join(one.text for one in entries)


def pages(ctx: Context, most_bytes: int, offset: int = 0) -> Iterator[execution_output.Page]:
    while (page := execution_output.read(ctx, ID, offset=offset, most_bytes=most_bytes)).entries:
        assert page.next_offset == offset + len(text_of(page.entries))
        yield page
        offset = page.next_offset
    assert page.next_offset == offset


def single_lines(entries: Sequence[LogEntry]) -> list[LogEntry]:
    return [line for one in entries for line in logs.lines(one)]


def test_an_execution_without_output_has_none(ctx: Context) -> None:
    assert execution_output.read(ctx, ID) == execution_output.Page([], 0)
    assert execution_output.extent(ctx, ID) == execution_output.Extent(0, None)
    assert execution_output.last(ctx, ID, 5).entries == []


def test_everything_comes_back_with_time_level_node_step_and_user(ctx: Context) -> None:
    first = LogEntry(BEGIN, "ERR", "web1", "2[db]/1", "alice", b"bad \xff\x00\r\n")
    second = LogEntry(BEGIN + timedelta(milliseconds=17), "INFO", "", "", "", b"done\n")
    keep(ctx, [first], [second])
    keep(ctx, [entry("another's")], execution_id=ID + 1)

    page = execution_output.read(ctx, ID)

    assert page.entries == [first, second]
    assert execution_output.extent(ctx, ID) == execution_output.Extent(page.next_offset, second.time)


@pytest.mark.parametrize("most_bytes", [1, 10, 64, 300, 10**6])
def test_pages_of_any_size_make_up_the_whole_and_end_between_lines(ctx: Context, most_bytes: int) -> None:
    blocks = story()
    keep(ctx, *blocks)
    whole = single_lines([one for block in blocks for one in block])

    found = list(pages(ctx, most_bytes))

    assert single_lines([one for page in found for one in page.entries]) == whole
    for page in found:
        lines = single_lines(page.entries)
        assert len(text_of(lines)) <= most_bytes or len(lines) == 1


def test_any_offset_works_even_within_a_line(ctx: Context) -> None:
    keep(ctx, *story())
    whole = text_of(execution_output.read(ctx, ID).entries)

    for offset in range(0, len(whole) + 1, 7):
        assert text_of(execution_output.read(ctx, ID, offset=offset).entries) == whole[offset:]


def test_behind_the_end_there_is_nothing_until_more_comes(ctx: Context) -> None:
    keep(ctx, [entry("one\n")])
    end = execution_output.read(ctx, ID).next_offset
    assert execution_output.read(ctx, ID, offset=end) == execution_output.Page([], end)

    keep(ctx, [entry("two\n")])

    assert execution_output.read(ctx, ID, offset=end) == execution_output.Page([entry("two\n")], end + 4)


def test_offsets_before_the_beginning_and_beyond_the_end_are_harmless(ctx: Context) -> None:
    keep(ctx, [entry("one\n")])

    assert execution_output.read(ctx, ID, offset=-5).entries == [entry("one\n")]
    assert execution_output.read(ctx, ID, offset=10**12) == execution_output.Page([], 10**12)


def test_the_last_lines_are_exactly_so_many(ctx: Context) -> None:
    blocks = story()
    keep(ctx, *blocks)
    whole = single_lines([one for block in blocks for one in block])

    for count in range(len(whole) + 3):
        found = single_lines(execution_output.last(ctx, ID, count).entries)
        assert found == (whole[-count:] if count else [])


def test_a_block_that_is_sent_twice_is_kept_once(ctx: Context) -> None:
    block = LogBlock(
        execution_id=ID, number=0, at=BEGIN, offset=0, size=4, lines=1, data=log_blocks.encode([entry("one\n")])
    )

    ctx.store.logs.append([block])
    ctx.store.logs.append([block, replace(block, number=1, offset=4)])

    assert text_of(execution_output.read(ctx, ID).entries) == b"one\none\n"


def test_a_large_log_is_read_in_bounded_memory(ctx: Context) -> None:
    line = "a line of a long log, as there are many of them\n"
    block = [entry(line * 600) for _ in range(9)]
    keep(ctx, *[block] * 160)
    size = execution_output.extent(ctx, ID).size
    assert size > 40_000_000

    tracemalloc.start()
    read = sum(len(text_of(page.entries)) for page in pages(ctx, 512 * 1024))
    last = execution_output.last(ctx, ID, 700_000, most_bytes=512 * 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert read == size
    assert last.entries
    assert peak < 8_000_000


# -- days --------------------------------------------------------------------------------------


def partition_of(ctx: Context, execution_id: int) -> str:
    query = "SELECT tableoid::regclass::text FROM execution_logs WHERE execution_id = %(id)s"
    found: str = ctx.store.connection.exec_driver_sql(query, {"id": execution_id}).scalar_one()
    return found


def test_days_are_partitions_and_old_ones_are_dropped(ctx: Context) -> None:
    execution_output.prepare_partitions(ctx)
    execution_output.prepare_partitions(ctx)
    keep(ctx, [entry("today\n")])
    keep(ctx, [entry("tomorrow\n", after=86400)], execution_id=ID + 1)
    assert partition_of(ctx, ID) == "execution_logs_20261127"
    assert partition_of(ctx, ID + 1) == "execution_logs_20261128"

    dropped = execution_output.forget_before(ctx, BEGIN + timedelta(days=1))

    assert dropped == 1
    assert execution_output.read(ctx, ID).entries == []
    assert text_of(execution_output.read(ctx, ID + 1).entries) == b"tomorrow\n"


def test_output_that_came_before_its_day_was_made_stays_readable_and_is_forgotten_too(ctx: Context) -> None:
    keep(ctx, [entry("early\n")])

    execution_output.prepare_partitions(ctx)
    keep(ctx, [entry("late\n", after=1)])

    assert text_of(execution_output.read(ctx, ID).entries) == b"early\nlate\n"
    execution_output.forget_before(ctx, BEGIN + timedelta(days=1))
    assert execution_output.read(ctx, ID).entries == []
