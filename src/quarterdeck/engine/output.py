# SPDX-License-Identifier: Apache-2.0
"""Output of a running execution on its way into the store: cut at lines, masked, limited, put into blocks.

    NodeSink.write ── whole lines ──> LogWriter: block being filled ──> full or due ──> packed in a thread ──> stored

One writer an execution, one sink a step on a node, all on the event loop. What waits is bounded: sinks say when they
want no more, and transports then stop reading, so that in the end the command itself waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from quarterdeck.core.logs import LEVEL_OF_STREAM, LogEntry, count_lines, kept, line_border
from quarterdeck.core.options import Mask
from quarterdeck.engine.transports import Stream
from quarterdeck.formats import log_blocks
from quarterdeck.storage.logs import LogBlock

log = logging.getLogger(__name__)

Store = Callable[[Sequence[LogBlock]], Awaitable[None]]

BLOCK_BYTES = 256 * 1024
#: Output waits for others to share its block: at most this long, and after silence no longer than `SOON_SECONDS`.
BLOCK_SECONDS = 0.5
SOON_SECONDS = 0.03
#: From this much on sinks ask to wait, until it has become half.
WAITING_BYTES = 7 * 512 * 1024
#: An unfinished line longer than this is kept in parts.
LINE_BYTES = 64 * 1024

#: Smaller ones would make the time between two units of work a limit.
_BATCH_BYTES = 2 * 1024 * 1024
#: What an entry costs beside its text.
_ENTRY_BYTES = 100
#: Smaller blocks are packed faster than handed to a thread.
_WORTH_A_THREAD = 16 * 1024

_FULL = "The log of this execution is full ({limit} bytes): further output of nodes is not kept."


@dataclass(slots=True)
class _Part:
    """What becomes a block. `weight` counts what entries cost beside their text, too."""

    entries: list[LogEntry] = field(default_factory=list)
    weight: int = 0


class LogWriter:
    """The log of one execution, from block `number` and byte `offset` of its text on.

    `store` keeps blocks, and is called for one batch at a time, in order; it may take long. When it raises, nothing
    more is kept, nobody waits, and `close` raises the same. The size limit is on nodes' output only.
    """

    def __init__(
        self,
        execution_id: int,
        store: Store,
        *,
        number: int,
        offset: int,
        limit_bytes: int,
        loglevel: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._execution_id = execution_id
        self._store = store
        self._number = number
        self._offset = offset
        self._limit = limit_bytes
        self._room = limit_bytes - offset
        self._full = False
        self.loglevel = loglevel
        self.clock = clock
        #: being filled; `_ripe` when its time has come
        self._open = _Part()
        self._ripe = False
        self._parts: deque[_Part] = deque()
        self._waiting = 0
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._cut_at = float("-inf")
        self._drained = asyncio.Event()
        self._drained.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._sinks: set[NodeSink] = set()

    # -- what is written ------------------------------------------------------------------

    def message(self, text: str, *, level: str = "INFO", node: str = "", step: str = "", user: str = "") -> None:
        """A line, or several, of the engine's own. Not masked, not limited."""
        if kept(level, self.loglevel):
            data = text.encode(errors="backslashreplace")
            self._add(LogEntry(self.clock(), level, node, step, user, data if data.endswith(b"\n") else data + b"\n"))

    def sink(self, *, node: str, step: str, user: str, mask: Callable[[], Mask]) -> NodeSink:
        """Where a step's output on a node goes. `mask` makes what hides its secrets, one for each stream."""
        sink = NodeSink(self, node=node, step=step, user=user, mask=mask)
        self._sinks.add(sink)
        return sink

    def output(self, entry: LogEntry) -> None:
        """Output of a node, as far as the limit allows; for sinks."""
        if self._full:
            return
        size = len(entry.text)
        if size > self._room:
            self._full = True
            if end := line_border(entry.text, max(self._room, 0)):
                self._add(replace(entry, text=entry.text[:end]))
            text = _FULL.format(limit=self._limit).encode() + b"\n"
            self._add(LogEntry(entry.time, "WARN", "", "", entry.user, text))
            return
        self._room -= size
        self._add(entry)

    def forget(self, sink: NodeSink) -> None:
        """The sink has been finished."""
        self._sinks.discard(sink)

    @property
    def takes_output(self) -> bool:
        """Whether output of nodes is still kept."""
        return not self._full

    @property
    def has_room(self) -> bool:
        """Whether more may come without waiting."""
        return self._drained.is_set()

    async def ready(self) -> None:
        """Wait until more may come."""
        await self._drained.wait()

    # -- the end --------------------------------------------------------------------------

    async def close(self) -> None:
        """Finish every sink and return when everything is stored. Raises what the store raised."""
        for sink in tuple(self._sinks):
            sink.finish()
        self._closing = True
        self._due.set()
        if self._task is not None:
            await asyncio.wait([self._task])  # so that a cancelled caller does not cancel what is being stored
            self._task.result()

    async def discard(self) -> None:
        """End without storing what still waits: the execution is somebody else's now."""
        self._full = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._forget_all()

    # -- blocks ---------------------------------------------------------------------------

    def _add(self, entry: LogEntry) -> None:
        if self._closing:
            return
        start, size = 0, len(entry.text)
        while size - start > BLOCK_BYTES:
            end = line_border(entry.text, start + BLOCK_BYTES)
            end = end if end > start else start + BLOCK_BYTES
            self._append(replace(entry, text=entry.text[start:end]))
            start = end
        if size > start:
            self._append(replace(entry, text=entry.text[start:]) if start else entry)

    def _append(self, entry: LogEntry) -> None:
        size = len(entry.text)
        if self._open.entries and self._open.weight + size > BLOCK_BYTES:
            self._cut()
            self._due.set()
        if not self._open.entries:
            loop = asyncio.get_running_loop()
            due = max(loop.time() + SOON_SECONDS, self._cut_at + BLOCK_SECONDS)
            self._timer = loop.call_at(due, self._ripen)
        self._open.entries.append(entry)
        self._open.weight += size + _ENTRY_BYTES
        self._waiting += size + _ENTRY_BYTES
        if self._waiting > WAITING_BYTES:
            self._drained.clear()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _ripen(self) -> None:
        self._ripe = True
        self._due.set()

    def _cut(self) -> None:
        """What is being filled is complete."""
        self._parts.append(self._open)
        self._open = _Part()
        self._ripe = False
        self._cut_at = asyncio.get_running_loop().time()
        self._stop_timer()

    async def _run(self) -> None:
        try:
            while not (self._closing and not self._waiting):
                await self._due.wait()
                self._due.clear()
                while parts := self._take():
                    await self._keep(parts)
        except Exception:
            log.exception("output of execution %d is not kept any longer", self._execution_id)
            raise
        finally:
            self._forget_all()

    def _take(self) -> list[_Part]:
        """The next parts to store, no more than one batch; the one that is being filled only when its time has come."""
        if self._open.entries and (self._ripe or self._closing) and not self._parts:
            self._cut()
        taken: list[_Part] = []
        weight = 0
        while self._parts and weight < _BATCH_BYTES:
            taken.append(self._parts.popleft())
            weight += taken[-1].weight
        return taken

    async def _keep(self, parts: list[_Part]) -> None:
        """Pack and store some parts. What they were is let go once it is packed: more may then come meanwhile."""
        weight = sum(part.weight for part in parts)
        if weight < _WORTH_A_THREAD:
            blocks = self._packed(parts)
        else:
            blocks = await asyncio.to_thread(self._packed, parts)
        parts.clear()
        packed = min(weight, sum(len(block.data) for block in blocks))
        self._release(weight - packed)
        await self._store(blocks)
        self._release(packed)

    def _release(self, weight: int) -> None:
        self._waiting -= weight
        if self._waiting <= WAITING_BYTES // 2:
            self._drained.set()

    def _packed(self, parts: Sequence[_Part]) -> list[LogBlock]:
        blocks = []
        for part in parts:
            size = sum(len(one.text) for one in part.entries)
            blocks.append(
                LogBlock(
                    execution_id=self._execution_id,
                    number=self._number,
                    at=part.entries[-1].time,
                    offset=self._offset,
                    size=size,
                    lines=sum(count_lines(one.text) for one in part.entries),
                    data=log_blocks.encode(part.entries),
                )
            )
            self._number += 1
            self._offset += size
        return blocks

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_all(self) -> None:
        """From now on nothing is kept and nobody waits."""
        self._closing = True
        self._full = True
        self._stop_timer()
        self._parts.clear()
        self._open = _Part()
        self._waiting = 0
        self._drained.set()


@dataclass(slots=True)
class _Stream:
    level: str
    mask: Mask
    rest: bytearray = field(default_factory=bytearray)


class NodeSink:
    """Takes the output of one step on one node; a `transports.Sink`."""

    def __init__(self, writer: LogWriter, *, node: str, step: str, user: str, mask: Callable[[], Mask]) -> None:
        self._writer = writer
        self._node, self._step, self._user = node, step, user
        self._mask = mask
        self._streams: dict[Stream, _Stream] = {}

    def write(self, stream: Stream, data: bytes) -> bool:
        """Take a piece of output; False: more only after `ready`."""
        level = LEVEL_OF_STREAM[stream]
        if not self._writer.takes_output or not kept(level, self._writer.loglevel):
            return True
        known = self._streams.get(stream)
        if known is None:
            known = self._streams[stream] = _Stream(level, self._mask())
        self._take(known, known.mask.feed(data))
        return self._writer.has_room

    async def ready(self) -> None:
        """Wait until more may be written."""
        await self._writer.ready()

    def finish(self) -> None:
        """Nothing more comes: what was an unfinished line, or might have become a secret, is written too."""
        for known in self._streams.values():
            self._take(known, known.mask.end())
            self._flush(known, b"")
        self._streams.clear()
        self._writer.forget(self)

    def _take(self, known: _Stream, data: bytes) -> None:
        # Only the last line end is looked for: splitting into lines here would be four times as slow.
        edge = data.rfind(b"\n") + 1
        if edge:
            self._flush(known, data[:edge] if edge < len(data) else data)
        if edge < len(data):
            known.rest += data[edge:] if edge else data
            if len(known.rest) >= LINE_BYTES:
                self._flush(known, b"")

    def _flush(self, known: _Stream, data: bytes) -> None:
        if known.rest:
            data = bytes(known.rest) + data
            known.rest.clear()
        if data:
            self._writer.output(LogEntry(self._writer.clock(), known.level, self._node, self._step, self._user, data))
