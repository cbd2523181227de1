# SPDX-License-Identifier: Apache-2.0
"""Remote runs on their way to a relay just below: one request, whose answer is read as long as it comes.

The relay's key is checked before anything is sent. A hop holds a connection and no thread. Agents at work may say
nothing for long, so it is the system's keep-alive that notices a relay that is gone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import OK
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import KeyHash, ListedNode
from quarterdeck.formats import agent, nodes_list
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import USER_AGENT, Link, Signer, Times, Told
from quarterdeck.relaying.shared_file_hops import pin_of

if TYPE_CHECKING:
    import httpx

_PATH = "/rudder/relay-api/remote-run"
CONNECT_SECONDS = 10.0
#: A little more than the longest run may take.
ANSWER_SECONDS = 3900.0
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
#: How much of an answer that is an error is told.
_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRunHops:
    """Asks relays just below; a `Hop` of `remote_runs.py`. One that never said where it is has its usual address."""

    addresses: Addresses
    signer: Signer
    #: of the relays whose clock is not ours
    times: dict[NodeId, Times] = field(default_factory=dict)

    async def __call__(
        self, relay: NodeId, listed: ListedNode, where: Literal["all", "nodes"], form: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """What the relay answers, as it comes. Raises Unavailable."""
        if listed.key_hash is None:
            raise Unavailable("its key is not known.")
        url, times = self.addresses.of(relay) or f"https://{listed.hostname}", self.times.setdefault(relay, Times())
        link = Link(url=url, pin=pin_of(listed.key_hash), signer=self.signer, times=times)
        for is_last in (False, True):
            async with self._asked(link, listed.key_hash, where, urlencode(form).encode()) as answer:
                if answer.status_code == OK:
                    async for piece in answer.aiter_bytes():
                        yield piece
                    return
                told = Told(status=answer.status_code, headers=dict(answer.headers), body=await answer.aread())
            if is_last or not times.learn(told):
                reason = told.body[:_REASON].decode(errors="replace")
                raise Unavailable(f"{url} answers with status {told.status}: {reason}")

    @asynccontextmanager
    async def _asked(self, link: Link, key_hash: KeyHash, where: str, body: bytes) -> AsyncIterator[httpx.Response]:
        """The answer to one request, before it is read. Raises Unavailable, also while it is read."""
        import httpx  # most relays have no relays below them, and little memory

        signed = await asyncio.to_thread(link.signed, "POST", f"{_PATH}/{where}", agent.digest(body))
        headers = {**signed, "Content-Type": "application/x-www-form-urlencoded", "User-Agent": USER_AGENT}
        transport = httpx.AsyncHTTPTransport(verify=_encrypted(), socket_options=_KEEP_ALIVE)
        timeout = httpx.Timeout(CONNECT_SECONDS, read=ANSWER_SECONDS)
        pinned = {"trace": _Pinned(key_hash).check}
        try:
            async with (
                httpx.AsyncClient(base_url=link.url, transport=transport, timeout=timeout, trust_env=False) as client,
                client.stream("POST", f"{_PATH}/{where}", content=body, headers=headers, extensions=pinned) as answer,
            ):
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(f"{link.url} cannot be reached: {error or type(error).__name__}") from error


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
        """Raises Unavailable when the other's key is not the one that the nodes list has."""
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
