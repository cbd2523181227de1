# SPDX-License-Identifier: Apache-2.0
"""The relay dialect, assembled from its chapters, and its edge: who calls is settled at the door, not by accounts."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.errors import NotFound, QuarterdeckError
from quarterdeck.dialects.relay import envelope, version
from quarterdeck.dialects.relay.chapters import OPERATIONS
from quarterdeck.dialects.relay.parts import Parts, Visit
from quarterdeck.web.edges import Edge
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match, Router

#: Places whose path goes on behind so many segments, slashes and all: below the prefix, and beside it.
_TAILS = {"shared-folder": 1, "shared-folder-tree": 1}
_TAILS_BESIDE = {"common": 1, "policies": 2}
MAX_SHARED_FILE = 50 * 1024 * 1024


class RelayDialect:
    """The grammar. `max_body` is that of shared files; the other rows name their own."""

    def __init__(self, *, max_body: int = MAX_SHARED_FILE) -> None:
        self.max_body = max_body
        self.router = Router(OPERATIONS)

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        request.version = int(version.VERSION)
        path, beside = version.segments(request.target), version.is_beside(request.target)
        if path and (kept := (_TAILS_BESIDE if beside else _TAILS).get(path[0])):
            path = (*path[:kept], "/".join(path[kept:]))
        match = self.router.find(request.method, path) if path else None
        if match is None or bool(match.operation.options.get("beside")) != beside:
            raise NotFound("There is no such operation.")
        return match

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(operation.name, reply.data)

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        if operation is not None and operation.options.get("envelope") and request.memo.get(_ADMITTED):
            return envelope.failure(operation.name, error)
        return envelope.error(error)


#: Where a request's memo says that its caller was let in.
_ADMITTED = "admitted"


@dataclass(kw_only=True)
class RelayEdge(Edge):
    """An ASGI application for the relay API: no accounts, no unit of work."""

    grammar: RelayDialect
    parts: Parts

    def glance(self, operation: Operation, request: Request) -> None:
        """Refuse whom nothing can help."""
        self.parts.door.glance(operation, request)

    def work(self, operation: Operation, request: Request) -> Reply | Answer:
        """Let the caller in, and do what they ask for."""
        caller = self.parts.door.admit(operation, request)
        request.memo[_ADMITTED] = True
        reply: Reply | Answer = operation.handler(Visit(parts=self.parts, caller=caller), request)
        return reply

    def answered(self, operation: Operation | None, answer: Answer) -> None:
        """Count it."""
        self.parts.metrics.request(operation.name if operation is not None else "unknown", answer.status)
