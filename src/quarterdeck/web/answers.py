# SPDX-License-Identifier: Apache-2.0
"""An answer on its way to the client: header names spelled as given, files piece by piece, sources as long as read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from quarterdeck.web.bodies import Receive
from quarterdeck.web.operation import Answer, Excerpt, Request

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_FILE_PIECE = 256 * 1024
#: Their length would be that of another answer.
_WITHOUT_LENGTH = frozenset({204, 304})


async def write(send: Send, answer: Answer, request: Request, receive: Receive) -> None:
    """Put an answer on the wire; one in pieces ends when the client goes away."""
    body = answer.body
    try:
        await _write(send, answer, request, receive)
    finally:
        if isinstance(body, Excerpt):
            body.close()


async def _write(send: Send, answer: Answer, request: Request, receive: Receive) -> None:
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers]
    headers.append((b"X-Request-Id", request.request_id.encode()))
    length = _length(answer.body)
    if length is not None and answer.status not in _WITHOUT_LENGTH:
        headers.append((b"Content-Length", str(length).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if request.method == "HEAD" and length is not None:
        await send({"type": "http.response.body", "body": b""})
        return
    if isinstance(answer.body, bytes):
        await send({"type": "http.response.body", "body": answer.body})
        return
    async with anyio.create_task_group() as group:
        # Whoever has nothing to send for long would never find out that nobody reads any more.
        group.start_soon(_until_gone, receive, group.cancel_scope)
        async with aclosing(_source(answer.body)) as pieces:  # type: ignore[type-var]  # every source is an async generator
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        group.cancel_scope.cancel()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _length(body: object) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    if isinstance(body, Excerpt):
        return body.length
    return body.stat().st_size if isinstance(body, Path) else None


def _source(body: Path | Excerpt | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, Path):
        return _pieces_of(body)
    return _pieces_of_excerpt(body) if isinstance(body, Excerpt) else body


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_FILE_PIECE):
            yield piece


async def _pieces_of_excerpt(excerpt: Excerpt) -> AsyncIterator[bytes]:
    """Ends early when the file became shorter meanwhile: then the client sees that something is missing."""
    at, end = excerpt.start, excerpt.start + excerpt.length
    room = bytearray(min(_FILE_PIECE, excerpt.length))
    while at < end:
        size = min(_FILE_PIECE, end - at)
        piece = _at_hand(excerpt.descriptor, memoryview(room)[:size], at)
        if piece is None:
            piece = await anyio.to_thread.run_sync(os.pread, excerpt.descriptor, size, at)
        else:
            await anyio.lowlevel.checkpoint()  # others have their turn, however fast this reader is
        if not piece:
            return
        at += len(piece)
        yield piece


def _at_hand(descriptor: int, room: memoryview, at: int) -> bytes | None:
    """What can be read without waiting for the disk; None when nothing can. To a thread and back takes longer."""
    try:
        return bytes(room[: os.preadv(descriptor, [room], at, os.RWF_NOWAIT)])
    except OSError:
        return None
