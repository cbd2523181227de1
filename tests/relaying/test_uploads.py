# SPDX-License-Identifier: Apache-2.0
"""Files that are put here by name: there whole once they are acknowledged, and each on its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.relaying import kept_files, uploads
from quarterdeck.relaying.drop_directory import Rules
from quarterdeck.relaying.uploads import Uploads

RULES = Rules(lambda name: name.endswith(".log"), lambda _: None, 1000)

#: Puts numbered files from many threads, and prints each number once it is acknowledged.
_PUTTER = """
import io, itertools, os, sys, threading
from pathlib import Path
from quarterdeck.relaying.drop_directory import Rules
from quarterdeck.relaying.uploads import Uploads

kept = Uploads(Path(sys.argv[1]), Rules(lambda _: True, lambda _: None, 1000), reserve_bytes=0)
numbers = itertools.count()

def work():
    while True:
        number = next(numbers)
        kept.keep(f"{number}.log", io.BytesIO(b"%d " % number * 500))
        os.write(1, b"%d\\n" % number)

for _ in range(8):
    threading.Thread(target=work).start()
"""


def test_a_file_is_there_whole_and_its_second_version_replaces_it(tmp_path: Path) -> None:
    kept = Uploads(tmp_path / "incoming", RULES, reserve_bytes=0)

    assert kept.keep("one.log", io.BytesIO(b"first"))
    assert not kept.keep("one.log", io.BytesIO(b"second"))

    assert {one.name: one.read_bytes() for one in (tmp_path / "incoming").iterdir()} == {"one.log": b"second"}
    with pytest.raises(Invalid):
        kept.keep("one.txt", io.BytesIO(b"third"))


def test_what_one_file_fails_by_harms_none_that_comes_with_it(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, RULES, reserve_bytes=0)
    (tmp_path / "directory.log").mkdir()
    told: list[str] = []

    def keep(number: int) -> bool:
        name = "directory.log" if number % 5 == 0 else f"{number}.log"
        try:
            return kept.keep(name, io.BytesIO(b"%d" % number))
        except Unavailable as error:
            told.append(error.detail)
            return False

    with ThreadPoolExecutor(16) as pool:
        new = list(pool.map(keep, range(100)))

    assert new == [number % 5 != 0 for number in range(100)]
    assert len(told) == 20
    assert all("Is a directory" in one for one in told)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()}
    assert files == {f"{number}.log": b"%d" % number for number in range(100) if number % 5}


def test_of_files_with_one_name_one_is_new_and_stays_whole(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, RULES, reserve_bytes=0)

    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda number: kept.keep("one.log", io.BytesIO(b"%03d" % number * 100)), range(40)))

    assert sum(new) == 1
    [path] = tmp_path.iterdir()
    assert path.read_bytes() in {b"%03d" % number * 100 for number in range(40)}


def test_nothing_stays_of_a_file_whose_directory_went_while_it_came(tmp_path: Path) -> None:
    directory = tmp_path / "incoming"
    kept = Uploads(directory, RULES, reserve_bytes=0)

    class Late(io.BytesIO):
        """A body at whose end the directory goes."""

        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            if not found and directory.exists():
                shutil.rmtree(directory)
            return found

    with pytest.raises(Unavailable):
        kept.keep("one.log", Late(b"content"))

    assert not directory.exists()
    assert kept.keep("one.log", io.BytesIO(b"again"))


def test_files_that_come_together_share_the_sync_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Uploads(tmp_path, RULES, reserve_bytes=0)
    syncs: list[int] = []

    def sync_slowly(directory: Path) -> None:
        time.sleep(0.02)  # as disks do, while others come
        kept_files.sync_directory(directory)
        syncs.append(1)

    monkeypatch.setattr(uploads, "sync_directory", sync_slowly)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: kept.keep(f"{number}.log", io.BytesIO(b"x")), range(64)))

    assert len(list(tmp_path.iterdir())) == 64
    assert len(syncs) < 32


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PUTTER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()

    numbers = [int(line) for line in [*said, *rest.splitlines(keepends=True)] if line.endswith(b"\n")]
    assert len(numbers) >= 50
    for number in numbers:
        assert (tmp_path / f"{number}.log").read_bytes() == b"%d " % number * 500
