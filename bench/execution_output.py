# SPDX-License-Identifier: Apache-2.0
"""A long output of one node over SSH into the store, every line with time and node, and back out again.

    python -m bench.execution_output [--megabytes 1000] [--line-bytes 200] [--rounds 3] [--quick]

Beside it, interleaved: asyncssh reading the same in chunks and keeping nothing. Memory is proportional set size, at its
peak, looked at every 0.2 s; of the worker while it stores, of the API process while a client reads it all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import _processes, _server, _sshd
from bench._processes import Memory, Ran, memory_bytes, run
from bench._server import PROJECT, Server
from bench._sshd import Fleet
from bench.ssh_fanout import settings

_CHUNKS = """
import asyncio, json, sys
import asyncssh
facts = json.loads(sys.argv[1])
async def main():
    async with asyncssh.connect(
        facts["host"], facts["port"], username=facts["user"], client_keys=[facts["key"]],
        known_hosts=facts["known_hosts"], agent_path=None, config=None, compression_algs=None,
    ) as connection:
        async with connection.create_process(facts["command"], encoding=None) as process:
            total = 0
            while chunk := await process.stdout.read(1 << 18):
                total += len(chunk)
    print(total)
asyncio.run(main())
"""
MEGABYTE = 10**6


@dataclass(slots=True)
class Figures:
    """One value a round: seconds, bytes."""

    ours: list[float] = field(default_factory=list)
    worker_cpu: list[float] = field(default_factory=list)
    worker_memory: list[int] = field(default_factory=list)
    worker_before: list[int] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    chunks_cpu: list[float] = field(default_factory=list)
    sshd: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    api_memory: list[int] = field(default_factory=list)
    api_before: list[int] = field(default_factory=list)
    stored: int = 0


def write_lines(path: Path, size: int, line_bytes: int) -> int:
    """A text file of at least this size with lines that differ; how many they are."""
    count = -(-size // line_bytes)
    filling = "GET /articles/of/the/day?page=7 HTTP/1.1 200 Mozilla/5.0 (X11; Linux x86_64) " * 40
    some = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            # Something in each line is new, as requests' ids in a log are.
            file.write(f"{number:012d} {some.randbytes(16).hex()} {filling[number % 80 :][: line_bytes - 47]}\n")
    path.chmod(0o644)
    return count


def measure(server: Server, fleet: Fleet, scratch: Path, options: argparse.Namespace) -> Figures:
    source = fleet.directory / "home" / "lines"
    lines = write_lines(source, options.megabytes * MEGABYTE, options.line_bytes)
    size = source.stat().st_size
    server.project(PROJECT, fleet.document())
    server.run_command("true", tags="fleet")
    found = Figures()
    for number in range(options.rounds):
        print(f"round {number + 1}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        execution = _ours(server, fleet, f"cat {source}", found)
        _read_back(server, execution, size, lines, found)
        ran = _chunks(fleet, f"cat {source}", scratch)
        if ran.output.strip() != str(size):
            raise SystemExit(f"asyncssh read {ran.output.strip()} of {size} bytes: {ran.errors}")
        found.chunks.append(ran.wall)
        found.chunks_cpu.append(ran.cpu)
    found.stored = _stored_bytes(server)
    return found


def _ours(server: Server, fleet: Fleet, command: str, found: Figures) -> int:
    worker = server.process("worker")
    found.worker_before.append(memory_bytes([worker]))
    before, sshd = server.cpu_seconds(), fleet.cpu_seconds()
    with Memory(worker) as memory:
        done = server.run_command(command, tags="fleet")
    if done.state != "succeeded":
        raise SystemExit(
            f"The execution {done.state}: {server.get(f'/api/1/execution/{done.id}/output', lastlines='5')!r}"
        )
    found.ours.append(done.seconds)
    found.sshd.append(fleet.cpu_seconds() - sshd)
    found.worker_cpu.append(server.cpu_seconds()["worker"] - before["worker"])
    found.worker_memory.append(memory.peak)
    return done.id


def _read_back(server: Server, execution: int, size: int, lines: int, found: Figures) -> None:
    """All of it as text, and the last lines with time and node."""
    api = server.process("api")
    found.api_before.append(memory_bytes([api]))
    begun, total, ends = time.perf_counter(), 0, 0
    path = f"/api/1/execution/{execution}/output"
    with Memory(api) as memory, server.client.stream("GET", path, params={"format": "text"}) as answer:
        for chunk in answer.iter_raw():
            total += len(chunk)
            ends += chunk.count(b"\n")
    found.reading.append(time.perf_counter() - begun)
    found.api_memory.append(memory.peak)
    if (total, ends) != (size, lines):
        raise SystemExit(f"{total} of {size} bytes and {ends} of {lines} lines came back.")
    last = json.loads(server.get(path, format="json", lastlines="3"))["entries"]
    if [(one["node"] != "", one["absolute_time"] != "", one["log"][:12]) for one in last] != [
        (True, True, f"{number:012d}") for number in range(lines - 3, lines)
    ]:
        raise SystemExit(f"The last lines are not as they should be: {last}")


def _chunks(fleet: Fleet, command: str, scratch: Path) -> Ran:
    facts = {"host": fleet.hosts[0], "port": fleet.port, "user": fleet.user, "key": str(fleet.key)}
    facts |= {"known_hosts": str(fleet.known_hosts), "command": command}
    return run([sys.executable, "-c", _CHUNKS, json.dumps(facts)], scratch)


def _stored_bytes(server: Server) -> int:
    """The size of the database's files."""
    return sum(one.stat().st_size for one in (server.data / "pg").rglob("base/**/*") if one.is_file())


def rows(found: Figures, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    median, size = statistics.median, options.megabytes
    ratio = median(theirs / ours for theirs, ours in zip(found.chunks, found.ours, strict=True))
    megabytes = [one / 2**20 for one in (max(found.worker_before), max(found.worker_memory))]
    reader = [one / 2**20 for one in (max(found.api_before), max(found.api_memory))]
    return [
        ("stored, with time and node", f"{size / median(found.ours):.0f} MB/s", ""),
        ("asyncssh in chunks, nothing kept", f"{size / median(found.chunks):.0f} MB/s", ""),
        ("stored / asyncssh in chunks", f"{ratio:.2f} x", "0.5 x"),
        ("CPU of the worker, a MB", f"{1000 * median(found.worker_cpu) / size:.1f} ms", ""),
        ("CPU of asyncssh in chunks, a MB", f"{1000 * median(found.chunks_cpu) / size:.1f} ms", ""),
        ("CPU of sshd, a MB", f"{1000 * median(found.sshd) / size:.1f} ms", ""),
        ("memory of the worker, before / peak", f"{megabytes[0]:.0f} / {megabytes[1]:.0f} MB", "below 100 MB"),
        ("read back as text", f"{size / median(found.reading):.0f} MB/s", ""),
        ("memory of the API process, before / peak", f"{reader[0]:.0f} / {reader[1]:.0f} MB", "flat"),
        (f"database files after {options.rounds} rounds", f"{found.stored / MEGABYTE:.0f} MB", ""),
    ]


def main() -> None:
    _processes.end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--line-bytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="50 MB once")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.rounds = 50, 1
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o711)
        with _sshd.fleet(scratch, 1) as fleet, _server.serving(scratch, settings(fleet)) as server:
            found = measure(server, fleet, scratch, options)
    print(
        f"{options.megabytes} MB in lines of {options.line_bytes} bytes, {options.rounds} rounds; {_sshd.CIPHER}; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    table = rows(found, options)
    width = max(len(what) for what, _, _ in table)
    for what, value, goal in table:
        print(f"{what:{width}}  {value:>16}  {'goal ' + goal if goal else ''}")


if __name__ == "__main__":
    main()
