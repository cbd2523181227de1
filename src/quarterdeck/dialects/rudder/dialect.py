# SPDX-License-Identifier: Apache-2.0
"""The Rudder dialect, assembled from its chapters: locating, authenticating, answering, refusing."""

from __future__ import annotations

from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import NotFound, QuarterdeckError
from quarterdeck.dialects.rudder import body, envelope, errors, version
from quarterdeck.dialects.rudder import parts as dialect_parts
from quarterdeck.dialects.rudder.chapters import OPERATIONS
from quarterdeck.dialects.rudder.parts import Parts
from quarterdeck.storage.database import Store
from quarterdeck.web import auth
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match, Router

TOKEN_HEADER = "x-api-token"  # noqa: S105  # the name of a header
#: What is found under in a request's memo: the action of an operation that is refused before it is chosen.
_ACTION = "action"
VERBS = ("GET", "POST", "PUT", "DELETE", "HEAD")


class RudderDialect:
    """Everything `web/runner.py` asks of a dialect."""

    def __init__(self, *, max_body: int = 10 * 1024 * 1024, parts: Parts | None = None) -> None:
        self.max_body = max_body
        self.parts = parts or Parts()
        self.router = Router(OPERATIONS)

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        dialect_parts.give(request, self.parts)
        if request.method not in VERBS:
            raise errors.BadRequest(f"Bad request: API does not support HTTP request type '{request.method}'")
        request.version, path, other = version.settle(segments, request.headers.get(version.HEADER))
        # A blank in a segment was a plus sign before a client decoded it as a form would.
        path = tuple(segment.replace(" ", "+") for segment in path)
        if len(path) > 1 and not path[-1]:
            path = (*path[:-1], "index")  # what a slash at the end means, says the documentation
        match = self.router.find(request.method, path)
        if match is None:
            raise errors.UnknownPath(self._advice(request, path))
        if other is not None:
            request.memo[_ACTION] = match.operation.name
            raise errors.BadRequest(
                f"Bad request: Request is requiring version '{other}' but the available endpoints only provide"
                f" version '{request.version}'"
            )
        if request.version < match.operation.since:
            raise errors.BadRequest(
                f"Bad request: Request is requiring version '{request.version}' but that version is not available for"
                f" '{request.method} {match.operation.path}'. Available versions:"
                f" from '{match.operation.since}' to '{version.LATEST}'"
            )
        return match

    def _advice(self, request: Request, path: tuple[str, ...]) -> str:
        known = self.router.methods(path)
        if known:
            return f"There is no {request.method} for this path; it knows {', '.join(known)}."
        if "latest" in path[1:]:
            right = "/".join(("latest", *(segment for segment in path if segment != "latest")))
            return f"The version stands before the rest of the path: use /rudder/api/{right}"
        return f"There is no operation '{request.method} /{'/'.join(path)}'."

    def authenticate(self, store: Store, request: Request, operation: Operation) -> Account:
        account = auth.account_of_token(store, request.headers.get(TOKEN_HEADER, ""))
        request.memo[errors.ACCOUNT] = account.name
        return account

    def reason(self, request: Request) -> str:
        return body.general(request, "reason")

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(operation, request, reply)

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        action = operation.name if operation is not None else request.memo.get(_ACTION, "unknow")
        if error is None:
            details = f"Unexpected: internal error; the server's log has it under request {request.request_id}"
            return envelope.error(500, request, action=action, details=details)
        shown_id = None
        if operation is not None and operation.options.get("unknown_status") and isinstance(error, NotFound):
            shown_id = request.params.get("id")
        if isinstance(error, body.NotJson):
            return envelope.error(412, request, action=None, details=error.message)
        code = errors.status(operation, error)
        return envelope.error(code, request, action=action, details=errors.text(operation, request, error), id=shown_id)
