# SPDX-License-Identifier: Apache-2.0
"""Blocks of output as they are stored: entries in MessagePack, compressed. Decoding is bounded.

Times are kept in milliseconds from the block's first entry; who said something is kept once per block.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import zstandard

from quarterdeck.core.logs import LogEntry

#: No block unpacks to more; writers stop at a small part of that.
MOST_BYTES = 4 * 1024 * 1024

_FORMAT = 1
_LEVEL = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class BadBlock(ValueError):
    """The data is no block that we wrote."""


class _Block(msgspec.Struct, array_like=True, frozen=True):
    format: int
    #: Unix time in milliseconds
    begin: int
    #: level, node, step, user
    sources: list[tuple[str, str, str, str]]
    #: milliseconds since `begin`, index of the source, text
    entries: list[tuple[int, int, bytes]]


_decoder = msgspec.msgpack.Decoder(_Block)


def encode(entries: Iterable[LogEntry]) -> bytes:
    """A block of these entries, of which there is at least one."""
    sources: dict[tuple[str, str, str, str], int] = {}
    begin: int | None = None
    rows = []
    for one in entries:
        at = (one.time - _EPOCH) // _MILLISECOND
        begin = at if begin is None else begin
        source = sources.setdefault((one.level, one.node, one.step, one.user), len(sources))
        rows.append((at - begin, source, one.text))
    assert begin is not None
    return zstandard.ZstdCompressor(level=_LEVEL).compress(
        msgspec.msgpack.encode(_Block(_FORMAT, begin, list(sources), rows))
    )


def decode(data: bytes) -> list[LogEntry]:
    """The entries of a block, times in UTC. Raises BadBlock."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= MOST_BYTES:
            raise BadBlock("The block does not say its size, or is too large.")
        block = _decoder.decode(zstandard.ZstdDecompressor().decompress(data))
        if block.format != _FORMAT:
            raise BadBlock(f"The block is of format {block.format}, not {_FORMAT}.")
        begin = _EPOCH + timedelta(milliseconds=block.begin)
        return [
            LogEntry(begin + timedelta(milliseconds=after), *block.sources[source], text)
            for after, source, text in block.entries
        ]
    except (zstandard.ZstdError, msgspec.MsgspecError, IndexError, OverflowError) as error:
        raise BadBlock(f"The block cannot be read: {error}") from error
