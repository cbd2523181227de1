# SPDX-License-Identifier: Apache-2.0
"""Requests to a server of the tree whose answer is read as long as it comes; each holds a connection and no thread.

The other's key is checked before anything is sent. It may say nothing for long, so it is the system's keep-alive that
notices one that is gone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http.client import OK
from typing import TYPE_CHECKING, Any

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.relays import KeyHash
from quarterdeck.formats import agent, nodes_list
from quarterdeck.relaying.links import USER_AGENT, Link, Signer, Times, Told

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
#: Nobody of ours says more at a time than twice what may wait to be read of one command, in base64.
LONGEST_LINE = 4 * 1024 * 1024
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
#: How much of an answer that is an error is told.
_REASON = 200


class BrokenOff(Unavailable):
    """The request was sent, or may have been, and the answer is not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server that is asked, the key that it must show (plain HTTP shows none), and who asks."""

    url: str
    key_hash: KeyHash
    signer: Signer
    #: the longest silence
    read_seconds: float
    #: its clock
    times: Times = field(default_factory=Times)

    async def ask(self, method: str, path: str, body: bytes, content_type: str) -> AsyncGenerator[bytes, None]:
        """What it answers to a signed request, as it comes. Raises Unavailable, BrokenOff."""
        for is_last in (False, True):
            async with self._asked(method, path, body, content_type) as answer:
                if answer.status_code == OK:
                    async for piece in answer.aiter_bytes():
                        yield piece
                    return
                told = Told(status=answer.status_code, headers=dict(answer.headers), body=await answer.aread())
            if is_last or not self.times.learn(told):
                reason = told.body[:_REASON].decode(errors="replace")
                raise Unavailable(f"{self.url} answers with status {told.status}: {reason}")

    async def lines(self, method: str, path: str, body: bytes, content_type: str) -> AsyncGenerator[bytes, None]:
        """The same line by line, without what follows the last line feed. Raises Invalid for a line without an end."""
        rest = b""
        async with aclosing(self.ask(method, path, body, content_type)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line
                if len(rest) > LONGEST_LINE:
                    raise Invalid(f"{self.url} says a line that has no end.")

    @asynccontextmanager
    async def _asked(self, method: str, path: str, body: bytes, content_type: str) -> AsyncIterator[httpx.Response]:
        """The answer to one request, before it is read. Raises Unavailable and BrokenOff, also while it is read."""
        import httpx  # most relays have no relays below them, and little memory

        link = Link(url=self.url, pin=nodes_list.notation(self.key_hash), signer=self.signer, times=self.times)
        signed = await asyncio.to_thread(link.signed, method, path, agent.digest(body))
        headers = {**signed, "Content-Type": content_type, "User-Agent": USER_AGENT}
        transport = httpx.AsyncHTTPTransport(verify=_encrypted(), socket_options=_KEEP_ALIVE)
        timeout = httpx.Timeout(CONNECT_SECONDS, read=self.read_seconds)
        pinned = {"trace": _Pinned(self.key_hash).check}
        try:
            async with (
                httpx.AsyncClient(base_url=self.url, transport=transport, timeout=timeout, trust_env=False) as client,
                client.stream(method, path, content=body, headers=headers, extensions=pinned) as answer,
            ):
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            told = f"{self.url} cannot be reached: {error or type(error).__name__}"
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
                raise Unavailable(told) from error
            raise BrokenOff(told) from error


def _encrypted() -> ssl.SSLContext:
    """TLS with anybody: whom one talks to is checked by key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class _Pinned:
    """Looks at the other's key between the handshake and the request."""

    key_hash: KeyHash

    async def check(self, event: str, told: Mapping[str, Any]) -> None:
        """Raises Unavailable when the other's key is not the one that is known."""
        if event != "connection.start_tls.complete":
            return
        tls = told["return_value"].get_extra_info("ssl_object")
        try:
            public = agent.spki_of_certificate(tls.getpeercert(binary_form=True) or b"")
        except agent.BadDocument:
            public = b""
        if not nodes_list.fits(self.key_hash, public):
            await told["return_value"].aclose()
            raise Unavailable("it shows another key than the nodes list has; nothing was sent.")
