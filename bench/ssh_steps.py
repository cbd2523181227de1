# SPDX-License-Identifier: Apache-2.0
"""What a script step costs, what many known hosts cost, and what nodes in flight take in memory.

    python -m bench.ssh_steps [--nodes 100] [--at-once 50] [--rounds 5] [--quick]

Script and known hosts are the engine alone in this process, on cold connections, pairs interleaved; CPU is that of both
sides. Memory is the growth of a real worker while every node sleeps, against all processes of ansible doing the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import _peers, _processes, _server, _sshd
from bench._peers import Load
from bench._processes import Memory, memory_bytes
from bench._server import PROJECT, Server
from bench._sshd import Fleet
from bench.ssh_fanout import settings

from quarterdeck.core import job_context
from quarterdeck.core.connections import Address, Connection, Hop
from quarterdeck.engine import steps
from quarterdeck.engine.ssh import Access, Pool
from quarterdeck.engine.transports import Command, NodeResult, Stream

#: Twenty lines as people write them to look at a machine.
SCRIPT = b"""\
#!/bin/sh
# What this machine is, and how busy.
set -eu
name=$(uname -n)
kernel=$(uname -r)
up=$(cut -d' ' -f1 /proc/uptime)
load=$(cut -d' ' -f1 /proc/loadavg)
memory=0
while read -r key value _; do
  case "$key" in
    MemTotal:) memory=$value ;;
  esac
done </proc/meminfo
echo "name=$name kernel=$kernel"
echo "up=$up load=$load"
if [ "$memory" -lt 1 ]; then
  echo "no memory" >&2
  exit 3
fi
echo hello
"""
MANY = 10_000

Row = tuple[str, str, str]


class Lines:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, stream: Stream, data: bytes) -> bool:
        self.data += data
        return True

    async def ready(self) -> None:
        return


@dataclass(slots=True)
class Cost:
    """CPU of both sides a node, in seconds, and wall time; one value a round."""

    client: list[float] = field(default_factory=list)
    sshd: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def both(self) -> list[float]:
        return [client + sshd for client, sshd in zip(self.client, self.sshd, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The engine's SSH on cold connections."""

    fleet: Fleet
    at_once: int
    known_hosts: Path

    def run(self, cost: Cost, make: Callable[[], Command]) -> None:
        """One command on each node."""
        cpu, sshd, begun = time.process_time(), self.fleet.cpu_seconds(), time.perf_counter()
        results = asyncio.run(self._run(make))
        wall = time.perf_counter() - begun
        self.fleet.settle()
        nodes = len(self.fleet.hosts)
        cost.client.append((time.process_time() - cpu) / nodes)
        cost.sshd.append((self.fleet.cpu_seconds() - sshd) / nodes)
        cost.wall.append(wall)
        for result, output in results:
            if not result.succeeded or not output.endswith(b"hello\n"):
                raise SystemExit(f"A node did not say hello: {result} {output!r}")

    async def _run(self, make: Callable[[], Command]) -> Sequence[tuple[NodeResult, bytes]]:
        pool, gate, stop = Pool(known_hosts=[self.known_hosts]), asyncio.Semaphore(self.at_once), asyncio.Event()

        async def one(host: str) -> tuple[NodeResult, bytes]:
            sink = Lines()
            async with gate:
                return await pool.transport(self._access(host)).run(make(), sink, stop), sink.data

        try:
            return await asyncio.gather(*map(one, self.fleet.hosts))
        finally:
            await pool.close()

    def _access(self, host: str) -> Access:
        hop = Hop(Address(host, self.fleet.port), self.fleet.user)
        connection = Connection(node=host, project=PROJECT, hop=hop, key_path=str(self.fleet.key), host_keys="approve")
        return Access(connection=connection)


def script_step() -> Command:
    """As a job's script step is sent."""
    return steps.script_command(SCRIPT, job_context.command_line("", {}), {}, copy_directory="/tmp")


def on_stdin() -> Command:
    return Command(line="sh -s", stdin=SCRIPT)


def compare(rounds: int, one: Callable[[Cost], None], other: Callable[[Cost], None]) -> tuple[Cost, Cost]:
    """Both in turn, after one round of each that does not count."""
    for each in (one, other):
        each(Cost())
    first, second = Cost(), Cost()
    for number in range(rounds):
        pair = [(one, first), (other, second)]
        for each, cost in pair if number % 2 else reversed(pair):
            each(cost)
    return first, second


def scripts(engine: Engine, rounds: int) -> list[Row]:
    ours, stdin = compare(
        rounds,
        lambda cost: engine.run(cost, script_step),
        lambda cost: engine.run(cost, on_stdin),
    )
    return [
        ("script step: CPU of both sides a node", _both(ours), ""),
        ("the same script on stdin of sh -s", _both(stdin), ""),
        ("script step / on stdin", _times(ours.both, stdin.both), "1.1 x"),
    ]


def known_hosts(engine: Engine, scratch: Path, rounds: int) -> list[Row]:
    long = scratch / "many_known_hosts"
    engine.fleet.write_known_hosts(long, others=MANY)
    knowing = Engine(fleet=engine.fleet, at_once=engine.at_once, known_hosts=long)
    command = Command(line="echo hello")
    many, few = compare(
        rounds,
        lambda cost: knowing.run(cost, lambda: command),
        lambda cost: engine.run(cost, lambda: command),
    )
    return [
        ("echo, only its nodes known: CPU of both sides a node", _both(few), ""),
        (f"echo, {MANY} more hosts known", _both(many), ""),
        (f"{MANY} known hosts / only its nodes", _times(many.both, few.both), "1.1 x"),
        ("the same, client alone", _times(many.client, few.client), ""),
    ]


def _both(cost: Cost) -> str:
    client, sshd = (1000 * statistics.median(one) for one in (cost.client, cost.sshd))
    return f"{client:.2f} + {sshd:.2f} ms"


def _times(one: Sequence[float], other: Sequence[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(one, other, strict=True)):.2f} x"


def memory(server: Server, fleet: Fleet, scratch: Path, seconds: int) -> list[Row]:
    """All nodes sleep at the same time."""
    server.project(PROJECT, fleet.document())
    nodes, worker = len(fleet.hosts), server.process("worker")
    server.run_command("true", name=fleet.hosts[0])
    before = memory_bytes([worker])
    with Memory(worker) as watched:
        done = server.run_command(f"sleep {seconds}", tags="fleet", nodeThreadcount=str(nodes))
    if done.state != "succeeded":
        raise SystemExit(f"Our execution {done.state}.")
    growth = watched.peak - before
    fleet.hang_up()
    rows = [
        (f"{nodes} nodes in flight, worker: growth", f"{growth / 2**20:.1f} MB", ""),
        ("worker as a whole, at its peak", f"{watched.peak / 2**20:.0f} MB", ""),
    ]
    load = Load(fleet=fleet, command=f"sleep {seconds}", at_once=nodes)
    for peer in _peers.all_peers():
        if peer.name in ("OpenSSH, xargs -P", "ansible command, tuned"):
            there = scratch / "peer"
            there.mkdir(exist_ok=True)
            ran = peer.run(load, there, watch_memory=True)
            if ran.status != 0:
                raise SystemExit(f"{peer.name}: {ran.status} {ran.errors[-500:]}")
            goal = "5 x" if peer.name.startswith("ansible") else ""
            rows += [
                (f"{peer.name}: all processes", f"{ran.memory / 2**20:.0f} MB", ""),
                (f"{peer.name} / our growth", f"{ran.memory / growth:.1f} x", goal),
                (f"{peer.name} / our whole worker", f"{ran.memory / watched.peak:.1f} x", ""),
            ]
    return rows


def main() -> None:
    _processes.end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sleep", type=int, default=40, help="seconds that nodes in flight sleep")
    parser.add_argument(
        "--user", default="", help="log in as this user; else root makes one, others log in as themselves"
    )
    parser.add_argument("--quick", action="store_true", help="few nodes, two rounds")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.at_once, options.rounds, options.sleep = 20, 10, 2, 5
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o711)
        with _sshd.fleet(scratch, options.nodes, user=options.user) as fleet:
            engine = Engine(fleet=fleet, at_once=options.at_once, known_hosts=fleet.known_hosts)
            print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            rows = scripts(engine, options.rounds)
            rows += known_hosts(engine, scratch, options.rounds)
            with _server.serving(scratch, settings(fleet)) as server:
                rows += memory(server, fleet, scratch, options.sleep)
    print(
        f"{options.nodes} nodes, {options.at_once} at once, {options.rounds} rounds; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    width = max(len(what) for what, _, _ in rows)
    for what, value, goal in rows:
        print(f"{what:{width}}  {value:>18}  {'goal ' + goal if goal else ''}")


if __name__ == "__main__":
    main()
