# SPDX-License-Identifier: Apache-2.0
"""One supervised process seen from inside: how it gets its settings, says that it is ready, and ends with its parent.

Standard input carries one line with the settings, and further lines when some of them change (`Told`). Its end means
that the supervisor is gone, also after kill -9, and the process ends itself. Standard output carries one JSON line a
message back to the supervisor. What the API or the worker does is not here: `wiring.py` and `worker_wiring.py` say.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from quarterdeck.core.errors import Unavailable
from quarterdeck.daemon import log_lines
from quarterdeck.daemon.config import Config, Told, WrongSettings
from quarterdeck.daemon.places import Unreadable
from quarterdeck.daemon.serving import API_DRAIN_SECONDS, CIPHERS

#: How long a process may take to end by itself after its supervisor has gone.
ORPHAN_SECONDS = 10.0
#: How long the supervisor may take to read the settings anew; a command that gives one may take ten seconds.
RELOAD_SECONDS = 15.0
PR_SET_PDEATHSIG = 1


class Link:
    """The two pipes to the supervisor."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))  # a second belt beside the pipe
        self._input = os.fdopen(os.dup(0), "rb")
        self._output = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)  # whatever prints goes to the log

    def receive(self) -> Config:
        """Wait for the settings; from then on the end of the pipe ends this process."""
        line = self._input.readline()
        if not line:
            sys.exit(0)  # the supervisor gave up before it had anything to say
        threading.Thread(target=self._end_with_supervisor, name="supervisor-watch", daemon=True).start()
        return msgspec.json.decode(line, type=Config)

    def send(self, **message: Any) -> None:
        """Tell the supervisor something; it may be gone."""
        try:
            os.write(self._output, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return

    def reload(self) -> None:
        """Have the settings read anew; those that may change are in use when this returns.

        Raises WrongSettings when they cannot be used, and Unavailable.
        """
        with self._asking:
            while not self._answers.empty():
                self._answers.get()
            self.send(reload=True)
            try:
                problem = self._answers.get(timeout=RELOAD_SECONDS)
            except queue.Empty:
                raise Unavailable("The settings are not read anew: the supervisor does not answer.") from None
        if problem:
            raise WrongSettings(problem)

    def _hear(self, line: bytes) -> None:
        told = msgspec.json.decode(line, type=Told)
        if told.log is not None:
            log_lines.choose(told.log)
        self._answers.put(told.problem)

    def _end_with_supervisor(self) -> None:
        for line in self._input:
            self._hear(line)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)


def api(listeners: Sequence[int]) -> None:
    """Serve the APIs on the listening sockets of these descriptors until told to stop."""
    link = Link()
    import socket

    import uvicorn  # deferred, like the wiring: other commands of this program do without

    from quarterdeck.daemon import connections, proxies, tls, wiring

    config = link.receive()
    log_lines.start(config.log)
    connections.allow_many()

    class Server(connections.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                link.send(ready=True)

    application = wiring.application(config, reload=link.reload)
    kept = tls.files(config.data)
    protection: dict[str, Any] = {}
    if config.tls:
        protection = {
            "ssl_keyfile": str(kept.server_key),
            "ssl_certfile": str(kept.server_certificate),
            "ssl_ciphers": CIPHERS,
        }
    settings = uvicorn.Config(
        proxies.Proxied(application, config.trusted_proxies, config.relay.certificate_header),
        http=connections.ConnectionProtocol,  # h11: it keeps the spelling of header names, which peers' scripts rely on
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `proxies` does it
        timeout_graceful_shutdown=API_DRAIN_SECONDS,
        **protection,
    )
    # A thread that puts a long list together must not keep short requests waiting for 5 ms at each of their turns;
    # and what was imported is never garbage.
    sys.setswitchinterval(0.001)
    gc.freeze()
    server = Server(settings, application.state.let_go)  # agents that wait would keep it until it loses patience
    server.run(sockets=[socket.socket(fileno=listener) for listener in listeners])
    sys.exit(0 if server.started else 1)


def worker() -> None:
    """Do background work until told to stop."""
    link = Link()
    import asyncio

    from quarterdeck.daemon import worker_wiring

    config = link.receive()
    log_lines.start(config.log)

    async def work() -> None:
        task = asyncio.ensure_future(worker_wiring.worker(config))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        link.send(ready=True)
        try:
            await task
        except asyncio.CancelledError:
            return

    asyncio.run(work())


def prepare(*, migrate: bool) -> None:
    """Bring keys, schema and first accounts into place, and tell the supervisor what to print."""
    link = Link()
    from quarterdeck.core.errors import QuarterdeckError
    from quarterdeck.daemon import first_start

    config = link.receive()
    log_lines.start(config.log)
    try:
        link.send(banner=first_start.prepare(config, migrate=migrate))
    except QuarterdeckError as error:
        link.send(error=error.message, unreadable=isinstance(error, Unreadable))
        sys.exit(1)
