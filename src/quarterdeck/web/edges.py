# SPDX-License-Identifier: Apache-2.0
"""One request from first byte to last, whoever may ask and whatever a handler needs: locate, read, work, write.

Knows no accounts and no database; `runner.py` adds them for the dialects that have them. The one place of the web room
that catches broadly. Handlers run on a bounded set of threads; the answer is written when the thread is free again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread

from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.web import answers, bodies
from quarterdeck.web.answers import Send
from quarterdeck.web.bodies import Receive, Room
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]

_LONG_ONES = 2


class Grammar(Protocol):
    """What the dialects have in common: how something is asked for, and how it is said."""

    #: longest body it reads, in bytes; an operation's option `max_body` overrides it
    max_body: int

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        """The operation asked for; sets `request.version`. Raises NotFound or another error of ours."""

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        """A handler's reply, said in this grammar."""

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        """An error, said in this grammar; None is a fault of ours that nobody outside should read about."""


@dataclass(kw_only=True)
class Edge:
    """An ASGI application for one grammar, mounted at `prefix`. A subclass says what a request's work is."""

    grammar: Grammar
    prefix: str
    threads: anyio.CapacityLimiter
    #: operations whose row says `long` take turns, so that many of them at once leave threads to the others; those
    #: that say a word instead of True do so with each other only
    turns: dict[object, anyio.CapacityLimiter] = field(default_factory=dict)
    room: Room = field(default_factory=Room)
    #: where bodies lie of operations whose row says `stream_body`; None: where the system keeps temporary files
    body_directory: Path | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = head(scope)
        try:
            with self.room.share() as space:
                answer = await self._answer(scope, receive, request, space)
                request.body = b""  # while the answer leaves, perhaps slowly, it takes no room
        finally:
            if request.body_file is not None:
                request.body_file.close()
        await answers.write(send, answer, request, receive)

    async def _answer(self, scope: Scope, receive: Receive, request: Request, space: Callable[[int], None]) -> Answer:
        operation: Operation | None = None
        try:
            match = self.grammar.locate(request, self._segments(scope))
            operation, request.params = match.operation, match.params
            self.glance(operation, request)
            await self._read(operation, request, receive, space)
            async with self._turn(operation):
                answer = await anyio.to_thread.run_sync(self._work, operation, request, limiter=self.threads)
        except Exception as error:  # noqa: BLE001  # the edge: every fault becomes an answer
            answer = self._refusal(operation, request, error)
        self.answered(operation, answer)
        return answer

    def _turn(self, operation: Operation) -> AbstractAsyncContextManager[object]:
        line = operation.options.get("long")
        return self.turns.setdefault(line, anyio.CapacityLimiter(_LONG_ONES)) if line else nullcontext()

    def _segments(self, scope: Scope) -> tuple[str, ...]:
        path: str = scope["path"]
        return tuple(path[len(self.prefix) :].removeprefix("/").split("/"))

    async def _read(
        self, operation: Operation, request: Request, receive: Receive, space: Callable[[int], None]
    ) -> None:
        limit = operation.options.get("max_body", self.grammar.max_body)
        if operation.options.get("stream_body"):
            request.body_file = await bodies.read_to_disk(receive, request, limit, self.body_directory)
        else:
            request.body = await bodies.read(receive, request, limit, space)

    def glance(self, operation: Operation, request: Request) -> None:
        """Refuse what can be refused before anybody reads the body; on the event loop, so without waiting."""

    def work(self, operation: Operation, request: Request) -> Reply | Answer:
        """What the operation does, on a thread."""
        raise NotImplementedError

    def answered(self, operation: Operation | None, answer: Answer) -> None:
        """Take note of an answer before it leaves; None is a path that nobody knows."""

    def _work(self, operation: Operation, request: Request) -> Answer:
        reply = self.work(operation, request)
        return reply if isinstance(reply, Answer) else self.grammar.answer(operation, request, reply)

    def _refusal(self, operation: Operation | None, request: Request, error: Exception) -> Answer:
        if isinstance(error, RecursionError):
            # Parsers, and what walks the result, go as deep as the document does.
            error = Invalid("What was sent is nested too deeply.", detail=str(error))
        if isinstance(error, QuarterdeckError):
            if error.detail:
                log.warning("%s %s: %s (%s)", request.request_id, request.path, error.message, error.detail)
            return self.grammar.refuse(operation, request, error)
        log.error("%s %s %s failed", request.request_id, request.method, request.path, exc_info=error)
        return self.grammar.refuse(operation, request, None)


def head(scope: Scope) -> Request:
    """A request before its body."""
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
