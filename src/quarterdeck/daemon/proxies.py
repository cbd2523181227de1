# SPDX-License-Identifier: Apache-2.0
"""Whose word counts about the client: a trusted proxy's headers replace what the connection says; others' do not.

Headers with a client certificate are taken away from everybody else, so that a handler that sees one may believe it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


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
        elif self._is_trusted(scope):
            await self._behind(scope, receive, send)
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
