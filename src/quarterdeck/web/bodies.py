# SPDX-License-Identifier: Apache-2.0
"""What a client sends, read within limits of length, time and room: into memory, or into a file on disk."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from quarterdeck.core.errors import Invalid, NotFound, TooLarge, Unavailable
from quarterdeck.web.operation import Request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: Bodies up to this length are always read; longer ones share the room of all.
_SHORT_BODY = 64 * 1024
ROOM_BYTES = 256 * 1024 * 1024
#: How long a client may take to send its body.
BODY_SECONDS = 300.0
#: What goes to disk at a time.
_DISK_PIECE = 256 * 1024


class Room:
    """Memory that bodies may take before anybody knows whose they are."""

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self.free = size

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Space for one body, given back at the end; call it with the length so far. Raises Unavailable."""
        taken = 0

        def take(length: int) -> None:
            nonlocal taken
            if length <= _SHORT_BODY:
                return
            if length - taken > self.free:
                raise Unavailable("Too much is sent to this server at once; please try again.")
            self.free -= length - taken
            taken = length

        try:
            yield take
        finally:
            self.free += taken


async def read(receive: Receive, request: Request, limit: int, space: Callable[[int], None]) -> bytes:
    """The whole body. Raises TooLarge, Unavailable or Invalid without reading further."""
    pieces, size = [], 0
    with _in_time(request, limit):
        async for piece in _pieces(receive, limit):
            size += len(piece)
            space(size)
            pieces.append(piece)
    return b"".join(pieces)


async def read_to_disk(receive: Receive, request: Request, limit: int, directory: Path | None) -> IO[bytes]:
    """The whole body as a nameless file at its beginning; sets `request.body_digest`. Raises TooLarge or Invalid.

    The file lies in `directory`, which should not be in memory; memory takes a piece of it, however long it is. Short
    bodies stay in memory: a thread and a file cost more than they do.
    """
    body = _Body(directory)
    try:
        with _in_time(request, limit):
            async for piece in _pieces(receive, limit):
                body.waiting += piece
                if len(body.waiting) >= _DISK_PIECE:
                    await anyio.to_thread.run_sync(body.put_down)
        if body.file is not None or len(body.waiting) > _SHORT_BODY:
            await anyio.to_thread.run_sync(body.put_down)
    except BaseException:
        body.close()
        raise
    return body.whole(request)


class _Body:
    """A body that is being read: what is on disk of it, and what follows that and waits."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._digest = hashlib.sha256()
        self.file: IO[bytes] | None = None
        self.waiting = bytearray()

    def put_down(self) -> None:
        """Write what waits. Blocks; raises Unavailable."""
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115  # closed by others
            with memoryview(self.waiting) as left:
                written = 0
                while written < len(left):  # a disk that becomes full takes a part first
                    written += self.file.write(left[written:])
        except OSError as error:
            raise Unavailable("What was sent could not be kept on disk.", detail=str(error)) from error
        self._digest.update(self.waiting)
        self.waiting.clear()

    def whole(self, request: Request) -> IO[bytes]:
        """All of it, at its beginning."""
        self._digest.update(self.waiting)
        request.body_digest = self._digest.hexdigest()
        if self.file is None:
            return io.BytesIO(self.waiting)
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


@contextmanager
def _in_time(request: Request, limit: int) -> Iterator[None]:
    """Raises TooLarge for a body that announces itself so, and Invalid when it takes too long."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"The body is longer than {limit} bytes.")
    try:
        with anyio.fail_after(BODY_SECONDS):
            yield
    except TimeoutError:
        raise Invalid(f"The body did not come within {BODY_SECONDS:.0f} s.") from None


async def _pieces(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotFound("The client went away.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is longer than {limit} bytes.")
        yield piece
        if not message.get("more_body", False):
            return
