# SPDX-License-Identifier: Apache-2.0
"""How long people wait for executions and lists: to the first command on the local node, and with many jobs stored.

    python -m bench.execution_latency [--runs 50] [--jobs 1000] [--quick]

A real server over plain HTTP on loopback. The command tells when it ran, so that what is measured ends on the node and
not with an answer; the server has run something before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import _processes, _server
from bench._server import PROJECT, Server
from lxml import etree

Row = tuple[str, str, str]


def start_latencies(server: Server, runs: int) -> tuple[list[float], list[float]]:
    """Seconds from a request to its first command, and to its recorded end."""
    first, whole = [], []
    for _ in range(runs):
        begun = time.time()
        done = server.run_command("date +%s.%N")
        first.append(float(server.output(done.id).split()[0]) - begun)
        whole.append(done.seconds)
        time.sleep(0.1)
    return first, whole


def store(server: Server, count: int) -> float:
    """Import so many jobs in one document; the seconds that takes."""
    jobs = "".join(
        f"- name: job {number:04d}\n  group: group {number % 20}\n  project: {PROJECT}\n  loglevel: INFO\n"
        f"  description: 'Does thing {number}'\n"
        "  options:\n    version: {description: Which version, required: true, regex: '[0-9.]+'}\n"
        "  sequence:\n    keepgoing: false\n    strategy: node-first\n"
        "    commands:\n      - exec: echo ${option.version}\n      - script: |-\n          #!/bin/sh\n"
        "          uptime\n"
        for number in range(count)
    )
    begun = time.perf_counter()
    answer = server.client.post("/api/1/jobs/import", data={"format": "yaml", "xmlBatch": jobs})
    took = time.perf_counter() - begun
    answer.raise_for_status()
    stored = etree.fromstring(answer.content).findall("./succeeded/job")
    if len(stored) != count:
        raise SystemExit(f"{len(stored)} of {count} jobs were imported: {answer.text[:1000]}")
    return took


def answer_times(ask: Callable[[], bytes], rounds: int) -> tuple[float, float, int]:
    """Median and worst seconds to the whole answer, and its bytes."""
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        size = len(ask())
        took.append(time.perf_counter() - begun)
    return statistics.median(took), max(took), size


def measure(server: Server, options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    server.project(PROJECT, "")
    first, whole = start_latencies(server, options.runs)
    ordered = sorted(first)
    p90 = ordered[int(len(ordered) * 0.9)]
    rows.append(("request to first command, median", f"{1000 * statistics.median(first):.0f} ms", "100 ms"))
    rows.append(("request to first command, 90 % / worst", f"{1000 * p90:.0f} / {1000 * ordered[-1]:.0f} ms", ""))
    rows.append(("request to recorded end, median", f"{1000 * statistics.median(whole):.0f} ms", ""))
    rows.append((f"import of {options.jobs} jobs", f"{store(server, options.jobs):.1f} s", ""))
    found = server.rundeck("GET", "/jobs", {"project": PROJECT}).findall(".//job")
    if len(found) != options.jobs:
        raise SystemExit(f"There are {len(found)} jobs instead of {options.jobs}.")
    one = found[len(found) // 2].get("id", "")
    asks: list[tuple[str, Callable[[], bytes], str]] = [
        ("/api/1/jobs", lambda: server.get("/api/1/jobs", project=PROJECT), "100 ms"),
        ("native list of jobs", lambda: server.get(f"/quarterdeck/api/1/projects/{PROJECT}/jobs"), "100 ms"),
        ("/api/1/job/ID", lambda: server.get(f"/api/1/job/{one}"), ""),
        ("/api/1/jobs/export of all", lambda: server.get("/api/1/jobs/export", project=PROJECT), ""),
        ("/api/1/history", lambda: server.get("/api/1/history", project=PROJECT), ""),
    ]
    for name, ask, goal in asks:
        middle, worst, size = answer_times(ask, options.rounds)
        rows.append((f"{name}, {size // 1024} KB: median, worst", f"{1000 * middle:.0f}, {1000 * worst:.0f} ms", goal))
    return rows


def main() -> None:
    _processes.end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few of everything")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.jobs, options.rounds = 10, 100, 5
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory, _server.serving(Path(directory)) as own:
        rows = measure(own, options)
    print(f"{options.runs} runs, {options.jobs} jobs; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    width = max(len(what) for what, _, _ in rows)
    for what, value, goal in rows:
        print(f"{what:{width}}  {value:>16}  {'goal ' + goal if goal else ''}")


if __name__ == "__main__":
    main()
