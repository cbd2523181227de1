# SPDX-License-Identifier: Apache-2.0
"""What the server knows of itself and its machine at this moment."""

from __future__ import annotations

import os
import platform
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.core.executions import State
from quarterdeck.services.context import Context
from quarterdeck.storage.executions import ExecutionQuery

_MEMINFO = Path("/proc/meminfo")
_PAGES = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """Load of the machine in percent of its processors; memory in bytes; the process is the one that answers."""

    os_name: str
    os_version: str
    architecture: str
    interpreter: str
    interpreter_vendor: str
    interpreter_version: str
    load_percent: float
    processors: int
    memory_of_machine: int
    memory_available: int
    memory_of_process: int
    threads: int
    running_executions: int


def facts(ctx: Context) -> SystemFacts:
    """Everything, as it is now."""
    processors = os.cpu_count() or 1
    machine = _meminfo()
    running = ctx.store.executions.matching(ExecutionQuery(state=State.RUNNING))
    return SystemFacts(
        os_name=platform.system(),
        os_version=platform.release(),
        architecture=platform.machine(),
        interpreter=f"{platform.python_implementation()} ({sys.executable})",
        interpreter_vendor="Python Software Foundation" if sys.implementation.name == "cpython" else "unknown",
        interpreter_version=platform.python_version(),
        load_percent=round(os.getloadavg()[0] * 100 / processors, 2),
        processors=processors,
        memory_of_machine=machine.get("MemTotal", 0),
        memory_available=machine.get("MemAvailable", 0),
        memory_of_process=int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        threads=threading.active_count(),
        running_executions=len(running),
    )


def check_database(ctx: Context) -> None:
    """Whether the database answers. Raises Unavailable."""
    ctx.store.settings.get()


def _meminfo() -> dict[str, int]:
    pairs = (line.split() for line in _MEMINFO.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in pairs if len(words) == 3}
