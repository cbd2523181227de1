# SPDX-License-Identifier: Apache-2.0
"""One request from first byte to last: locate, read, authenticate, check the right, call, commit, write.

The one place of the web room that commits, and that catches broadly. Handlers run on a bounded set of
threads, one unit of work each; the answer is written when the connection is back in its pool.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread

from quarterdeck.core import accounts
from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import Invalid, NotFound, QuarterdeckError, TooLarge, Unavailable
from quarterdeck.core.ids import AccountId
from quarterdeck.core.sites import Site
from quarterdeck.services import reactions
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance, Store
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_FILE_PIECE = 256 * 1024
_LONG_ONES = 2
#: Bodies up to this length are always read; longer ones share the room of all.
_SHORT_BODY = 64 * 1024
ROOM_BYTES = 256 * 1024 * 1024
#: How long a client may take to send its body.
BODY_SECONDS = 300.0


class Dialect(Protocol):
    """What a dialect brings; everything else is the same for all."""

    #: longest body it reads, in bytes; an operation's option `max_body` overrides it
    max_body: int

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        """The operation asked for; sets `request.version`. Raises NotFound or another error of ours."""

    def authenticate(self, store: Store, request: Request, operation: Operation) -> Account:
        """Who asks. Raises Unauthenticated."""

    def reason(self, request: Request) -> str:
        """Why they say they ask."""

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        """A handler's reply, said in this grammar."""

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        """An error, said in this grammar; None is a fault of ours that nobody outside should read about."""


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


@dataclass(kw_only=True)
class Runner:
    """An ASGI application for one dialect, mounted at `prefix`."""

    dialect: Dialect
    database: Database
    prefix: str
    threads: anyio.CapacityLimiter
    site: Site = field(default_factory=Site)
    #: operations whose row says `long` take turns, so that many of them at once leave threads to the others
    long_ones: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_LONG_ONES))
    room: Room = field(default_factory=Room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _head(scope)
        with self.room.share() as space:
            answer = await self._answer(scope, receive, request, space)
            request.body = b""  # while the answer leaves, perhaps slowly, it takes no room
        await write(send, answer, request, receive)

    async def _answer(self, scope: Scope, receive: Receive, request: Request, space: Callable[[int], None]) -> Answer:
        operation: Operation | None = None
        try:
            match = self.dialect.locate(request, self._segments(scope))
            operation, request.params = match.operation, match.params
            limit = operation.options.get("max_body", self.dialect.max_body)
            request.body = await _read(receive, request, limit, space)
            turn = self.long_ones if operation.options.get("long") else nullcontext()
            async with turn:
                return await anyio.to_thread.run_sync(self._work, operation, request, limiter=self.threads)
        except Exception as error:  # noqa: BLE001  # the edge: every fault becomes an answer
            return self._refusal(operation, request, error)

    def _segments(self, scope: Scope) -> tuple[str, ...]:
        path: str = scope["path"]
        return tuple(path[len(self.prefix) :].removeprefix("/").split("/"))

    def _work(self, operation: Operation, request: Request) -> Answer:
        """Everything that needs a thread; the unit of work opens at first use and commits once, here."""
        with self.database.unit_of_work(Provenance(actor="", request_id=request.request_id)) as store:
            account = self.dialect.authenticate(store, request, operation) if operation.right is not None else NOBODY
            if operation.right is not None:
                accounts.require(account, operation.right)
            # Only now: the reason may stand in the body, which nobody reads for strangers.
            reason = self.dialect.reason(request)
            store.by = Provenance(actor=account.name, reason=reason, request_id=request.request_id)
            ctx = Context(account=account, store=store, site=self.site)
            reply = operation.handler(ctx, request)
            reactions.follow(ctx)
            store.commit()
        return reply if isinstance(reply, Answer) else self.dialect.answer(operation, request, reply)

    def _refusal(self, operation: Operation | None, request: Request, error: Exception) -> Answer:
        if isinstance(error, RecursionError):
            # Parsers, and what walks the result, go as deep as the document does.
            error = Invalid("What was sent is nested too deeply.", detail=str(error))
        if isinstance(error, QuarterdeckError):
            if error.detail:
                log.warning("%s %s: %s (%s)", request.request_id, request.target, error.message, error.detail)
            return self.dialect.refuse(operation, request, error)
        log.error("%s %s %s failed", request.request_id, request.method, request.target, exc_info=error)
        return self.dialect.refuse(operation, request, None)


#: Who asks where no login is needed.
NOBODY = Account(id=AccountId(""), name="anonymous", kind="system")


def _head(scope: Scope) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = scope["query_string"].decode("latin-1")
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
    return Request(
        method=scope["method"],
        target=f"{path}?{query}" if query else path,
        params={},
        query_string=query,
        headers=headers,
        request_id=uuid.uuid4().hex,
        scheme=scope.get("scheme", "http"),
        client=(scope.get("client") or ("", 0))[0],
    )


async def _read(receive: Receive, request: Request, limit: int, space: Callable[[int], None]) -> bytes:
    """The whole body. Raises TooLarge, Unavailable or Invalid without reading further."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"The body is longer than {limit} bytes.")
    try:
        with anyio.fail_after(BODY_SECONDS):
            return await _whole(receive, limit, space)
    except TimeoutError:
        raise Invalid(f"The body did not come within {BODY_SECONDS:.0f} s.") from None


async def _whole(receive: Receive, limit: int, space: Callable[[int], None]) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotFound("The client went away.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is longer than {limit} bytes.")
        space(size)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def write(send: Send, answer: Answer, request: Request, receive: Receive) -> None:
    """Put an answer on the wire, header names spelled as given; one in pieces ends when the client goes away."""
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers]
    headers.append((b"X-Request-Id", request.request_id.encode()))
    length = _length(answer.body)
    if length is not None:
        headers.append((b"Content-Length", str(length).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if isinstance(answer.body, bytes):
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})
        return
    source = _pieces_of(answer.body) if isinstance(answer.body, Path) else answer.body
    async with anyio.create_task_group() as group:
        # Whoever has nothing to send for long would never find out that nobody reads any more.
        group.start_soon(_until_gone, receive, group.cancel_scope)
        async with aclosing(source) as pieces:  # type: ignore[type-var]  # every source is an async generator
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
    return body.stat().st_size if isinstance(body, Path) else None


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_FILE_PIECE):
            yield piece
