# SPDX-License-Identifier: Apache-2.0
"""A server above a relay, for tests: it answers as it is told, late or not at all, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import serialization
from tests.agents import private_key

from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import FileEntry, TreeDocument
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.links import Link, Signer

RELAY = NodeId("1b000000-0000-4000-8000-00000000000a")


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Said:
    """What is answered; `wait` holds the answer back until it is set."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None


@dataclass
class Upstream:
    """`answer` says what a request gets."""

    url: str = ""
    answer: Callable[[Asked], Said] = lambda _: Said(404)
    asked: list[Asked] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def link(self, **changes: float) -> Link:
        pem = private_key(3).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        link = Link(url=self.url, pin="", signer=Signer(node=RELAY, key=SigningKey(pem)))
        link.rest_seconds = changes.get("rest_seconds", 0.0)
        link.answer_seconds = changes.get("answer_seconds", 10.0)
        self.links.append(link)
        return link


@contextlib.contextmanager
def upstream() -> Iterator[Upstream]:
    """One that listens on the loopback."""
    known = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            known.asked.append(asked)
            said = known.answer(asked)
            if said.wait is not None:
                said.wait.wait(30)
            with contextlib.suppress(OSError):
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

        do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815  # names that the library looks for

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield known
    finally:
        for link in known.links:
            link.close()
        server.shutdown()
        thread.join()
        server.server_close()


def conditional(asked: Asked, body: bytes) -> Said:
    """A document with its tag."""
    tag = relay_documents.etag(body)
    return Said(304) if asked.headers.get("if-none-match") == tag else Said(200, body, {"ETag": tag})


class Folder:
    """A shared folder above: what a test puts into `files` is what there is."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        #: digests whose content comes altered
        self.altered: set[str] = set()

    def answer(self, asked: Asked) -> Said:
        if asked.target == relay_documents.PATH_TREE:
            tree = {
                path: FileEntry(sha256=agent.digest(content), size=len(content), modified=1_000_000_000)
                for path, content in self.files.items()
            }
            return conditional(asked, relay_documents.encode(TreeDocument(tree)))
        digest = asked.target.rpartition("/")[2]
        for content in self.files.values():
            if agent.digest(content) == digest:
                return Said(200, content[::-1] if digest in self.altered else content)
        return Said(404, b'{"code":"invalid","message":"There is no such file."}')
