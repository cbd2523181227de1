# SPDX-License-Identifier: Apache-2.0
"""Blocks of output come back as they were, and nothing but blocks is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.logs import LogEntry
from quarterdeck.formats import log_blocks
from quarterdeck.formats.log_blocks import BadBlock

BEGIN = datetime(2026, 11, 27, 12, 30, 15, 123000, tzinfo=UTC)

names = st.text(max_size=20, alphabet=st.characters(exclude_categories=["Cs"]))
entries = st.builds(
    LogEntry,
    time=st.integers(-100_000, 100_000_000).map(lambda ms: BEGIN + timedelta(milliseconds=ms)),
    level=st.sampled_from(["DEBUG", "INFO", "WARN", "ERR"]),
    node=names,
    step=names,
    user=names,
    text=st.binary(max_size=200),
)


@given(st.lists(entries, min_size=1, max_size=30))
def test_every_entry_comes_back_with_its_time_level_node_step_and_user(block: list[LogEntry]) -> None:
    assert log_blocks.decode(log_blocks.encode(block)) == block


def test_times_are_kept_in_whole_milliseconds() -> None:
    block = [LogEntry(BEGIN + timedelta(microseconds=999), "INFO", "", "", "", b"x\n")]

    assert log_blocks.decode(log_blocks.encode(block))[0].time == BEGIN


def test_a_block_of_many_lines_of_few_nodes_is_small() -> None:
    block = [
        LogEntry(BEGIN + timedelta(milliseconds=7 * number), "INFO", f"node{number % 3}", "1", "alice", b"done\n")
        for number in range(2000)
    ]

    assert len(log_blocks.encode(block)) < 2000 * 4


def packed(value: object) -> bytes:
    return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(value))


WHOLE = log_blocks.encode([LogEntry(BEGIN, "INFO", "n", "1", "u", b"text\n" * 100)])
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(b"\x90")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no block at all", id="not compressed"),
        pytest.param(WHOLE[:-10], id="cut short"),
        pytest.param(UNSIZED, id="of unknown size"),
        pytest.param(packed(b"x" * (log_blocks.MOST_BYTES + 1)), id="too large when unpacked"),
        pytest.param(packed({"a": 1}), id="something else"),
        pytest.param(packed([2, 0, [], []]), id="another format"),
        pytest.param(packed([1, 0, [], [[0, 0, b"x"]]]), id="a source that is not there"),
        pytest.param(packed([1, 2**62, [["INFO", "", "", ""]], [[0, 0, b"x"]]]), id="a time beyond all"),
    ],
)
def test_what_is_no_block_is_refused(data: bytes) -> None:
    with pytest.raises(BadBlock):
        log_blocks.decode(data)
