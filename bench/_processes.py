# SPDX-License-Identifier: Apache-2.0
"""Processes that benchmarks start and watch: what processor time and memory a whole tree of them takes.

Nothing of a measured command stays behind: what it left running is ended, by its process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK = os.sysconf("SC_CLK_TCK")

#: Runs a command to its end, with everything that it leaves behind, and tells what that cost.
_RUNNER = """
import ctypes, json, os, resource, signal, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process, so that they are counted
seconds, output, errors, *command = sys.argv[1:]
def children():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found
with open(output, "wb") as out, open(errors, "wb") as err:
    begun = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        status = process.wait(float(seconds))
    except subprocess.TimeoutExpired:
        status = "timeout"
    wall = time.monotonic() - begun
until = time.monotonic() + 20
while (left := children()) and time.monotonic() < until:
    for pid in left:
        os.kill(pid, signal.SIGTERM if time.monotonic() < until - 10 else signal.SIGKILL)
    time.sleep(0.02)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        break
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "status": status}))
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command. `cpu` counts everything below it, in seconds; `memory` is its peak in bytes."""

    wall: float
    cpu: float
    status: int | str
    output: str
    errors: str
    memory: int = 0


def run(
    command: Sequence[str],
    scratch: Path,
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
    watch_memory: bool = False,
) -> Ran:
    """Run a command to its end, or to its time's end."""
    output, errors = scratch / "output", scratch / "errors"
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _RUNNER, str(seconds), str(output), str(errors), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=scratch,
        env={**os.environ, **(environment or {})},
    )
    with Memory(process.pid, own=False) if watch_memory else contextlib.nullcontext() as memory:
        told = json.loads(process.communicate()[0])
    return Ran(
        **told,
        output=output.read_text(errors="replace"),
        errors=errors.read_text(errors="replace"),
        memory=memory.peak if memory else 0,
    )


def end_in_order() -> None:
    """Let this program clean up when it is asked to end."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def children(pid: int) -> list[int]:
    """The children of a process; none when it is gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, all below it, and those that ended below it."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / _TICK


def memory_bytes(pids: Sequence[int]) -> int:
    """The proportional set sizes of processes: what they share counts in parts."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def others_share(before: Sequence[int], after: Sequence[int], mine: float) -> float:
    """The share of the machine that others used between two looks, of whose busy seconds `mine` were ours."""
    spent = [(late - early) / _TICK for early, late in zip(before, after, strict=True)]
    busy = sum(spent[:3]) + sum(spent[5:8])
    return max(0.0, busy - mine) / (sum(spent[:8]) or 1.0)


def machine_ticks() -> list[int]:
    """Where the time of all processors went."""
    return [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


class Memory:
    """Watches what a process and all below it take, from `with` on; `own` counts the process itself, too."""

    def __init__(self, pid: int, *, own: bool = True, every: float = 0.2) -> None:
        self._pid, self._own, self._every = pid, own, every
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._enough.wait(self._every):
            self._look()

    def _look(self) -> None:
        pids = family(self._pid)
        self.peak = max(self.peak, memory_bytes(pids if self._own else pids[1:]))


class Account:
    """Exact processor time of a process and all that it starts, where the kernel keeps such an account for groups."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._group: Path | None = None
        for root, file in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat")):
            group = Path(root) / f"quarterdeck-bench-{pid}"
            with contextlib.suppress(OSError):
                if (Path(root) / "cgroup.procs").exists():
                    group.mkdir()
                    self._group, self._file = group, group / file
                    (group / "cgroup.procs").write_text(str(pid))
                    break

    def seconds(self) -> float:
        """What it has used so far."""
        if self._group is None:
            return cpu_seconds(self._pid)
        text = self._file.read_text().split()
        return int(text[0]) / 1e9 if len(text) == 1 else int(text[1]) / 1e6

    def close(self) -> None:
        """Give the account back, once all its processes have ended."""
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.rmdir()


@contextlib.contextmanager
def accounted(pid: int) -> Iterator[Account]:
    """An account for the length of the block."""
    account = Account(pid)
    try:
        yield account
    finally:
        account.close()
