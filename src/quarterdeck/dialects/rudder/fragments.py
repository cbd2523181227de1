# SPDX-License-Identifier: Apache-2.0
"""JSON fragments of nodes, kept by version up to a number of bytes, and long answers made of them.

A fragment is never wrong: its node's version is asked for first, in the request's own transaction. Answers share
the cache's bytes, so that many slow readers of one list cost little.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import anyio.to_thread

from quarterdeck.dialects.rudder.node_shapes import Fragment

#: What an entry costs beside its text, measured roughly.
_OVERHEAD = 300
_PIECE = 256 * 1024


class _Kept(NamedTuple):
    version: int
    fragment: Fragment


class FragmentCache:
    """Node id and choice of fields -> fragment, at most `max_bytes` of them, the least recently used leaving first."""

    def __init__(self, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes that are kept now."""
        return self._size

    def find(self, include: str, versions: Iterable[tuple[str, int]]) -> dict[str, Fragment]:
        """The fragments that are there, of exactly these versions."""
        found = {}
        with self._lock:
            # Who was used last matters only when there is not room for all.
            crowded = self._size > self.max_bytes // 2
            for node, version in versions:
                kept = self._kept.get((node, include))
                if kept is not None and kept.version == version:
                    found[node] = kept.fragment
                    if crowded:
                        self._kept.move_to_end((node, include))
        return found

    def keep(self, include: str, fragments: Iterable[tuple[str, int, Fragment]]) -> None:
        """Remember fragments."""
        with self._lock:
            for node, version, fragment in fragments:
                old = self._kept.pop((node, include), None)
                self._size -= old.fragment.size + _OVERHEAD if old is not None else 0
                self._kept[(node, include)] = _Kept(version, fragment)
                self._size += fragment.size + _OVERHEAD
            while self._size > self.max_bytes and self._kept:
                _, gone = self._kept.popitem(last=False)
                self._size -= gone.fragment.size + _OVERHEAD


class LongAnswer:
    """Pieces of an answer, in order: in memory up to `max_memory` bytes, what comes after in a temporary file."""

    def __init__(self, max_memory: int = 64 * 1024 * 1024) -> None:
        self._max_memory = max_memory
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None

    @property
    def closed(self) -> bool:
        """Whether its file, if it needed one, is gone."""
        return self._file is None or self._file.closed

    def add(self, pieces: Sequence[bytes]) -> None:
        """Append pieces."""
        self._size += sum(map(len, pieces))
        if self._size <= self._max_memory:
            self._pieces.extend(pieces)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the answer was sent
        self._file.writelines(pieces)

    def joined(self) -> bytes:
        """Everything at once."""
        rest = b""
        if self._file is not None:
            self._file.seek(0)
            rest = self._file.read()
            self._file.close()
        return b"".join(self._pieces) + rest

    async def source(self) -> AsyncIterator[bytes]:
        """Everything, a quarter of a megabyte at a time."""
        try:
            for piece in _gathered(self._pieces):
                yield piece
            if self._file is not None:
                self._file.seek(0)
                while piece := await anyio.to_thread.run_sync(self._file.read, _PIECE):
                    yield piece
        finally:
            if self._file is not None:
                self._file.close()


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
