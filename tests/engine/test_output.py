# SPDX-License-Identifier: Apache-2.0
"""Output on its way into the store: lines, masks, levels, limits, blocks, back-pressure."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.logs import LogEntry
from quarterdeck.core.options import HIDDEN, Mask
from quarterdeck.engine import output
from quarterdeck.engine.output import LogWriter, NodeSink
from quarterdeck.formats import log_blocks
from quarterdeck.storage.logs import LogBlock

BEGIN = datetime(2026, 11, 27, 12, tzinfo=UTC)
LINE = b"0123456789abcdef" * 4 + b"\n"


@dataclass
class Kept:
    """A store in memory. It keeps nothing while `gate` is closed."""

    blocks: list[LogBlock] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def store(self, blocks: Sequence[LogBlock]) -> None:
        await self.gate.wait()
        self.blocks += blocks
        self.times.append(time.monotonic())

    @property
    def entries(self) -> list[LogEntry]:
        return [entry for block in self.blocks for entry in log_blocks.decode(block.data)]

    @property
    def text(self) -> bytes:
        return b"".join(entry.text for entry in self.entries)


def run(story: Callable[[Kept], Coroutine[Any, Any, None]]) -> Kept:
    """Tell a story on an event loop of its own; what it kept."""

    async def told() -> Kept:
        kept = Kept()
        await story(kept)
        return kept

    return asyncio.run(told())


def writer(kept: Kept, *, limit: int = 10**9, loglevel: str = "INFO", number: int = 0, offset: int = 0) -> LogWriter:
    ticks: Iterator[datetime] = (BEGIN + timedelta(milliseconds=n) for n in itertools.count())
    return LogWriter(
        7,
        kept.store,
        number=number,
        offset=offset,
        limit_bytes=limit,
        loglevel=loglevel,
        clock=lambda: next(ticks),
    )


def sink(to: LogWriter, *secrets: str, node: str = "web1", step: str = "1") -> NodeSink:
    return to.sink(node=node, step=step, user="alice", mask=lambda: Mask(secrets))


# -- lines -------------------------------------------------------------------------------------


def test_lines_are_kept_with_level_node_step_and_user() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        to.message("It begins", step="1", user="alice")
        one = sink(to, step="2[db]/1")
        one.write("stdout", b"good\nbetter\n")
        one.write("stderr", b"bad\r\n")
        await to.close()

    assert run(story).entries == [
        LogEntry(BEGIN, "INFO", "", "1", "alice", b"It begins\n"),
        LogEntry(BEGIN + timedelta(milliseconds=1), "INFO", "web1", "2[db]/1", "alice", b"good\nbetter\n"),
        LogEntry(BEGIN + timedelta(milliseconds=2), "ERR", "web1", "2[db]/1", "alice", b"bad\r\n"),
    ]


def test_a_line_that_comes_in_pieces_is_kept_whole_while_another_node_writes() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        one, other = sink(to), sink(to, node="web2")
        one.write("stdout", b"first\nhalf a ")
        other.write("stdout", b"other\n")
        one.write("stderr", b"error\n")
        one.write("stdout", b"line\nrest")
        one.finish()
        await to.close()

    assert [(one.node, one.text) for one in run(story).entries] == [
        ("web1", b"first\n"),
        ("web2", b"other\n"),
        ("web1", b"error\n"),
        ("web1", b"half a line\n"),
        ("web1", b"rest"),
    ]


def test_a_line_without_an_end_is_kept_in_bounded_parts() -> None:
    data = bytes(range(1, 10)) * 100_000

    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to)
        for start in range(0, len(data), 1000):
            one.write("stdout", data[start : start + 1000])
        await to.close()

    kept = run(story)
    assert kept.text.replace(b"\n", b"") == data.replace(b"\n", b"")
    assert all(len(one.text) <= output.LINE_BYTES + 1000 for one in kept.entries)


def test_a_huge_piece_becomes_several_blocks_cut_at_lines() -> None:
    data = LINE * 50_000

    async def story(kept: Kept) -> None:
        to = writer(kept)
        sink(to).write("stdout", data)
        await to.close()

    kept = run(story)
    assert kept.text == data
    assert all(block.size <= output.BLOCK_BYTES for block in kept.blocks)
    assert all(entry.text.endswith(b"\n") for entry in kept.entries)


def test_any_bytes_are_kept_as_they_are() -> None:
    data = bytes(range(256)) * 50

    async def story(kept: Kept) -> None:
        to = writer(kept)
        sink(to).write("stdout", data)
        await to.close()

    assert run(story).text == data


def test_unfinished_output_is_kept_when_the_writer_closes() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        sink(to).write("stdout", b"prompt> ")
        await to.close()

    assert run(story).text == b"prompt> "


def test_a_message_of_any_text_is_kept() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        to.message("caf\u00e9 \udcff\ntwo lines\n")
        await to.close()

    assert run(story).text == b"caf\xc3\xa9 \\udcff\ntwo lines\n"


def test_what_is_below_the_log_level_is_not_kept() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept, loglevel="WARN")
        to.message("an engine's line")
        to.message("a warning", level="WARN")
        one = sink(to)
        one.write("stdout", b"out\n")
        one.write("stderr", b"err\n")
        await to.close()

    assert run(story).text == b"a warning\nerr\n"


# -- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_secret_stays_hidden_however_output_is_cut(size: int) -> None:
    data = b"password=hunter2 and more\nhunter2" * 20

    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to, "hunter2")
        for start in range(0, len(data), size):
            one.write("stdout", data[start : start + size])
        one.finish()
        await to.close()

    assert run(story).text == data.replace(b"hunter2", HIDDEN.encode())


def test_a_secret_stays_hidden_across_the_border_of_two_blocks() -> None:
    filler = b"x" * (output.BLOCK_BYTES - 3)

    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to, "hunter2")
        one.write("stdout", filler + b"hun")
        one.write("stdout", b"ter2\n")
        await to.close()

    kept = run(story)
    assert kept.text == filler + HIDDEN.encode() + b"\n"


def test_the_two_streams_have_masks_of_their_own() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to, "hunter2")
        one.write("stdout", b"hun")
        one.write("stderr", b"ter2\n")
        one.write("stdout", b"ter2\n")
        await to.close()

    assert [(one.level, one.text) for one in run(story).entries] == [
        ("ERR", b"ter2\n"),
        ("INFO", HIDDEN.encode() + b"\n"),
    ]


def test_the_beginning_of_a_secret_is_shown_once_nothing_more_comes() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to, "hunter2")
        one.write("stdout", b"a hun")
        one.finish()
        await to.close()

    assert run(story).text == b"a hun"


# -- the limit ---------------------------------------------------------------------------------


def test_beyond_the_limit_one_line_says_so_and_only_the_engine_goes_on() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept, limit=10)
        one, other = sink(to), sink(to, node="web2")
        assert one.write("stdout", b"1234\n67\n90 too much\n")
        assert one.write("stdout", b"more\n")
        assert other.write("stderr", b"other\n")
        to.message("The end")
        one.finish()
        await to.close()

    kept = run(story)
    assert [(one.level, one.node, one.text) for one in kept.entries] == [
        ("INFO", "web1", b"1234\n67\n"),
        ("WARN", "", b"The log of this execution is full (10 bytes): further output of nodes is not kept.\n"),
        ("INFO", "", b"The end\n"),
    ]


def test_output_of_exactly_the_limit_is_kept_without_a_word() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept, limit=10)
        sink(to).write("stdout", b"123456789\n")
        await to.close()

    assert run(story).text == b"123456789\n"


def test_what_an_earlier_writer_kept_counts_for_the_limit() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept, limit=100, number=3, offset=95)
        sink(to).write("stdout", b"123456789\n")
        await to.close()

    assert [one.level for one in run(story).entries] == ["WARN"]


# -- blocks ------------------------------------------------------------------------------------


def test_blocks_are_numbered_and_say_where_their_text_lies() -> None:
    data = LINE * 20_000

    async def story(kept: Kept) -> None:
        to = writer(kept, number=5, offset=1000)
        one = sink(to)
        for start in range(0, len(data), 10_000):
            one.write("stdout", data[start : start + 10_000])
        await to.close()

    kept = run(story)
    assert kept.text == data
    assert [block.number for block in kept.blocks] == list(range(5, 5 + len(kept.blocks)))
    offset = 1000
    for block in kept.blocks:
        entries = log_blocks.decode(block.data)
        assert (block.execution_id, block.offset) == (7, offset)
        assert block.size == sum(len(entry.text) for entry in entries)
        assert block.lines == sum(entry.text.count(b"\n") for entry in entries)
        assert block.at == entries[-1].time
        offset += block.size
    assert offset == 1000 + len(data)


def test_first_output_is_stored_at_once_and_what_follows_is_gathered() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        one = sink(to)
        for number in range(40):
            one.write("stdout", b"line %d\n" % number)
            await asyncio.sleep(0.03)
            if number == 10:
                assert kept.times, "nothing is stored after 0.3 s"
        await to.close()

    kept = run(story)
    assert kept.text == b"".join(b"line %d\n" % number for number in range(40))
    assert len(kept.blocks) <= 3 + (kept.times[-1] - kept.times[0]) / output.BLOCK_SECONDS


def test_a_writer_without_output_stores_nothing() -> None:
    async def story(kept: Kept) -> None:
        to = writer(kept)
        sink(to).finish()
        await to.close()

    assert run(story).blocks == []


# -- back-pressure -----------------------------------------------------------------------------


def test_while_nothing_is_stored_sinks_ask_to_wait_and_go_on_afterwards() -> None:
    async def story(kept: Kept) -> None:
        kept.gate.clear()
        to = writer(kept)
        one = sink(to)
        written = 0
        while True:
            written += 1
            assert written < 1000, "nobody said stop"
            if one.write("stdout", LINE * 1000):
                await asyncio.sleep(0)
                continue
            waiting = asyncio.create_task(one.ready())
            await asyncio.wait([waiting], timeout=0.3)
            if not waiting.done():  # what was let go on was so because text had been packed
                break
        text = written * 1000 * len(LINE)
        assert output.WAITING_BYTES * 0.9 <= text <= output.WAITING_BYTES * 2
        to.message("The engine's own lines are taken all the same")
        kept.gate.set()
        await asyncio.wait_for(waiting, 10)
        assert one.write("stdout", b"the last\n")
        await to.close()
        assert kept.text.count(LINE) == written * 1000
        assert kept.text.endswith(b"taken all the same\nthe last\n")

    run(story)


def test_when_the_store_gives_up_nobody_waits_and_closing_says_why() -> None:
    async def story(kept: Kept) -> None:
        async def broken(blocks: Sequence[LogBlock]) -> None:
            raise Unavailable("gone")

        to = LogWriter(7, broken, number=0, offset=0, limit_bytes=10**9, loglevel="INFO")
        one = sink(to)
        while one.write("stdout", LINE * 1000):
            pass
        await asyncio.wait_for(one.ready(), 10)
        assert one.write("stdout", LINE)
        with pytest.raises(Unavailable):
            await to.close()

    run(story)


def test_a_writer_that_is_discarded_stores_nothing_more() -> None:
    async def story(kept: Kept) -> None:
        kept.gate.clear()
        to = writer(kept)
        one = sink(to)
        while one.write("stdout", LINE * 1000):
            pass
        await asyncio.sleep(0.05)
        await to.discard()
        await asyncio.wait_for(one.ready(), 10)
        assert one.write("stdout", LINE)
        kept.gate.set()
        await asyncio.sleep(0.05)

    assert run(story).blocks == []
