# SPDX-License-Identifier: Apache-2.0
"""How many run logs of genuine agents a second a server takes in: 74 lines, S/MIME with RSA-4096, gzip.

    python -m bench.run_logs [--nodes 500] [--runs 2] [--quick]

A real server with worker and database of its own; a run counts when it is committed. Files are renamed into the
directory for dropped files, all at once; or put over HTTP (plain, 16 connections that are kept), each acknowledged when
it is on disk; or put likewise, over TLS, to a real relay that passes them on. The goal is the project's own, on two
processors, which the client shares.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from bench import _relay, _run_logs, _server
from bench._processes import cpu_seconds
from bench._relay import Relay
from bench._run_logs import File, Signers, Subject
from bench._server import Server

from quarterdeck.relaying import spool as spooling
from quarterdeck.storage import embedded
from quarterdeck.storage.database import Database

CONNECTIONS = 16
USER, PASSWORD = "rudder", "bench"
SETTINGS = f'[relay]\nreport_user = "{USER}"\nreport_password = "{PASSWORD}"\n'
_GOAL = "300"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    rate: float
    goal: str
    note: str


def drop(server: Server, files: Sequence[File]) -> str:
    """Rename files into the directory, once all are written beside it."""
    incoming = server.data / "reports" / "incoming"
    for one in files:
        (incoming / f".{one.name}").write_bytes(one.content)
    return str(incoming)


def release(server: Server, files: Sequence[File]) -> None:
    """Give the files that were written their names."""
    incoming = str(server.data / "reports" / "incoming")
    for one in files:
        os.rename(f"{incoming}/.{one.name}", f"{incoming}/{one.name}")  # noqa: PTH104  # thousands at once


async def put_all(url: httpx.URL, files: Sequence[File], trusted: ssl.SSLContext | None = None) -> list[float]:
    """Put every file, some at a time; seconds each until it was acknowledged."""
    password = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    todo, took = iter(files), []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=trusted)
        for one in todo:
            begun = time.perf_counter()
            head = (
                f"PUT /reports/{one.name.replace('+', '%2B')} HTTP/1.1\r\nHost: {url.host}\r\n"
                f"Authorization: Basic {password}\r\nContent-Length: {len(one.content)}\r\n\r\n"
            )
            writer.write(head.encode() + one.content)
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer.split(b" ", 2)[1] not in (b"201", b"204"):
                raise SystemExit(answer.decode())
            length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or b"0"))
            took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return took


def await_all(server: Server, *before: Path) -> None:
    """Wait until nothing waits any more, in these directories and then in the server's."""
    incoming, spool = server.data / "reports" / "incoming", server.data / "spool" / "reports"
    while any(any(_waiting(one)) for one in (*before, incoming)) or spooling.pending(spool):
        time.sleep(0.02)


def _waiting(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if not name.startswith(".")]  # noqa: PTH208  # names are enough


class Bench:
    """A server, its database, and what was measured."""

    def __init__(self, server: Server, relay: Relay, database: Database) -> None:
        self._server = server
        self._relay = relay
        self._database = database
        self.rows: list[Row] = []

    def measure(self, what: str, files: Sequence[File], send: Callable[[Sequence[File]], str], goal: str = "") -> None:
        """Send files, wait until all are committed, and note how long that took, and what."""
        kept, used, begun = self._runs(), self._cpu_seconds(), time.perf_counter()
        note = send(files)
        await_all(self._server, self._relay.data / "reports" / "incoming")
        seconds, spent = time.perf_counter() - begun, self._cpu_seconds()
        if (new := self._runs() - kept) != len(files):
            raise SystemExit(f"{what}: {new} of {len(files)} runs are in the database.")
        each = ", ".join(f"{name} {1000 * (spent[name] - used[name]) / len(files):.2f}" for name in used)
        load = f"load {os.getloadavg()[0]:.1f}"
        self.rows.append(Row(what, len(files) / seconds, goal, f"CPU ms a run: {each}; {note}{load}"))

    def dropped(self, what: str, files: Sequence[File], goal: str = "") -> None:
        """The same for files that are dropped."""

        def send(files: Sequence[File]) -> str:
            release(self._server, files)
            return ""

        drop(self._server, files)
        self.measure(what, files, send, goal)

    def put(self, what: str, files: Sequence[File], goal: str = "") -> None:
        """The same for files that are put over HTTP."""
        self._put(what, files, goal, httpx.URL(str(self._server.client.base_url)), None)

    def relayed(self, what: str, files: Sequence[File], goal: str = "") -> None:
        """The same for files that are put over TLS to the relay."""
        self._put(what, files, goal, httpx.URL(self._relay.url), self._relay.tls)

    def _put(self, what: str, files: Sequence[File], goal: str, url: httpx.URL, trusted: ssl.SSLContext | None) -> None:
        def send(files: Sequence[File]) -> str:
            took = sorted(asyncio.run(put_all(url, files, trusted)))
            worst = took[int(len(took) * 0.99)]
            return f"acknowledged: median {1000 * statistics.median(took):.0f} ms, p99 {1000 * worst:.0f} ms; "

        self.measure(what, files, send, goal)

    def _cpu_seconds(self) -> dict[str, float]:
        """What each part has used; this program, too."""
        own = time.process_time()
        return {**self._server.cpu_seconds(), "relay": cpu_seconds(self._relay.pid), "client": own}

    def _runs(self) -> int:
        with self._database.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one())


def measure(
    server: Server, relay: Relay, database: Database, directory: Path, options: argparse.Namespace
) -> list[Row]:
    """Everything."""
    signers = Signers(directory)
    subjects, others, behind = (signers.subjects(options.nodes) for _ in range(3))
    starts = _run_logs.moments(2 + 2 * options.runs)
    _run_logs.add_nodes(database, [*subjects, *others], starts[0])
    _run_logs.add_nodes(database, behind, starts[0], relay.node)
    while behind[-1].node not in (relay.data / "mirror" / "nodes.json").read_text():
        time.sleep(0.2)
    bench = Bench(server, relay, database)

    def runs(of: Sequence[Subject], first: int, last: int) -> list[File]:
        return [one for start in starts[first:last] for one in signers.runs(of, start)]

    bench.dropped("dropped, first runs of nodes", runs(subjects, 0, 1))
    middle = 1 + options.runs
    bench.dropped("dropped, unchanged runs", runs(subjects, 1, middle), _GOAL)
    bench.put("put, first runs of nodes", runs(others, 0, 1))
    bench.put("put, unchanged runs", runs(subjects, middle, middle + options.runs), _GOAL)
    bench.relayed("through a relay, first runs", runs(behind, 0, 1))
    bench.relayed("through a relay, unchanged", runs(behind, 1, middle), _GOAL)
    bench.dropped("dropped, 3 of 68 changed", signers.runs(subjects, starts[-1], changed=3))
    return bench.rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run_logs", description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=2, help="unchanged runs of each node")
    parser.add_argument("--quick", action="store_true", help="30 nodes")
    options = parser.parse_args()
    if options.quick:
        options.nodes = 30
    with (
        tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch,
        _server.serving(Path(scratch), SETTINGS) as server,
        _relay.relaying(server, Path(scratch), f"{SETTINGS}mirror_seconds = 1.0\n") as relay,
        embedded.running(server.data) as url,
    ):
        database = Database(url, pool_size=2)
        (signing := Path(scratch) / "signing").mkdir()
        rows = measure(server, relay, database, signing, options)
        database.close()
    print(f"{options.nodes} nodes, 74 lines a run; runs/s until committed, and what the project is to reach")
    for row in rows:
        print(f"{row.what:<30} {row.rate:7.0f}/s  {row.goal:>5}  {row.note}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
