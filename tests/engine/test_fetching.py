# SPDX-License-Identifier: Apache-2.0
"""What the server fetches, from where, and what it refuses; from a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest

from quarterdeck.core.errors import Invalid
from quarterdeck.engine.fetching import Fetcher


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:{self.connection.getsockname()[1]}/nodes")
            self.end_headers()
            return
        bodies = {"/nodes": b"<project/>", "/empty": b"", "/long": b"x" * 2000}
        body = bodies.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(host: str = "0.0.0.0") -> Iterator[int]:
    with HTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


LOOPBACK = (r"http://127\.0\.0\.1:.*",)


def test_a_document_is_fetched_where_the_operator_allows_it() -> None:
    with serving() as port:
        assert Fetcher((), LOOPBACK).get(f"http://127.0.0.1:{port}/nodes") == b"<project/>"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "Unable to retrieve content: result code: 404 Not Found"),
        ("/empty", "Unable to retrieve content: the answer is empty"),
        ("/long", "is longer than 1000 bytes"),
        ("/elsewhere", "The host '127.0.0.2' has the address 127.0.0.2, which may be asked only"),
    ],
)
def test_what_is_refused_says_why(path: str, reason: str) -> None:
    with serving() as port, pytest.raises(Invalid, match=reason):
        Fetcher((), LOOPBACK, max_bytes=1000).get(f"http://127.0.0.1:{port}{path}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"])
def test_this_machine_and_metadata_services_are_not_asked(host: str) -> None:
    with pytest.raises(Invalid, match="may be asked only when the setting"):
        Fetcher().get(f"http://{host}:1/nodes")


def test_an_unknown_host_is_told_in_the_words_that_clients_look_for() -> None:
    with pytest.raises(Invalid, match=r"java\.net\.UnknownHostException: no-such-host\.invalid"):
        Fetcher().get("http://no-such-host.invalid/nodes")


def test_files_lie_below_an_allowed_directory_also_behind_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("secret")
    (inside / "script").write_text("echo")
    (inside / "link").symlink_to(outside)
    fetcher = Fetcher((PurePosixPath(inside),))

    assert fetcher.get(f"file://{inside}/script") == b"echo"
    for name in (str(inside / "link"), str(outside), f"{inside}/../outside", "relative"):
        with pytest.raises(Invalid):
            fetcher.file(name)
