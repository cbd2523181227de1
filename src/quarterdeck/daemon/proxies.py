# SPDX-License-Identifier: Apache-2.0
"""Whose word counts about the client: a trusted proxy's headers replace what the connection says; others' do not.

Headers with a client certificate are taken away from everybody else, so that a handler that sees one may believe it.
A proxy that does not say whom it speaks for is its own client, and is never taken for this machine, even on it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

FORWARDED_FOR = b"x-forwarded-for"


class Proxied:
    """An application behind proxies of these addresses or networks; none: it is asked directly."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str], certificate_header: str) -> None:
        self._app = app
        self._behind: ASGIApp = ProxyHeadersMiddleware(app, list(trusted))  # type: ignore[assignment, arg-type]  # its own names for the same types
        self._trusted = [ipaddress.ip_network(one, strict=False) for one in trusted]
        self._header = certificate_header.lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _plainly(scope)
        if self._is_trusted(scope):
            await self._behind(_with_client(scope), receive, send)
        else:
            kept = [(name, value) for name, value in scope["headers"] if name.lower() != self._header]
            await self._app({**scope, "headers": kept}, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        host = (scope.get("client") or ("", 0))[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _plainly(scope: Scope) -> Scope:
    """A request whose client has an IPv4 address written as such, also at a socket for both families."""
    host, port = scope.get("client") or ("", 0)
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return scope
    return {**scope, "client": (str(mapped), port)} if mapped is not None else scope


def _with_client(scope: Scope) -> Scope:
    """A request that names its client in the header that proxies use."""
    headers = list(scope["headers"])
    if any(name.lower() == FORWARDED_FOR and value.strip() for name, value in headers):
        return scope
    host = (scope.get("client") or ("", 0))[0]
    return {**scope, "headers": [*headers, (FORWARDED_FOR, host.encode())]}
