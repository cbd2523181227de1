# SPDX-License-Identifier: Apache-2.0
"""The native dialect, assembled from its chapters. Everything stands below /quarterdeck: `api/1` for people and
programs with a token, `agent/1` for agents, who sign.
"""

from __future__ import annotations

from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import NotFound, QuarterdeckError
from quarterdeck.dialects.native import envelope, parts, technique_resources
from quarterdeck.dialects.native.chapters import OPERATIONS
from quarterdeck.dialects.native.parts import Parts
from quarterdeck.formats import agent
from quarterdeck.storage.database import Store
from quarterdeck.web import auth
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match, Router

PREFIX = "/quarterdeck"
TOKEN_HEADER = "x-api-token"  # noqa: S105  # the name of a header
_BEARER = "bearer "


class NativeDialect:
    """Everything `web/runner.py` asks of a dialect."""

    def __init__(self, parts: Parts, *, max_body: int = 10 * 1024 * 1024) -> None:
        self.max_body = max_body
        self.parts = parts
        self.router = Router(OPERATIONS)

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        parts.give(request, self.parts)
        segments = technique_resources.with_path(segments)
        match = self.router.find(request.method, segments)
        if match is None:
            known = self.router.methods(segments)
            if known:
                raise NotFound(f"There is no {request.method} for this path; it knows {', '.join(known)}.")
            raise NotFound(f"There is no operation '{request.method} {PREFIX}/{'/'.join(segments)}'.")
        return match

    def authenticate(self, store: Store, request: Request, operation: Operation) -> Account:
        token = request.headers.get(TOKEN_HEADER, "")
        bearer = request.headers.get("authorization", "")
        if not token and bearer.lower().startswith(_BEARER):
            token = bearer[len(_BEARER) :].strip()
        return auth.account_of_token(store, token)

    def reason(self, request: Request) -> str:
        return request.first("reason")

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(reply.data, status=int(operation.options.get("status", 200)))

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        if request.target.startswith(agent.PATH_PREFIX):
            return envelope.refusal(request, error)
        return envelope.error(request, error)
