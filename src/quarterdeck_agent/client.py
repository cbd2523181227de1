# SPDX-License-Identifier: Apache-2.0
"""Talking to the server: one TLS connection per run, the server's key pinned, every request signed.

With a pin, the key is all that is trusted and the host name does not matter; without one, the
system's certificate authorities and the host name decide. Plain HTTP goes to loopback only.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
from typing import IO, Any, Dict, NamedTuple, Optional
from urllib.parse import urlsplit

from quarterdeck_agent import documents
from quarterdeck_agent.errors import AgentError, Refused, Unreachable, Untrusted
from quarterdeck_agent.keys import Key

CONNECT_TIMEOUT_SECONDS = 10
ANSWER_TIMEOUT_SECONDS = 60

_PIECE_BYTES = 256 * 1024
#: What an idle connection says that the server closed; over TLS a broken pipe is told as an end in the wrong place.
_CLOSED_MEANWHILE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
_AGENT = "quarterdeck-agent"


class Answer(NamedTuple):
    """A complete answer; header names in lower case."""

    status: int
    headers: Dict[str, str]
    body: bytes


class Offered(NamedTuple):
    """A policy as the server sent it, NOT verified yet."""

    body: bytes
    #: base64
    signature: str
    etag: str


class PinnedConnection(http.client.HTTPSConnection):
    """HTTPS that checks the server's public key before the first byte of a request leaves."""

    def __init__(self, host: str, port: int, pin: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(host, port, timeout=CONNECT_TIMEOUT_SECONDS, context=context)
        self._pin = pin

    def connect(self) -> None:
        super().connect()
        certificate = self.sock.getpeercert(binary_form=True)
        found = pin_of(certificate or b"")
        if found != self._pin:
            self.close()
            raise Untrusted(
                f"The server's key is {found}, not the pinned {self._pin}; nothing was sent. "
                "If the server's key was replaced on purpose, enrol this node again with the new pin."
            )


class Client:
    """Signed requests to one server, over one connection that is opened when first needed."""

    def __init__(self, server: str, pin: str, key: Key, node: str) -> None:
        """Raises AgentError when the URL is not usable."""
        self._url = urlsplit(server if "//" in server else "https://" + server)
        self._server = server
        self._pin = pin
        self._key = key
        self._node = node
        #: server time minus ours in seconds, learnt from a refusal
        self.offset = 0
        self._connection: Optional[http.client.HTTPConnection] = None
        self._check_url()

    def enroll(self, enrolment: documents.Enrolment) -> documents.Enrolled:
        """Present this node. Raises Refused, Unreachable, Untrusted."""
        answer = self._ask("POST", documents.PATH_ENROLL, json.dumps(enrolment).encode(), "application/json")
        document = _json_object(answer.body)
        if not isinstance(document.get("policy_key"), str) or not isinstance(document.get("status"), str):
            raise Unreachable(f"{self._server} did not answer like a Quarterdeck server.")
        return {"status": document["status"], "policy_key": document["policy_key"]}

    def policy(self, etag: str) -> Optional[Offered]:
        """The node's policy, or None when `etag` still is the current one."""
        answer = self._ask("GET", documents.PATH_POLICY, b"", etag=etag)
        if answer.status == 304:
            return None
        signature = answer.headers.get(documents.HEADER_SIGNATURE.lower(), "")
        return Offered(answer.body, signature, answer.headers.get("etag", ""))

    def send(self, path: str, parcel: bytes) -> None:
        """Deliver a parcel; returns once the server has acknowledged it."""
        self._ask("POST", path, parcel, "application/octet-stream")

    def wake(self) -> documents.Wake:
        """Wait until the server asks for something, or for a while. Raises Refused, Unreachable, Untrusted."""
        document = _json_object(self._ask("POST", documents.PATH_WAKE, b"").body)
        if not isinstance(document.get("status"), str):
            raise Unreachable(f"{self._server} did not answer like a Quarterdeck server.")
        return document  # type: ignore[return-value]

    def send_output(self, run: str, number: int, text: bytes, status: Optional[int] = None) -> str:
        """Deliver a piece of what a run prints; the `status` of `documents.Taken`."""
        path = documents.output_path(run, number, status)
        answer = self._ask("POST", path, text, "application/octet-stream")
        return str(_json_object(answer.body).get("status", ""))

    def document(self, path: str) -> Dict[str, Any]:
        """The JSON object at a path, empty when there is none. Raises Refused, Unreachable, Untrusted."""
        return _json_object(self._ask("GET", path, b"").body)

    def wake_commands(self, listener: str, room: int) -> documents.CommandWake:
        """Wait for commands, with room for so many. Raises Refused, Unreachable, Untrusted."""
        document = _json_object(self._ask("POST", documents.commands_path(listener, room), b"").body)
        if not isinstance(document.get("status"), str):
            raise Unreachable(f"{self._server} did not answer like a Quarterdeck server.")
        return document  # type: ignore[return-value]

    def send_command_output(self, path: str, text: bytes) -> documents.CommandTaken:
        """Deliver a piece of what a command prints (see `documents.command_output_path`)."""
        document = _json_object(self._ask("POST", path, text, "application/octet-stream").body)
        return {"status": str(document.get("status", "")), "stop": document.get("stop") is True}

    def head(self, path: str) -> int:
        """The status for a path. Raises Refused, Unreachable, Untrusted."""
        return self._ask("HEAD", path, b"").status

    def put(self, path: str, body: bytes) -> None:
        """Leave something at a path. Raises Refused, Unreachable, Untrusted."""
        self._ask("PUT", path, body, "application/octet-stream")

    def download(self, path: str, target: IO[bytes]) -> None:
        """Write what is at a path into a stream, whatever its length. Raises Refused, Unreachable, Untrusted."""
        self.close()  # what another answer left must not be in the way
        try:
            self._download(self._url.path.rstrip("/") + path, target)
        except BaseException as error:
            self.close()
            if isinstance(error, http.client.HTTPException):
                raise self._unreachable(error) from error
            raise

    def _download(self, location: str, target: IO[bytes]) -> None:
        connection = self._connection = self._connect()
        connection.request("GET", location, None, {**self._signed("GET", location, b""), "User-Agent": _AGENT})
        reply = connection.getresponse()
        if reply.status != 200:
            raise _refusal(Answer(reply.status, {}, self._content(reply)))
        while piece := reply.read(_PIECE_BYTES):
            target.write(piece)
        if reply.length:
            raise Unreachable(f"{self._server} broke off in the middle of an answer.")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_url(self) -> None:
        try:
            port = self._url.port
        except ValueError as error:
            raise AgentError(f"The server URL {self._server!r} has a bad port.") from error
        if self._url.scheme not in ("http", "https") or not self._url.hostname or port == 0:
            raise AgentError(f"The server URL {self._server!r} is not of the form https://HOST[:PORT].")
        if self._url.scheme == "http" and not _is_loopback(self._url.hostname):
            raise AgentError(f"{self._server} is refused: plain http goes to this machine only; use https.")
        if self._url.scheme == "https" and self._pin and not self._pin.startswith("sha256//"):
            raise AgentError(f"The pin {self._pin!r} is not of the form sha256//BASE64.")

    def _ask(self, method: str, path: str, body: bytes, content_type: str = "", etag: str = "") -> Answer:
        """One signed request; a second one with the server's clock when ours is off."""
        target = self._url.path.rstrip("/") + path
        extra = {"Content-Type": content_type} if content_type else {}
        if etag:
            extra["If-None-Match"] = etag
        answer = self._exchange(method, target, body, extra)
        if answer.status < 400:
            return answer
        refusal = _refusal(answer)
        if refusal.code == "clock_skew" and refusal.server_time is not None:
            self.offset = refusal.server_time - int(time.time())
            answer = self._exchange(method, target, body, extra)
            if answer.status < 400:
                return answer
            refusal = _refusal(answer)
        raise refusal

    def _exchange(self, method: str, target: str, body: bytes, extra: Dict[str, str]) -> Answer:
        """Send on the open connection, once more on a fresh one if that had been closed meanwhile."""
        fresh = self._connection is None
        try:
            return self._send_once(method, target, body, extra)
        except _CLOSED_MEANWHILE as error:
            self.close()
            if fresh:
                raise Unreachable(f"{self._server} closed the connection without an answer.") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        try:
            return self._send_once(method, target, body, extra)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _send_once(self, method: str, target: str, body: bytes, extra: Dict[str, str]) -> Answer:
        if self._connection is None:
            self._connection = self._connect()
        headers = {**self._signed(method, target, body), **extra, "User-Agent": _AGENT}
        self._connection.request(method, target, body or None, headers)
        reply = self._connection.getresponse()
        content = self._content(reply)
        return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, content)

    def _content(self, reply: http.client.HTTPResponse) -> bytes:
        """The whole body, in pieces: old Pythons take memory for as much as is asked for."""
        pieces, size = [], 0
        try:
            while piece := reply.read(_PIECE_BYTES):
                size += len(piece)
                if size > documents.MAX_PAYLOAD_BYTES:
                    self.close()
                    raise Unreachable(f"{self._server} sent more than {documents.MAX_PAYLOAD_BYTES} bytes.")
                pieces.append(piece)
        except http.client.IncompleteRead:
            pass  # told below
        if reply.length:
            self.close()
            raise Unreachable(f"{self._server} broke off in the middle of an answer.")
        return b"".join(pieces)

    def _connect(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        connection: http.client.HTTPConnection
        if self._url.scheme == "http":
            connection = http.client.HTTPConnection(host, self._url.port or 80, timeout=CONNECT_TIMEOUT_SECONDS)
        elif self._pin:
            connection = PinnedConnection(host, self._url.port or 443, self._pin)
        else:
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            port = self._url.port or 443
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_SECONDS, context=context)
        connection.connect()
        connection.sock.settimeout(ANSWER_TIMEOUT_SECONDS)
        return connection

    def _signed(self, method: str, target: str, body: bytes) -> Dict[str, str]:
        """The four headers that say who asks; new ones for every attempt."""
        moment, nonce = str(int(time.time()) + self.offset), os.urandom(16).hex()
        message = documents.request_message(method, target, self._node, moment, nonce, body)
        return {
            documents.HEADER_NODE: self._node,
            documents.HEADER_TIME: moment,
            documents.HEADER_NONCE: nonce,
            documents.HEADER_SIGNATURE: base64.b64encode(self._key.sign(message)).decode(),
        }

    def _unreachable(self, error: Exception) -> Unreachable:
        self.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"The certificate of {self._server} is not trusted here ({error.verify_message}); "
                "give the server's key with --pin."
            )
        if isinstance(error, (socket.timeout, TimeoutError)):
            return Unreachable(f"{self._server} did not answer in time.")
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        return Unreachable(f"{self._server} cannot be reached: {text}.")


def pin_of(certificate: bytes) -> str:
    """`sha256//BASE64` of the public key in a DER certificate; "" when it is not a certificate."""
    try:
        public = documents.spki_of_certificate(certificate)
    except documents.BadDocument:
        return ""
    return "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json_object(body: bytes) -> Dict[str, Any]:
    """The JSON object in `body`, empty when there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(answer: Answer) -> Refused:
    """The refusal in an answer; also from something that is not our server."""
    document = _json_object(answer.body)
    code, message = document.get("code"), document.get("message")
    server_time = document.get("server_time")
    told = answer.headers.get(documents.HEADER_TIME.lower(), "")
    if answer.status == 401 and told.isdecimal():  # the relay API speaks no JSON, and to HEAD nothing at all
        code, server_time = "clock_skew", int(told)
    return Refused(
        message if isinstance(message, str) and message else f"The server answered with status {answer.status}.",
        code if isinstance(code, str) else "",
        answer.status,
        server_time if isinstance(server_time, int) else None,
    )
