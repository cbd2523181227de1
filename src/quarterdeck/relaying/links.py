# SPDX-License-Identifier: Apache-2.0
"""Requests from one server of the tree to another: over TLS with the other's key pinned, signed with one's own.

A link keeps a few connections open. Who did not answer is not asked again for some seconds, so that a server that
hangs costs one wait and not one for each request. Safe for threads.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urlsplit

from quarterdeck import __version__
from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent
from quarterdeck.formats.agent_client import PinnedConnection, Untrusted
from quarterdeck.formats.signature import SigningKey

log = logging.getLogger(__name__)

#: How long one waits for each piece of an answer.
ANSWER_SECONDS = 30.0
#: Who did not answer is left alone for so long.
REST_SECONDS = 10.0
_IDLE_CONNECTIONS = 4
#: What an idle connection says that the other closed; over TLS a broken pipe is told as an end in the wrong place.
_CLOSED_MEANWHILE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
_PIECE = 256 * 1024
_MAX_ANSWER = 128 * 1024 * 1024
_DIGITS_OF_TIME = 12
#: Two tellings of a clock that differ no more tell the same.
_SAME_SECONDS = 10
USER_AGENT = f"quarterdeck-relay/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who asks, and the key that proves it."""

    node: NodeId
    key: SigningKey

    def sign(self, message: bytes) -> str:
        """A signature, base64."""
        return base64.b64encode(self.key.sign(message)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A complete answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a refusal; empty when there is none."""
        return str(self._document().get("code", ""))

    @property
    def message(self) -> str:
        """What was said of a refusal."""
        return str(self._document().get("message", f"status {self.status}"))

    def server_time(self) -> int | None:
        """The other's Unix time, when it refused a request for its time; None else."""
        if self.status != http.client.UNAUTHORIZED:
            return None
        found = self._document()
        told = found.get("server_time") if found.get("code") == "clock_skew" else None
        text = str(told) if told is not None else self.headers.get(agent.HEADER_TIME.lower(), "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_OF_TIME else None

    def _document(self) -> dict[str, object]:
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Times:
    """The time of another server, as it says when it refuses ours; our own until then. Safe for threads.

    The links of a relay to the server above share one, and the relay goes by it: so all of a tree go by the root's.
    """

    #: the other's time minus ours, in seconds
    ahead: int = 0

    def now(self) -> float:
        """The other's Unix time."""
        return time.time() + self.ahead

    def learn(self, told: Told) -> bool:
        """Whether an answer refuses a time that was not the other's; a request that is signed anew may then pass."""
        server_time = told.server_time()
        if server_time is None:
            return False
        before, self.ahead = self.ahead, server_time - int(time.time())
        return abs(self.ahead - before) > _SAME_SECONDS


@dataclass(kw_only=True)
class Link:
    """The way to one other server. Without a pin the other's certificate is checked as browsers do."""

    url: str
    pin: str
    signer: Signer
    clock: Callable[[], float] = time.monotonic
    answer_seconds: float = ANSWER_SECONDS
    rest_seconds: float = REST_SECONDS
    times: Times = field(default_factory=Times)
    _idle: list[http.client.HTTPConnection] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _closed: bool = False
    _rests_until: float = 0.0

    @property
    def rests(self) -> bool:
        """Whether the other did not answer lately, so that asking now would be refused here."""
        return self.clock() < self._rests_until

    def ask(
        self, method: str, target: str, body: bytes | IO[bytes] = b"", headers: Mapping[str, str] | None = None
    ) -> Told:
        """One signed request; a second one when the clocks differ. Raises Unavailable."""
        digest = _digest(body)
        told = self._ask_once(method, target, body, digest, headers or {})
        return self._ask_once(method, target, body, digest, headers or {}) if self.times.learn(told) else told

    def pass_on(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], *, insist: bool = False
    ) -> Told:
        """A request as somebody else signed it; `insist`: ask even who did not answer lately. Raises Unavailable."""
        if insist:
            self._rests_until = 0.0
        with self._answered(method, target, body, headers) as reply:
            return _told(reply)

    def download(self, target: str, into: IO[bytes], limit: int) -> None:
        """Write what a path has into a file. Raises Unavailable, also when it is not there or longer than `limit`."""
        refused = self._download_once(target, into, limit)
        if refused is not None and self.times.learn(refused):
            refused = self._download_once(target, into, limit)
        if refused is not None:
            raise Unavailable(f"{self.url} does not give {target}: {refused.message}")

    def signed(self, method: str, target: str, body_digest: str) -> dict[str, str]:
        """The headers that say who asks; new ones for each request."""
        moment, nonce, node = str(int(self.times.now())), os.urandom(16).hex(), self.signer.node
        message = agent.request_message_of(method, target, node, moment, nonce, body_digest)
        return {
            agent.HEADER_NODE: node,
            agent.HEADER_TIME: moment,
            agent.HEADER_NONCE: nonce,
            agent.HEADER_SIGNATURE: self.signer.sign(message),
        }

    def close(self) -> None:
        """Let the idle connections go, and keep none from now on; requests that go on come to their end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask_once(
        self, method: str, target: str, body: bytes | IO[bytes], digest: str, headers: Mapping[str, str]
    ) -> Told:
        with self._answered(method, target, body, {**headers, **self.signed(method, target, digest)}) as reply:
            return _told(reply)

    def _download_once(self, target: str, into: IO[bytes], limit: int) -> Told | None:
        """None when it is all there, else what was said instead."""
        with self._answered("GET", target, b"", self.signed("GET", target, agent.digest(b""))) as reply:
            if reply.status != http.client.OK:
                return _told(reply)
            size = 0
            while piece := reply.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise Unavailable(f"{self.url} gives more than {limit} bytes for {target}.")
                into.write(piece)
            return None

    @contextmanager
    def _answered(
        self, method: str, target: str, body: bytes | IO[bytes], headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        if self.rests:
            raise Unavailable(f"{self.url} did not answer lately.")
        try:
            connection, reply = self._send(method, target, body, {**headers, "User-Agent": USER_AGENT})
            try:
                yield reply
            except BaseException:
                connection.close()
                raise
            if reply.isclosed() and not reply.will_close:
                self._put_back(connection)
            else:
                connection.close()
        except Untrusted as error:
            self._rest()
            raise Unavailable(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            self._rest()
            told = error.strerror if isinstance(error, OSError) else ""
            reason = told or str(error) or type(error).__name__
            raise Unavailable(f"{self.url} cannot be reached: {reason}") from error
        self._rests_until = 0.0

    def _send(
        self, method: str, target: str, body: bytes | IO[bytes], headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """On an idle connection, and on a fresh one when that had been closed meanwhile."""
        kept = self._take()
        if kept is not None:
            try:
                return kept, _exchange(kept, method, target, body, headers)
            except _CLOSED_MEANWHILE:
                kept.close()
            except BaseException:
                kept.close()
                raise
        fresh = self._connect()
        try:
            return fresh, _exchange(fresh, method, target, body, headers)
        except BaseException:
            fresh.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(host, parts.port or 80, timeout=self.answer_seconds)
        elif self.pin:
            connection = PinnedConnection(host, parts.port or 443, self.pin)
        else:
            connection = http.client.HTTPSConnection(host, parts.port or 443, timeout=self.answer_seconds)
        connection.connect()
        connection.sock.settimeout(self.answer_seconds)
        return connection

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _put_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _rest(self) -> None:
        self._rests_until = self.clock() + self.rest_seconds


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | IO[bytes],
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    if not isinstance(body, bytes):
        headers = {**headers, "Content-Length": str(body.seek(0, os.SEEK_END))}
        body.seek(0)
    connection.request(method, target, body or None, dict(headers))
    return connection.getresponse()


def _told(reply: http.client.HTTPResponse) -> Told:
    body = reply.read(_MAX_ANSWER + 1)
    if len(body) > _MAX_ANSWER:
        raise Invalid(f"The answer is longer than {_MAX_ANSWER} bytes.")
    return Told(status=reply.status, headers={name.lower(): value for name, value in reply.getheaders()}, body=body)


def _digest(body: bytes | IO[bytes]) -> str:
    if isinstance(body, bytes):
        return agent.digest(body)
    body.seek(0)
    digest = hashlib.sha256()
    while piece := body.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
