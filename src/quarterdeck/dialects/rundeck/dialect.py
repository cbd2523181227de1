# SPDX-License-Identifier: Apache-2.0
"""The RunDeck dialect, assembled from its chapters: locating, authenticating, answering, refusing.

It takes every path that no other dialect has: the API below `/api`, and the login pages.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import Forbidden, QuarterdeckError, Unauthenticated
from quarterdeck.dialects.rundeck import body, envelope, errors, login, version
from quarterdeck.dialects.rundeck import parts as dialect_parts
from quarterdeck.dialects.rundeck.chapters import OPERATIONS, PAGES
from quarterdeck.dialects.rundeck.parts import Parts
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Store
from quarterdeck.web import auth, sessions
from quarterdeck.web.operation import Answer, Operation, Reply, Request
from quarterdeck.web.router import Match, Router
from quarterdeck.web.runner import NOBODY

PREFIX = ""
_API = "api"
_TOKEN_HEADERS = ("x-rundeck-auth-token", "x-api-token")
_BEARER = "bearer "
_SESSION_SUFFIX = re.compile(r";jsessionid=[^/]*$", re.IGNORECASE)
_EXTENSION = re.compile(r"(.+)\.([a-z]+)")


class RundeckDialect:
    """Everything `web/runner.py` asks of a dialect."""

    def __init__(self, parts: Parts | None = None, *, max_body: int = 10 * 1024 * 1024) -> None:
        self.max_body = max_body
        self.parts = parts or Parts()
        served = [one for one in OPERATIONS if one.since <= self.parts.max_version]
        self.router, self.pages = Router(served), Router(PAGES)

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        dialect_parts.give(request, self.parts)
        segments = _segments(request)
        if segments[0] != _API:
            return _found(self.pages, request, segments)
        if not any(segments[1:]):
            raise version.UnsupportedVersion("API Version not specified")
        match = self._with_extension(request, segments[2:]) or _found(self.router, request, segments[2:])
        request.version = version.check(segments[1], request.path, self.parts.max_version)
        version.require(request.version, match.operation.since, request.path)
        return match

    def _with_extension(self, request: Request, segments: tuple[str, ...]) -> Match | None:
        """What `.xml` and the like behind the path mean, where the operation has formats."""
        cut = _EXTENSION.fullmatch(segments[-1]) if segments else None
        if cut is None:
            return None
        match = _find(self.router, request.method, (*segments[:-1], cut[1]))
        if match is None or cut[2] not in match.operation.options.get("extension", ()):
            return None
        request.memo[body.FORMAT] = cut[2]
        return match

    def authenticate(self, store: Store, request: Request, operation: Operation) -> Account:
        account = sessions.account(Context(account=NOBODY, store=store), request)
        foreign = account is not None and sessions.is_foreign(request)
        if account is None or foreign:
            token = _token(request)
            if not token and foreign:
                raise Forbidden("A page of another site may not use this session. Programs use a token.")
            request.memo[errors.TOKEN] = token
            account = auth.account_of_token(store, token)
        request.memo[errors.ACCOUNT] = account.name
        return account

    def reason(self, request: Request) -> str:
        return request.first("reason")

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(reply.data, self.parts.max_version)

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        if _segments(request)[0] == _API:
            return envelope.error(request, error, self.parts.max_version)
        look = errors.look_up(error)
        if isinstance(error, errors.UnknownPath):
            return login.refusal(look.status, f"There is nothing at {request.path}.")
        status = 403 if isinstance(error, Forbidden | Unauthenticated) else 400 if look.status == 200 else look.status
        return login.refusal(status, errors.messages(request, error)[0])


def _segments(request: Request) -> tuple[str, ...]:
    """The path's decoded segments; at least one."""
    path = _SESSION_SUFFIX.sub("", request.path)
    return tuple(unquote(segment) for segment in path.removeprefix("/").split("/"))


def _found(router: Router, request: Request, segments: tuple[str, ...]) -> Match:
    match = _find(router, request.method, segments)
    if match is not None:
        return match
    if any(router.methods(one) for one in _meant(segments)):
        raise errors.WrongMethod(f"{request.method} is not allowed for: {request.path}")
    raise errors.UnknownPath(f"Invalid API Request: {request.path}")


def _find(router: Router, method: str, segments: tuple[str, ...]) -> Match | None:
    for one in _meant(segments):
        match = router.find(method, one)
        if match is None and method == "POST":
            # Most operations take GET and POST alike; those that do not say so on their row.
            match = router.find("GET", one)
            match = None if match is None or match.operation.options.get("fixed") else match
        if match is not None:
            return match
    return None


def _meant(segments: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The path without slashes at its end; then with an empty last segment, if it had one."""
    kept = segments
    while len(kept) > 1 and not kept[-1]:
        kept = kept[:-1]
    return [kept] if kept == segments else [kept, (*kept, "")]


def _token(request: Request) -> str:
    """The token that was shown, by the parameter before any header."""
    if token := request.first("authtoken"):
        return token
    for name in _TOKEN_HEADERS:
        if token := request.headers.get(name, ""):
            return token
    bearer = request.headers.get("authorization", "")
    return bearer[len(_BEARER) :].strip() if bearer.lower().startswith(_BEARER) else ""
