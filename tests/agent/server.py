# SPDX-License-Identifier: Apache-2.0
"""A real, small TLS server that speaks the agent protocol, and policies to give it. Fixtures are in `conftest.py`."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from quarterdeck_agent import der, documents, keys

TOKEN = "let-me-in"


@dataclass
class FakeServer:
    """Verifies every request like the real one; tests turn its knobs and look at what it kept."""

    certificate: Path
    key: rsa.RSAPrivateKey
    pin: str
    url: str = ""
    policy: bytes | None = None
    #: files of techniques by what they are asked for, which a test may have wrong
    contents: dict[str, bytes] = field(default_factory=dict)
    #: signs policies; tests replace it to forge one
    signs_with: rsa.RSAPrivateKey | None = None
    clock_ahead: int = 0
    #: tells its clock as the relay API does, in a header of an empty answer
    tells_in_header: bool = False
    enrolment_status: str = "accepted"
    #: path -> (status, code): refuse
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    parcels: list[documents.Parcel] = field(default_factory=list)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    #: close the connection after storing a parcel, before acknowledging it
    swallow_acknowledgements: int = 0
    #: close a connection on which nothing is asked for so long
    idle_seconds: float | None = None

    def publish(self, document: Any) -> None:
        self.policy = documents.canonical(document)

    def runs(self) -> list[dict[str, Any]]:
        return [parcel.payload() for parcel in self.parcels if parcel.kind == "report"]

    def policy_key_pem(self) -> str:
        shape = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, shape).decode()

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        node = headers[documents.HEADER_NODE]
        if abs(int(headers[documents.HEADER_TIME]) - self.now()) > documents.CLOCK_TOLERANCE_SECONDS:
            told = 401, {documents.HEADER_TIME: str(self.now())}, b""
            return told if self.tells_in_header else self.refuse(403, "clock_skew")
        if (refusal := self.authenticate(method, path, headers, body)) is not None:
            return self.refuse(*refusal)
        if path == documents.PATH_ENROLL:
            answer = {"status": self.enrolment_status, "policy_key": self.policy_key_pem()}
            return 200, {}, json.dumps(answer).encode()
        if path == documents.PATH_POLICY:
            return self.answer_policy(node, headers.get("If-None-Match"))
        if path.startswith(documents.PATH_RESOURCES):
            content = self.contents.get(path.rpartition("/")[2])
            return self.refuse(404, "invalid") if content is None else (200, {}, content)
        parcel = documents.open_parcel(body)
        assert keys.verify(self.nodes[node], parcel.message(), base64.b64decode(parcel.signature))
        self.parcels.append(parcel)
        return 202, {}, b"{}"

    def authenticate(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, str] | None:
        """Status and code of the refusal, None when the request is the node's own."""
        node = headers[documents.HEADER_NODE]
        public = self.nodes.get(node)
        if path == documents.PATH_ENROLL:
            enrolment = json.loads(body)
            if enrolment["token"] != TOKEN:
                return 403, "bad_token"
            assert keys.certified_node(enrolment["certificate"]) == node
            spki = documents.spki_of_certificate(der.from_pem(enrolment["certificate"])[1])
            public = der.to_pem("PUBLIC KEY", spki)
        if public is None:
            return 404, "unknown_node"
        moment, nonce = headers[documents.HEADER_TIME], headers[documents.HEADER_NONCE]
        message = documents.request_message(method, path, node, moment, nonce, body)
        if not keys.verify(public, message, base64.b64decode(headers[documents.HEADER_SIGNATURE])):
            return 403, "bad_signature"
        self.nodes[node] = public
        return self.refusals.get(path)

    def answer_policy(self, node: str, etag: str | None) -> tuple[int, dict[str, str], bytes]:
        if self.policy is None:
            return self.refuse(403, "not_accepted")
        current = f'"{hashlib.sha256(self.policy).hexdigest()}"'
        if etag == current:
            return 304, {"ETag": current}, b""
        signer = self.signs_with or self.key
        signature = signer.sign(documents.policy_message(node, self.policy), padding.PKCS1v15(), hashes.SHA512())
        headers = {"ETag": current, documents.HEADER_SIGNATURE: base64.b64encode(signature).decode()}
        return 200, headers, self.policy

    def refuse(self, status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        refusal = {"code": code, "message": f"refused: {code}", "server_time": self.now()}
        return status, {}, json.dumps(refusal).encode()

    def now(self) -> int:
        return int(time.time()) + self.clock_ahead


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Agents that do not trust this server hang up; anything else is told as usual."""
        if not isinstance(sys.exception(), ssl.SSLError):
            super().handle_error(request, client_address)


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """Serve on a free port of loopback until the block ends."""
    listener = _Listener(("127.0.0.1", 0), _handler(fake))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(fake.certificate)
    listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    fake.url = f"https://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.connection.settimeout(server.idle_seconds)

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = server.answer(self.command, self.path, self.headers, body)
            server.requests.append((self.command, self.path, status))
            if server.swallow_acknowledgements and self.path == documents.PATH_REPORTS:
                server.swallow_acknowledgements -= 1
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = handle_any  # noqa: N815  the standard library's names

        def log_message(self, *_args: Any) -> None:
            return

    return Handler


def call(method: str, value: str = "", **changes: Any) -> documents.Call:
    """A call of `method`, reported under its own name."""
    made: dict[str, Any] = {
        "type": "call",
        "id": f"id-{method}-{value}",
        "component": method,
        "method": method,
        "value": value,
        "params": {"path": value},
        "condition": "any",
        "report": True,
    }
    return made | changes  # type: ignore[return-value]


def policy(node: str, *items: Any, mode: str = "enforce", **changes: Any) -> documents.Policy:
    """A policy of one directive that holds `items`."""
    made: dict[str, Any] = {
        "format": documents.FORMAT,
        "node": node,
        "config_id": "config-1",
        "schedule": {"interval_minutes": 5, "start_minute": 0, "start_hour": 0, "splay_minutes": 5},
        "reporting": "full-compliance",
        "heartbeat_runs": 1,
        "conditions": ["group_web"],
        "properties": {"site": {"city": "Lyon"}},
        "policies": [
            {
                "rule": "rule-1",
                "directive": "directive-1",
                "name": "A directive",
                "technique": "technique",
                "version": "1.0",
                "mode": mode,
                "items": list(items),
            }
        ],
    }
    return made | changes  # type: ignore[return-value]
