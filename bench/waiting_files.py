# SPDX-License-Identifier: Apache-2.0
"""What one file costs when few wait and when many do: a queue that grows must not drain more slowly.

    python -m bench.waiting_files [--most 100000] [--bytes 2700] [--quick]

    dropped   files in the directory for dropped files, into the spool of reports, every fsync done
    parcels   what a relay acknowledged one by one, up to a server that acknowledges each batch
    files     the same with a spool file for every parcel, as after as many restarts

The server above is a process of its own that only reads. CPU is what the draining process computes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests import agents
from tests.common import run_logs as texts

from quarterdeck.core.ids import NodeId
from quarterdeck.engine import run_logs
from quarterdeck.formats import relay_documents
from quarterdeck.formats.relay_documents import Taken
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.drop_directory import DropDirectory
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.forwarding import Forwarder
from quarterdeck.relaying.links import Link, Signer
from quarterdeck.relaying.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = 10
#: Short queues are drained again until so many files went, so that their figure is no accident.
_LEAST_FILES = 5000


class Cost(NamedTuple):
    """Milliseconds a file."""

    wall: float
    cpu: float


def dropped(directory: Path, count: int, size: int) -> Callable[[], int]:
    """So many run logs wait; what takes them."""
    incoming, content, node, start = directory / "incoming", os.urandom(size), str(uuid.uuid4()), datetime.now(UTC)
    incoming.mkdir()
    for number in range(count):
        name = texts.file_name(node, start + timedelta(milliseconds=number), ".log.gz")
        (incoming / name).write_bytes(content)
    spool = Spool(directory / "spool", reserve_bytes=0)
    return DropDirectory(incoming, FailedFiles(directory / "failed"), run_logs.into(spool)).look


def parcels(directory: Path, count: int, size: int, url: str, *, alone: bool) -> Callable[[], int]:
    """So many parcels wait at a relay, each in a file of its own or not; what carries them, a batch each time."""
    spool, content = directory / "spool", os.urandom(size)
    if alone:
        Spool(directory / "one", reserve_bytes=0).append(content)
        [one] = (directory / "one").glob("*.open")
        record = one.read_bytes()
        spool.mkdir()
        for number in range(count):
            (spool / f"{number:020d}-1-0.batch").write_bytes(record)
    else:
        writer = Spool(spool, reserve_bytes=0)
        for begin in range(0, count, 100):
            writer.append_all([content] * min(100, count - begin))
    key = agents.private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signer = Signer(node=NodeId("1b000000-0000-4000-8000-00000000000a"), key=SigningKey(key))
    return Forwarder(spool, Link(url=url, pin="", signer=signer), FailedFiles(directory / "failed")).once


class Reader(BaseHTTPRequestHandler):
    """The server above, which takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        body = relay_documents.encode(Taken())
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _serve(told: Connection) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Reader) as server:
        told.send(server.server_port)
        server.serve_forever()


@contextmanager
def upstream() -> Iterator[str]:
    """The URL of the server above, in a process of its own."""
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(its,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{mine.recv()}"
    finally:
        process.terminate()
        process.join(10)


def drained(make: Callable[[Path], Callable[[], int]], count: int) -> Cost:
    """What it cost to take all, at so many at a time; several times when they are few."""
    wall = cpu = 0.0
    rounds = max(1, _LEAST_FILES // count)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch:
            take, taken = make(Path(scratch)), 0
            os.sync()
            begun, computed = time.perf_counter(), time.process_time()
            while taken < count:
                taken += take()
            wall += time.perf_counter() - begun
            cpu += time.process_time() - computed
    return Cost(1000 * wall / rounds / count, 1000 * cpu / rounds / count)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.waiting_files", description=__doc__)
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=2700, help="of each file; a compressed run log is as long")
    parser.add_argument("--quick", action="store_true", help="at most 10,000 files")
    options = parser.parse_args()
    most = 10_000 if options.quick else options.most
    sizes = [most // _STEP**2, most // _STEP, most]
    print(f"ms a file when so many wait, wall and CPU; files of {options.bytes} bytes")
    print(f"{'':<10}" + "".join(f"{size:>18,}" for size in sizes) + f"{'ratio of CPU':>18}  (near 1)")
    with upstream() as url:
        kinds: dict[str, Callable[[int], Callable[[Path], Callable[[], int]]]] = {
            "dropped": lambda count: lambda place: dropped(place, count, options.bytes),
            "parcels": lambda count: lambda place: parcels(place, count, options.bytes, url, alone=False),
            "files": lambda count: lambda place: parcels(place, count, options.bytes, url, alone=True),
        }
        for name, kind in kinds.items():
            costs = [drained(kind(size), size) for size in sizes]
            cells = "".join(f"{one.wall:>10.3f}, {one.cpu:.3f}" + " " for one in costs)
            ratio = costs[-1].cpu / costs[0].cpu
            print(f"{name:<10}{cells}{ratio:>17.2f}  load {os.getloadavg()[0]:.1f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
