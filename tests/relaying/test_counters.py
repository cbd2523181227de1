# SPDX-License-Identifier: Apache-2.0
"""Counters: of threads, and of processes by way of a file."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from quarterdeck.relaying import counters
from quarterdeck.relaying.counters import Counters

_COUNT = """
import sys
from pathlib import Path
from quarterdeck.relaying.counters import Counters

counted = Counters(Path(sys.argv[1]))
for _ in range(1000):
    counted.report("ok")
"""


def test_everything_is_there_at_zero(tmp_path: Path) -> None:
    numbers = Counters().snapshot()

    assert set(numbers.values()) == {0.0}
    assert {"reports.ok", "reports.error", "reports.invalid", "inventories.forward_ok"} <= numbers.keys()
    assert counters.read(tmp_path / "nothing") == numbers


def test_threads_lose_no_count() -> None:
    counted = Counters()

    def count() -> None:
        for _ in range(1000):
            counted.report("invalid")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted.snapshot()["reports.invalid"] == 4000


def test_processes_count_together_and_others_read(tmp_path: Path) -> None:
    path = tmp_path / "spool" / "counters"
    processes = [subprocess.Popen([sys.executable, "-c", _COUNT, str(path)]) for _ in range(3)]
    own = Counters(path)
    for _ in range(1000):
        own.report("ok")
    assert [process.wait() for process in processes] == [0, 0, 0]

    assert counters.read(path)["reports.ok"] == 4000
    assert Counters(path).snapshot()["reports.ok"] == 4000, "they go on after a restart"


def test_durations_fall_into_buckets() -> None:
    counted = Counters()
    for seconds in (0.001, 0.005, 0.3, 60):
        counted.processed(seconds)

    found = dict(counters.buckets(counted.snapshot()))
    assert (found["0.005"], found["0.25"], found["0.5"], found["10.0"], found["+Inf"]) == (2, 2, 3, 3, 4)
    assert counted.snapshot()["seconds.sum"] == 60.306
