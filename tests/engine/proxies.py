# SPDX-License-Identifier: Apache-2.0
"""A network between a worker and its database that a test can break in several ways."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import make_url


class Proxy:
    """Passes on bytes between clients on a loopback port and a database; one thread a direction."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()
        self._cut = False
        self._swallowing = False
        #: commits of which no client heard
        self.swallowed = 0
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The database, through here."""
        port = self._listening.getsockname()[1]
        through = self._target.set(host="127.0.0.1", port=port, query={"sslmode": "disable", "gssencmode": "disable"})
        return through.render_as_string(hide_password=False)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Meanwhile nobody gets through; who was through is cut off."""
        self._cut = True
        self._end_pairs()
        yield
        self._cut = False

    @contextmanager
    def swallowing_answers_to_commits(self) -> Iterator[None]:
        """Meanwhile each commit reaches the database, and its sender is cut off before the answer comes."""
        self._swallowing = True
        yield
        self._swallowing = False

    def close(self) -> None:
        """End everything."""
        self._cut = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._end_pairs()
        for thread in list(self._threads):
            thread.join()

    def _end_pairs(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for one in pair:
                _end(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._cut:
                    client.close()
                    continue
                server = self._connect()
                with self._lock:
                    self._pairs.add((client, server))
                for function in (self._forth, self._back):
                    thread = threading.Thread(target=self._run, args=(function, client, server))
                    self._threads.append(thread)
                    thread.start()

    def _connect(self) -> socket.socket:
        directory = self._target.query.get("host")
        port = self._target.port or 5432
        if isinstance(directory, str) and directory.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{directory}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((self._target.host or "127.0.0.1", port))

    def _run(
        self, function: Callable[[socket.socket, socket.socket], None], client: socket.socket, server: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            function(client, server)
        _end(client)
        _end(server)

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(65536):
            if self._swallowing and b"COMMIT" in data:
                self.swallowed += 1
                _end(client)
                server.sendall(data)
                server.shutdown(socket.SHUT_WR)
                while server.recv(65536):
                    pass
                return
            server.sendall(data)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(65536):
            client.sendall(data)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()


@contextmanager
def to(url: str) -> Iterator[Proxy]:
    """A proxy to the database of this URL."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
