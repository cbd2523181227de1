# SPDX-License-Identifier: Apache-2.0
"""What memory a relay takes that has nothing to do: a real one below a real server, after it mirrored everything.

    python -m bench.relay_memory [--nodes 1000] [--files 100] [--quick]

Proportional set sizes as the kernel tells them; one MB is 10^6 bytes. Then the same after its nodes have each sent
a report through it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import httpx
from bench import _relay, _server
from bench._processes import family, memory_bytes
from bench._relay import Relay
from bench._server import Server
from bench.remote_run import enroll_at
from tests.agents import Agent, report

from quarterdeck.formats import agent
from quarterdeck.relaying import spool

MEGABYTE = 10**6
_GOAL = "(< 60 MB)"


def settled(relay: Relay) -> int:
    """Its memory once it has not changed for a while."""
    before, now = 0, memory_bytes(family(relay.pid))
    for _ in range(60):
        time.sleep(2)
        before, now = now, memory_bytes(family(relay.pid))
        if abs(now - before) < MEGABYTE // 20:
            break
    return now


def resident(relay: Relay) -> int:
    """What of its memory is shared with others or not, in bytes."""
    return int(Path(f"/proc/{relay.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def send_reports(relay: Relay, nodes: list[Agent]) -> None:
    """A report of each node, and wait until all have gone up."""
    with httpx.Client(base_url=relay.url, verify=relay.tls, timeout=60, trust_env=False) as client:
        for one in nodes:
            body = one.parcel("report", one.run([report()] * 60))
            answer = client.post(
                agent.PATH_REPORTS, content=body, headers=one.headers("POST", agent.PATH_REPORTS, body)
            )
            answer.raise_for_status()
    while spool.pending(relay.data / "spool" / "parcels"):
        time.sleep(0.1)


def await_mirrored(relay: Relay, nodes: list[Agent], files: int) -> None:
    """Wait until the relay knows all nodes and has all files."""
    listed, folder = relay.data / "mirror" / "nodes.json", relay.data / "mirror" / "folder"
    for _ in range(600):
        text = listed.read_text()
        if all(one.node in text for one in nodes) and sum(1 for one in folder.rglob("*") if one.is_file()) >= files:
            return
        time.sleep(0.2)
    raise SystemExit("The relay does not mirror what the server has.")


def fill_folder(server: Server, files: int) -> None:
    """Files of 100 kB each for the relay to mirror."""
    folder = server.data / "shared-folder"
    folder.mkdir(exist_ok=True)
    for number in range(files):
        (folder / f"file-{number}").write_bytes(os.urandom(100_000))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay_memory", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="50 nodes, 10 files")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.files = 50, 10
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch,
        _server.serving(Path(scratch)) as server,
        _relay.relaying(server, Path(scratch), "relay.mirror_seconds = 2.0\n") as relay,
    ):
        rows.append(("after enrolment", settled(relay), resident(relay), _GOAL))
        fill_folder(server, options.files)
        nodes = enroll_at(server, relay.url, relay.tls, options.nodes)
        await_mirrored(relay, nodes, options.files)
        rows.append((f"{options.nodes} nodes, {options.files} files mirrored", settled(relay), resident(relay), _GOAL))
        send_reports(relay, nodes)
        rows.append((f"after {options.nodes} reports", settled(relay), resident(relay), ""))
    print(f"{'a relay that is idle':<36} {'PSS':>8} {'RSS':>8}   load {os.getloadavg()[0]:.1f}")
    for what, pss, rss, goal in rows:
        print(f"{what:<36} {pss / MEGABYTE:5.1f} MB {rss / MEGABYTE:5.1f} MB   {goal}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
