# SPDX-License-Identifier: Apache-2.0
"""Connections held for nothing are let go; those in use are not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from quarterdeck.daemon.connections import ConnectionProtocol


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
    server = uvicorn.Server(settings)
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
