# SPDX-License-Identifier: Apache-2.0
"""What the task queue costs and how soon it acts: deferring, beginning, throughput, taking over, idling.

    python bench/task_queue.py [--tasks 1000] [--json]

A real database with fsync; the worker is a process of its own, as in production.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import sqlalchemy

from quarterdeck.storage import embedded, migrate, queue
from quarterdeck.storage.database import Database, Provenance, Store

BY = Provenance(actor="bench")
_WORKER = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[2])
from quarterdeck.storage import queue

async def tell(task):
    print(time.clock_gettime(time.CLOCK_MONOTONIC), task.payload, flush=True)
    if task.payload == "stuck":
        await asyncio.sleep(3600)

entries = {"tell": queue.Entry(handler=tell), "one": queue.Entry(handler=tell, at_once=1)}
asyncio.run(queue.work(sys.argv[1], entries, stop=asyncio.Event()))
"""


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _WORKER, url, sys.path[0]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> float:
    """When the worker began with the next task."""
    assert process.stdout is not None
    return float(process.stdout.readline().split()[0])


@contextmanager
def unit(database: Database) -> Iterator[Store]:
    with database.unit_of_work(BY) as store:
        yield store
        store.commit()


def defer(database: Database, task: str, payload: object = None) -> float:
    """Defer one task; returns when it was committed."""
    with unit(database) as store:
        queue.defer(store, task, payload)
    return time.monotonic()


def deferring(database: Database) -> float:
    """Milliseconds that deferring adds to a unit of work."""
    times: list[float] = []
    for _ in range(200):
        with unit(database) as store:
            begun = time.perf_counter()
            queue.defer(store, "nobody", dedupe_key=str(len(times)))
            times.append(time.perf_counter() - begun)
    with unit(database) as store:
        store.run(sqlalchemy.text("DELETE FROM pgqueuer"))
    return statistics.median(times) * 1000


def beginning(database: Database, process: subprocess.Popen[str]) -> list[float]:
    """Milliseconds from a commit to the beginning of its task."""
    defer(database, "tell")
    told(process)
    found = []
    for _ in range(100):
        committed = defer(database, "tell")
        found.append(max(0.0, told(process) - committed) * 1000)
        time.sleep(0.02)
    return sorted(found)


def throughput(database: Database, process: subprocess.Popen[str], tasks: int) -> float:
    """Tasks a second, of many that were deferred at once."""
    with unit(database) as store:
        for _ in range(tasks):
            queue.defer(store, "tell")
    begun = time.monotonic()
    last = [told(process) for _ in range(tasks)][-1]
    return tasks / (last - begun)


def takeover(database: Database, url: str) -> float:
    """Seconds from kill -9 of a worker until another one begins with its task."""
    with worker(url) as dying:
        defer(database, "one", "stuck")
        told(dying)
        dying.kill()
    killed = time.monotonic()
    with worker(url) as heir:
        return told(heir) - killed


def idling(process: subprocess.Popen[str], seconds: float = 15) -> dict[str, float]:
    """What a worker with nothing to do takes."""
    before = _cpu(process.pid)
    time.sleep(seconds)
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:])
    memory = int(lines["Pss"].split()[0]) / 1024
    return {"idle_cpu_percent": (_cpu(process.pid) - before) / seconds * 100, "idle_pss_mb": memory}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(url: str, tasks: int) -> dict[str, float]:
    database = Database(url, pool_size=2)
    found = {"defer_ms": deferring(database)}
    with worker(url) as process:
        begun = beginning(database, process)
        found |= {"begin_ms_median": statistics.median(begun), "begin_ms_worst_of_100": begun[-1]}
        found["tasks_per_second"] = throughput(database, process, tasks)
        found |= idling(process)
    found["takeover_seconds"] = takeover(database, url)
    database.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        Path(directory).chmod(0o711)
        with embedded.running(Path(directory)) as url:
            migrate.upgrade(url)
            found: dict[str, Any] = run(url, options.tasks)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}", end="")
    print(f", load {os.getloadavg()[0]:.1f}")
    for name, value in found.items():
        print(f"{name:<26}{value:>10.2f}")


if __name__ == "__main__":
    main()
