# SPDX-License-Identifier: Apache-2.0
"""The spool: what is acknowledged is durable, whatever is killed; what is bad is set aside with a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from quarterdeck.core.errors import Unavailable
from quarterdeck.relaying import spool
from quarterdeck.relaying.spool import Drain, Rejection, Spool

#: Appends numbered records from many threads and prints each number once it is acknowledged.
_WRITER = """
import sys, threading, itertools, os
from pathlib import Path
from quarterdeck.relaying.spool import Spool

spool = Spool(Path(sys.argv[1]), reserve_bytes=0)
numbers = itertools.count(int(sys.argv[2]))

def work():
    while True:
        number = next(numbers)
        spool.append(b"%d " % number + b"x" * 2000)
        os.write(1, b"%d\\n" % number)

for _ in range(8):
    threading.Thread(target=work).start()
"""

#: Takes records into a file, one line each, durable before the spool's files go.
_DRAINER = """
import sys, os, threading
from pathlib import Path
from quarterdeck.relaying.spool import Drain

target = open(sys.argv[2], "ab")

def take(records):
    target.write(b"".join(record.split(b" ")[0] + b"\\n" for record in records))
    target.flush()
    os.fsync(target.fileno())
    return []

Drain(Path(sys.argv[1]), take, max_records=50).run(threading.Event())
"""


def everything(directory: Path) -> list[bytes]:
    return [record for path in spool.pending(directory) for record in spool.records(path)]


def run_python(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, env=environment
    )


def kill(process: subprocess.Popen[bytes]) -> bytes:
    """Kill one process that this test started; what it had printed."""
    os.kill(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    return output


def test_records_come_out_as_they_went_in(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    records = [b"", b"one", b"\0" * 100_000, b"last"]

    for record in records:
        writer.append(record)

    assert everything(tmp_path) == records


def test_threads_that_append_together_lose_nothing_while_the_drain_takes_their_files(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    stop, taken = threading.Event(), list[bytes]()

    def take(records: Sequence[bytes]) -> list[Rejection]:
        taken.extend(records)
        return []

    def append(number: int) -> None:
        for turn in range(20):
            writer.append(b"%d-%d" % (number, turn))

    drain = threading.Thread(target=Drain(tmp_path, take).run, args=(stop,))
    threads = [threading.Thread(target=append, args=(number,)) for number in range(16)]
    for thread in (drain, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    while spool.pending(tmp_path):
        time.sleep(0.01)
    stop.set()
    drain.join()

    assert sorted(taken) == sorted(b"%d-%d" % (number, turn) for number in range(16) for turn in range(20))


def test_records_appended_one_after_another_share_a_file(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    for number in range(10):
        writer.append(b"%d" % number)

    assert len(spool.pending(tmp_path)) == 1


def test_a_writer_goes_on_in_a_new_file_when_the_drain_took_the_old_one(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    writer.append(b"first")
    Drain(tmp_path, lambda _: []).once()

    writer.append(b"second")

    assert everything(tmp_path) == [b"second"]


def test_no_file_grows_without_end_while_nobody_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_SEGMENT_BYTES", 1000)
    writer = Spool(tmp_path, reserve_bytes=0)
    records = [bytes([number]) * 300 for number in range(20)]
    for record in records:
        writer.append(record)

    assert max(path.stat().st_size for path in spool.pending(tmp_path)) < 1400
    taken: list[Sequence[bytes]] = []

    def take(batch: Sequence[bytes]) -> list[Rejection]:
        taken.append(batch)
        return []

    drain = Drain(tmp_path, take)
    while drain.once():
        pass
    assert [record for batch in taken for record in batch] == records
    assert max(sum(map(len, batch)) for batch in taken) < 2400


def test_what_is_set_aside_is_on_disk_before_it_leaves_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, synced = os.fdatasync, list[bytes]()

    def noted(descriptor: int) -> None:
        synced.append(os.pread(descriptor, 100, 0))
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noted)

    spool.quarantine(tmp_path, b"record", "bad")

    assert synced == [b"record", b'{"reason": "bad"}']


def test_the_quarantine_keeps_the_newest_within_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_QUARANTINED_BYTES", 1000)

    for number in range(8):
        spool.quarantine(tmp_path, bytes([number]) * 300, "bad")

    kept = [path.read_bytes()[0] for path in sorted(tmp_path.glob("*.record"))]
    assert kept == [5, 6, 7]
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_a_full_disk_is_told_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=2**62)

    with pytest.raises(Unavailable):
        writer.append(b"record")

    assert everything(tmp_path) == []


def test_what_stands_before_a_damage_is_still_read(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    writer.append(b"first")
    [path] = spool.pending(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])

    assert list(spool.records(path)) == [b"first"]


def test_bad_records_are_set_aside_with_the_reason_and_the_others_are_taken(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    for number in range(9):
        writer.append(b"%d" % number)
    taken: list[bytes] = []

    def take(records: Sequence[bytes]) -> list[Rejection]:
        if b"3" in records:
            raise ValueError("three is not to my liking")
        good = [record for record in records if record != b"7"]
        taken.extend(good)
        return [Rejection(position, "seven is known to be bad") for position, one in enumerate(records) if one == b"7"]

    Drain(tmp_path, take).once()

    assert sorted(taken) == [b"0", b"1", b"2", b"4", b"5", b"6", b"8"]
    reasons = {
        path.with_suffix(".record").read_bytes(): json.loads(path.read_text())["reason"]
        for path in (tmp_path / "quarantine").glob("*.json")
    }
    assert reasons == {b"3": "three is not to my liking", b"7": "seven is known to be bad"}
    assert spool.pending(tmp_path) == []


def test_while_nothing_can_be_taken_everything_stays(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    writer.append(b"record")

    def take(records: Sequence[bytes]) -> list[Rejection]:
        raise Unavailable("not now")

    with pytest.raises(Unavailable):
        Drain(tmp_path, take).once()

    assert everything(tmp_path) == [b"record"]


def waiting_alone(directory: Path, *numbers: int) -> None:
    """A file for each of these records, as writers leave them that are started again and again."""
    for number in numbers:
        Spool(directory, reserve_bytes=0).append(b"%d" % number)


def test_many_files_are_taken_oldest_first_with_those_that_come_meanwhile(tmp_path: Path) -> None:
    taken: list[bytes] = []

    def take(records: Sequence[bytes]) -> list[Rejection]:
        taken.extend(records)
        return []

    drain = Drain(tmp_path, take, max_records=2)
    waiting_alone(tmp_path, 0, 1, 2, 3, 4)
    counts = [drain.once(), drain.once()]
    waiting_alone(tmp_path, 5, 6)
    counts += [drain.once() for _ in range(3)]

    assert counts == [2, 2, 1, 2, 0]
    assert taken == [b"%d" % number for number in range(7)]
    assert spool.pending(tmp_path) == []


def test_what_was_found_and_could_not_be_taken_is_found_again(tmp_path: Path) -> None:
    taken: list[bytes] = []
    away = [False, True, False, False, False]

    def take(records: Sequence[bytes]) -> list[Rejection]:
        if away.pop(0):
            raise Unavailable("not now")
        taken.extend(records)
        return []

    drain = Drain(tmp_path, take, max_records=1)
    waiting_alone(tmp_path, 0, 1, 2)
    drain.once()
    with pytest.raises(Unavailable):
        drain.once()

    assert [drain.once(), drain.once(), drain.once()] == [1, 1, 0]
    assert taken == [b"0", b"1", b"2"]


def test_a_file_that_somebody_removed_is_not_missed_for_ever(tmp_path: Path) -> None:
    taken: list[bytes] = []

    def take(records: Sequence[bytes]) -> list[Rejection]:
        taken.extend(records)
        return []

    drain = Drain(tmp_path, take, max_records=1)
    waiting_alone(tmp_path, 0, 1, 2)
    drain.once()
    spool.pending(tmp_path)[0].unlink()

    assert drain.once() == 1
    waiting_alone(tmp_path, 3)
    assert [drain.once(), drain.once()] == [1, 0]
    assert taken == [b"0", b"2", b"3"]


def test_only_one_drain_runs_at_a_time(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    stop, entered = threading.Event(), threading.Event()
    takers: set[int] = set()

    def take(records: Sequence[bytes]) -> list[Rejection]:
        takers.add(threading.get_ident())
        entered.set()
        return []

    threads = [threading.Thread(target=Drain(tmp_path, take).run, args=(stop,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        writer.append(b"record")
        entered.wait(10)
        entered.clear()
    stop.set()
    for thread in threads:
        thread.join()

    assert len(takers) == 1


def test_killing_the_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[bytes] = set()
    for turn in range(3):
        process = run_python(_WRITER, tmp_path, turn * 1_000_000)
        assert process.stdout is not None
        first = process.stdout.readline()  # it works by now
        time.sleep(0.2 + turn * 0.1)
        acknowledged |= {first.strip(), *kill(process).split(b"\n")[:-1]}

    kept = {record.split(b" ")[0] for record in everything(tmp_path)}

    assert len(acknowledged) > 30
    assert acknowledged <= kept


def test_killing_the_drain_loses_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    directory, target = tmp_path / "spool", tmp_path / "taken"
    writer = Spool(directory, reserve_bytes=0)
    for number in range(100):
        writer.append(b"%d " % number)
    process = run_python(_DRAINER, directory, target)
    while not target.exists() or target.stat().st_size == 0:
        time.sleep(0.002)
    kill(process)
    for number in range(100, 300):
        writer.append(b"%d " % number)

    process = run_python(_DRAINER, directory, target)
    deadline = time.monotonic() + 30
    while spool.pending(directory) and time.monotonic() < deadline:
        time.sleep(0.01)
    kill(process)

    assert {int(line) for line in target.read_bytes().split()} == set(range(300))


def test_a_drain_that_cannot_set_something_aside_tries_again(tmp_path: Path) -> None:
    writer = Spool(tmp_path, reserve_bytes=0)
    writer.append(b"bad")
    stop, aside = threading.Event(), list[bytes]()
    attempts = 0

    def set_aside(record: bytes, rejection: Rejection) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise OSError("the disk is full")
        aside.append(record)
        stop.set()

    Drain(tmp_path, lambda _: [Rejection(0, "bad")], set_aside=set_aside).run(stop)

    assert aside == [b"bad"]
    assert spool.pending(tmp_path) == []
