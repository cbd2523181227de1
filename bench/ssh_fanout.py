# SPDX-License-Identifier: Apache-2.0
"""`echo hello` on many nodes: through the API of a real server, with everything recorded, and by others without.

    python -m bench.ssh_fanout [--nodes 200] [--at-once 50] [--rounds 5] [--peer ansible]... [--user NAME] [--quick]

The nodes are addresses of one sshd on loopback, so both sides share the machine; keys are checked on both sides where a
peer can. Rounds are interleaved: each has every peer once, and one that took long gets fewer. Cold is a worker without
any open connection; warm is the run after it. Everything ends with the program; nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import _peers, _processes, _server, _sshd
from bench._peers import Load, Peer
from bench._processes import machine_ticks, others_share
from bench._server import PROJECT, Server
from bench._sshd import Fleet

COMMAND = "echo hello"
OURS, WARM, MASTERS = "Quarterdeck, cold", "Quarterdeck, warm", "OpenSSH, ssh -S on masters"
#: name -> how many times our wall time it takes at least, by the project's goals
GOALS = {
    "OpenSSH, xargs -P": 1.0,
    "ansible raw": 4.0,
    "ansible raw, tuned": 4.0,
    "ansible command": 10.0,
    "ansible command, tuned": 10.0,
    "parallel-ssh": 1.0,
    "fabric": 1.0,
    "nornir": 1.0,
    "pyinfra": 1.0,
}


@dataclass(slots=True)
class Row:
    """What was measured of one way, one value a round; seconds. `client` is all on our side, `sshd` the other side."""

    name: str
    wall: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    sshd: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    #: ours, by part
    parts: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""

    def add(self, wall: float, client: float, sshd: float, others: float) -> None:
        self.wall.append(wall)
        self.client.append(client)
        self.sshd.append(sshd)
        self.others.append(others)

    def note(self, parts: dict[str, float]) -> None:
        for name, seconds in parts.items():
            self.parts.setdefault(name, []).append(seconds)


@dataclass(slots=True)
class Bench:
    """One run of the benchmark."""

    server: Server
    load: Load
    scratch: Path
    peer_seconds: float
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(name))

    def ours(self) -> None:
        """A cold run, a warm one, and the same over masters of OpenSSH."""
        fleet = self.load.fleet
        fleet.hang_up()
        self._ours(self.row(OURS), cold=True)
        self._ours(self.row(WARM), cold=False)
        fleet.hang_up()

    def _ours(self, row: Row, *, cold: bool) -> None:
        fleet, server = self.load.fleet, self.server
        before, ticks, sshd = server.cpu_seconds(), machine_ticks(), fleet.cpu_seconds()
        done = server.run_command(
            self.load.command,
            tags="fleet",
            nodeThreadcount=str(self.load.at_once),
            nodeKeepgoing="true",
        )
        used = {name: seconds - before[name] for name, seconds in server.cpu_seconds().items()}
        sshd = fleet.cpu_seconds() - sshd
        row.add(done.seconds, sum(used.values()), sshd, others_share(ticks, machine_ticks(), sum(used.values()) + sshd))
        row.note(used)
        hellos = server.output(done.id).splitlines().count("hello")
        if hellos != len(fleet.hosts):
            raise SystemExit(f"{hellos} of {len(fleet.hosts)} nodes said hello: {server.output(done.id)[:2000]}")

    def peer(self, peer: Peer) -> None:
        """One run of a peer, unless it has had its time."""
        fleet, row = self.load.fleet, self.row(peer.name)
        if row.failure or sum(row.wall) > self.peer_seconds:
            return
        scratch = self.scratch / "peer"
        scratch.mkdir(exist_ok=True)
        ticks, sshd = machine_ticks(), fleet.cpu_seconds()
        ran = peer.run(self.load, scratch)
        if peer.name != MASTERS:
            fleet.settle()
        sshd = fleet.cpu_seconds() - sshd
        hellos = (ran.output + ran.errors).count("hello")
        if ran.status != 0 or hellos < len(fleet.hosts):
            row.failure = f"status {ran.status}, {hellos} answers: {(ran.errors or ran.output)[-300:]}"
        else:
            row.add(ran.wall, ran.cpu, sshd, others_share(ticks, machine_ticks(), ran.cpu + sshd))

    def masters(self) -> None:
        with _peers.control_masters(self.load, self.scratch) as peer:
            self.peer(peer)
        self.load.fleet.settle()


def measure(options: argparse.Namespace) -> tuple[dict[str, Row], list[str]]:
    """All rows, and the versions of the peers."""
    wanted = [
        peer for peer in _peers.all_peers() if not options.peer or any(part in peer.name for part in options.peer)
    ]
    versions = [f"{name} {_peers.version(name)}" for name in sorted({peer.package for peer in wanted} - {""})]
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o711)
        with (
            _sshd.fleet(scratch, options.nodes, user=options.user) as fleet,
            _server.serving(scratch, settings(fleet)) as server,
        ):
            load = Load(fleet=fleet, command=COMMAND, at_once=options.at_once)
            server.project(PROJECT, fleet.document())
            bench = Bench(server, load, scratch, options.peer_seconds)
            bench.ours()  # the first run loads what later ones have
            bench.rows.clear()
            for number in range(options.rounds):
                print(f"round {number + 1}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                bench.ours()
                if not options.peer:
                    bench.masters()
                for peer in wanted:
                    bench.peer(peer)
    return bench.rows, versions


def settings(fleet: Fleet, known_hosts: Path | None = None) -> str:
    """How our server reaches the fleet."""
    known = known_hosts or fleet.known_hosts
    return f'[ssh]\nuser = "{fleet.user}"\nkey_path = "{fleet.key}"\nknown_hosts = ["{known}"]\n'


def table(rows: dict[str, Row], nodes: int) -> Iterator[str]:
    """Medians; `x` is a way's wall time over ours of the same round, by which goals are judged.

    `alone` is a rough idea of that time without what others took of the machine meanwhile.
    """
    columns = ("wall, s", "client", "sshd", "sshd", "others", "x wall", "x alone", "x CPU")
    yield f"{'CPU in ms a node; x of ours':28} " + " ".join(f"{one:>8}" for one in columns) + "  goal"
    median = statistics.median
    for row in rows.values():
        if not row.wall:
            yield f"{row.name:28} {row.failure}"
            continue
        base = rows[WARM] if row.name in (WARM, MASTERS) else rows[OURS]
        times = median(theirs / ours for theirs, ours in zip(row.wall, base.wall, strict=False))
        alone = median(
            (theirs * (1 - other)) / (ours * (1 - others))
            for theirs, other, ours, others in zip(row.wall, row.others, base.wall, base.others, strict=False)
        )
        work = median(theirs / ours for theirs, ours in zip(row.client, base.client, strict=False))
        client, sshd = 1000 * median(row.client) / nodes, 1000 * median(row.sshd) / nodes
        goal = GOALS.get(row.name)
        share = f"{sshd / (client + sshd):.0%}"
        yield (
            f"{row.name:28} {median(row.wall):8.2f} {client:8.2f} {sshd:8.2f} {share:>8} "
            f"{median(row.others):8.0%} {times:8.2f} {alone:8.2f} {work:8.2f}  "
            + (f"{goal:g} x: {'met' if times >= goal else 'missed'}" if goal else "")
            + ("" if len(row.wall) >= len(base.wall) else f" ({len(row.wall)} rounds)")
        )


def verdicts(rows: dict[str, Row], nodes: int) -> Iterator[str]:
    """The goals that are about ours alone."""
    median, cores = statistics.median, os.cpu_count() or 1
    cold, warm = rows[OURS], rows[WARM]
    for row in (cold, warm):
        parts = ", ".join(f"{name} {1000 * median(some) / nodes:.2f}" for name, some in row.parts.items())
        yield f"{row.name}: ms of CPU a node: {parts}"
    worker = 1000 * median(cold.parts["worker"]) / nodes
    yield f"our CPU a cold node, dispatcher, engine and recording (worker): {worker:.2f} ms; goal 8 ms"
    floor = [wall / (sshd / cores) for wall, sshd in zip(cold.wall, cold.sshd, strict=True)]
    yield f"wall / (CPU of sshd / cores): {median(floor):.2f}; goal 1.1"
    busy = [
        wall / ((sshd + client) / cores) for wall, sshd, client in zip(cold.wall, cold.sshd, cold.client, strict=True)
    ]
    free = [one * (1 - others) for one, others in zip(busy, cold.others, strict=True)]
    yield f"wall / (CPU of both sides / cores): {median(busy):.2f}; without what others took: {median(free):.2f}"
    rate = [late / early for late, early in zip(cold.wall, warm.wall, strict=True)]
    yield f"rate on open connections / cold rate: {median(rate):.1f} x; goal 8 x"
    if (masters := rows.get(MASTERS)) and masters.wall:
        ahead = [theirs / ours for theirs, ours in zip(masters.wall, warm.wall, strict=False)]
        yield f"rate on open connections / over masters of OpenSSH: {median(ahead):.1f} x; goal 2.5 x"


def main() -> None:
    _processes.end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], help="only peers with this in their name")
    parser.add_argument("--peer-seconds", type=float, default=60, help="after so long a peer gets no more rounds")
    parser.add_argument(
        "--user", default="", help="log in as this user; else root makes one, others log in as themselves"
    )
    parser.add_argument("--quick", action="store_true", help="few nodes, two rounds")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.at_once, options.rounds, options.peer_seconds = 20, 10, 2, 20
    rows, versions = measure(options)
    print(
        f"{options.nodes} nodes, {options.at_once} at once, up to {options.rounds} rounds; {_sshd.KEY_EXCHANGE}, "
        f"{_sshd.CIPHER}, {_sshd.HOST_KEY}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(", ".join(versions))
    for line in (*table(rows, options.nodes), *verdicts(rows, options.nodes)):
        print(line)


if __name__ == "__main__":
    main()
