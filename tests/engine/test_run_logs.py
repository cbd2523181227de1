# SPDX-License-Identifier: Apache-2.0
"""From the directory of dropped files to the spool: nothing is lost, whenever who does it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from quarterdeck.core.errors import Unavailable
from quarterdeck.engine import run_logs
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import DropDirectory
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Spool
from quarterdeck.services import reports

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"

_RUN = """
import sys, threading
from pathlib import Path
from quarterdeck.engine import run_logs
from quarterdeck.relaying.counters import Counters

data = Path(sys.argv[1])
print("ready", flush=True)
run_logs.run(data / "reports", data / "spool", threading.Event(), retention_seconds=3600, counters=Counters())
"""


def name(number: int) -> str:
    return f"2026-01-31T12:00:00.{number}+00:00@{NODE}.log"


def drop(data: Path, number: int) -> None:
    incoming = data / "reports" / "incoming"
    (incoming / f".{number}").write_bytes(b"content %d" % number)
    (incoming / f".{number}").rename(incoming / name(number))


def spooled(data: Path) -> dict[str, bytes]:
    """Name -> content of everything in the spool."""
    records = [one for path in spooling.pending(data / "spool") for one in spooling.records(path)]
    return {slip.file: content for slip, content in map(reports.unpack, records)}


def waiting(data: Path) -> list[str]:
    return [path.name for path in (data / "reports" / "incoming").iterdir()]


def test_a_record_has_all_that_is_known_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "reports" / "incoming").mkdir(parents=True)
    drop(tmp_path, 1)
    os.utime(tmp_path / "reports" / "incoming" / name(1), (1_769_860_800.5,) * 2)
    spool = Spool(tmp_path / "spool", reserve_bytes=0)

    taken = DropDirectory(
        tmp_path / "reports" / "incoming", FailedFiles(tmp_path / "failed"), run_logs.into(spool)
    ).look()

    [path] = spooling.pending(tmp_path / "spool")
    [(slip, content)] = map(reports.unpack, spooling.records(path))
    assert taken == 1
    assert (slip.file, slip.node, slip.at, content) == (name(1), NODE, 1_769_860_800.5, b"content 1")


def test_a_full_disk_leaves_files_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "reports" / "incoming").mkdir(parents=True)
    drop(tmp_path, 1)
    directory = DropDirectory(
        tmp_path / "reports" / "incoming",
        FailedFiles(tmp_path / "failed"),
        run_logs.into(Spool(tmp_path / "spool", reserve_bytes=2**62)),
    )

    try:
        directory.look()
    except Unavailable:
        assert waiting(tmp_path) == [name(1)]
    else:
        raise AssertionError("a full disk was not noticed")


def test_statement_58_no_kill_loses_a_file(tmp_path: Path) -> None:
    (tmp_path / "reports" / "incoming").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    chance = random.Random(58)
    dropped = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        process.stdout.readline()
        end = time.monotonic() + chance.uniform(0.1, 0.5)
        while time.monotonic() < end:
            drop(tmp_path, dropped)
            dropped += 1
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    stop = threading.Event()
    arguments = (tmp_path / "reports", tmp_path / "spool", stop)
    rest = threading.Thread(
        target=run_logs.run, args=arguments, kwargs={"retention_seconds": 3600.0, "counters": Counters()}
    )
    rest.start()
    while waiting(tmp_path):
        time.sleep(0.05)
    stop.set()
    rest.join()

    assert dropped > 20
    assert spooled(tmp_path) == {name(number): b"content %d" % number for number in range(dropped)}
    assert not (tmp_path / "reports" / "failed").exists()
