# SPDX-License-Identifier: Apache-2.0
"""Connections held for nothing are let go; those in use are not."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from tests.daemon.servers import eventually

from quarterdeck.daemon import tls
from quarterdeck.daemon.connections import ConnectionProtocol, Server


class Hasty(ConnectionProtocol):
    head_seconds = 0.5
    stall_seconds = 0.5


BIG = 64 * 1024 * 1024


async def application(scope: dict[str, object], receive: object, send: object) -> None:
    """Answers after the body; /big answers much."""
    assert callable(receive)
    assert callable(send)
    while (await receive()).get("more_body"):
        pass
    body = b"x" * BIG if scope["path"] == "/big" else b"done"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(application, http=Hasty, ws="none", lifespan="off", log_config=None)
    server = Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def rest_of(connection: socket.socket, until: bytes | None = None) -> bytes:
    """What still comes until the server closes, or up to `until`; the test fails when neither happens."""
    connection.settimeout(10)
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1024 * 1024):
            received += piece
            if until is not None and received.endswith(until):
                break
    return bytes(received)


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes."""
    begun = time.monotonic()
    rest_of(connection)
    return time.monotonic() - begun


def drip(connection: socket.socket, seconds: float) -> None:
    """Send a byte of a method's name now and then, until the server has enough of it."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        connection.send(b"G")
        time.sleep(0.1)


def test_who_says_nothing_is_let_go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert closed_after(connection) < 5


def test_headers_that_drip_do_not_prolong_the_wait(port: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        drip(connection, seconds=5)


def test_headers_that_drip_after_an_answer_do_not_either(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(connection, until=b"done")
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert closed_after(connection) < 4  # before the end of what uvicorn gives an idle one, 5 s


def test_a_body_may_take_longer_than_headers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            time.sleep(0.15)
            connection.sendall(b"x")
        assert rest_of(connection, until=b"done").endswith(b"done")


def test_a_reader_who_takes_nothing_is_let_go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2)
        assert len(rest_of(connection)) < BIG


# -- the end of a server -------------------------------------------------------------------


class Ending:
    """A server over TLS that is told to end while connections are open."""

    def __init__(self, directory: Path) -> None:
        kept = tls.initialise(directory, "https://127.0.0.1:1", datetime.now(UTC))
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.trusting = ssl.create_default_context(cafile=str(kept.ca_certificate))
        settings = uvicorn.Config(
            application,
            http=ConnectionProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=10,
            ssl_keyfile=str(kept.server_key),
            ssl_certfile=str(kept.server_certificate),
        )
        self.server = Server(settings)
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()

    def dial(self) -> socket.socket:
        """A connection that says nothing, accepted by the server."""
        before = len(self.server.server_state.coming)
        connection = socket.create_connection(self.address, timeout=10)
        assert eventually(lambda: len(self.server.server_state.coming) > before, 10)
        return connection

    def shake_hands(self, connection: socket.socket) -> ssl.SSLSocket:
        return self.trusting.wrap_socket(connection, server_hostname="127.0.0.1")

    def end(self) -> None:
        """Tell it to end, as a signal does; it listens no more afterwards."""
        self.server.handle_exit(signal.SIGTERM, None)
        assert eventually(lambda: not self.listens(), 10)

    def listens(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=10).close()
        except ConnectionError:
            return False
        return True


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[Ending]:
    made = Ending(tmp_path)
    yield made
    made.server.should_exit = True
    made.thread.join()


def ask(connection: socket.socket) -> bytes:
    """The answer to a request, up to the end of the connection."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return rest_of(connection)


def test_who_was_let_in_before_the_end_still_gets_an_answer(ending: Ending) -> None:
    with ending.dial() as shaking, ending.shake_hands(ending.dial()) as silent:
        ending.end()

        with ending.shake_hands(shaking) as late:
            answers = [ask(silent), ask(late)]

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in answer
        assert answer.endswith(b"done")
    ending.thread.join(10)
    assert not ending.thread.is_alive()


def test_who_has_had_an_answer_is_let_go_at_once(ending: Ending) -> None:
    with ending.shake_hands(ending.dial()) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(idle, until=b"done")

        ending.end()

        assert closed_after(idle) < 1
    ending.thread.join(5)
    assert not ending.thread.is_alive()


@pytest.mark.filterwarnings("ignore:unclosed")  # a handshake that never ends is left as it is
def test_who_never_says_anything_does_not_keep_a_server_that_ends(ending: Ending) -> None:
    with ending.dial(), ending.shake_hands(ending.dial()) as silent:
        ending.end()

        assert closed_after(silent) < 5
        silent.close()
        ending.thread.join(5)
        assert not ending.thread.is_alive()
