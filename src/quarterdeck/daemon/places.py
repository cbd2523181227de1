# SPDX-License-Identifier: Apache-2.0
"""What must be ours before anything begins: the data directory (a lock) and the listening sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quarterdeck.core.errors import Conflict, Unavailable

BACKLOG = 512


class Unreadable(Unavailable):
    """A file that is kept here cannot be read, or is damaged: starting again does not help."""


#: Who was killed leaves a process behind that lets go of the port in a moment.
_IN_USE_SECONDS = 2.0
_LOOK_SECONDS = 0.05


@contextlib.contextmanager
def own_data_directory(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process. Raises Conflict when another `serve` holds it."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = error.strerror
        raise Unavailable(
            f"The data directory {data_dir} cannot be used by this user ({reason}): give another one with --data-dir, "
            "or let this user own it."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            message = (
                f"Another quarterdeckd (process {other}) serves {data_dir} already: stop it first, or give another "
            )
            raise Conflict(message + "--data-dir.") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises Unavailable with a sentence that says what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise Unavailable(f"There is no address '{host}' to listen at: correct --listen.") from error
    listener = socket.socket(family, kind, protocol)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            _bind(listener, address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise Unavailable(_cannot_listen(error, host, port)) from error
        yield listener


def _bind(listener: socket.socket, address: Any) -> None:
    until = time.monotonic() + _IN_USE_SECONDS
    while True:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _cannot_listen(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use by another program: stop it, or choose another port with --listen {host}:PORT."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host}: listen at 0.0.0.0:{port}, or at one it has."
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"This user may not listen at port {port}: choose a port above 1023 with --listen {host}:PORT."
    return f"Listening at {host}:{port} failed: {error.strerror}."
