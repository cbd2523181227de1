# SPDX-License-Identifier: Apache-2.0
"""Files that others drop: taken once they are whole, none lost to junk beside it, and the unfit told apart."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from quarterdeck.core.errors import Unavailable
from quarterdeck.relaying import drop_directory, pauses
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import Consume, DropDirectory, Dropped, FilesWait, Later
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Rejection

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
DAY = 86_400.0


def name(number: int = 0, ending: str = ".log") -> str:
    return f"2026-01-31T12:{number // 60 % 60:02d}:{number % 60:02d}.{number}+00:00@{NODE}{ending}"


class Taking:
    """A consumer that remembers what it was given."""

    def __init__(self) -> None:
        self.files: list[Dropped] = []
        self.away = False

    @property
    def names(self) -> list[str]:
        return sorted(one.name for one in self.files)

    def __call__(self, files: Sequence[Dropped]) -> list[Rejection]:
        if self.away:
            raise Unavailable("away")
        if any(one.content == b"poison" for one in files):
            raise ValueError("poison is not to my liking")
        rejected = [
            Rejection(position, "refused", "invalid") for position, one in enumerate(files) if one.content == b"bad"
        ]
        self.files += [one for one in files if one.content != b"bad"]
        return rejected


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    made = tmp_path / "incoming"
    made.mkdir()
    return made


def watching(incoming: Path, consume: Consume, **options: object) -> DropDirectory:
    failed = FailedFiles(incoming.parent / "failed")
    return DropDirectory(incoming, failed, consume, **options)  # type: ignore[arg-type]  # keyword arguments of one test


@contextmanager
def running(directory: DropDirectory) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=directory.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def soon(what: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until something is so; how long that took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() < began + seconds
        time.sleep(0.01)
    return time.monotonic() - began


def left(incoming: Path) -> list[str]:
    return sorted(path.name for path in incoming.iterdir())


def test_statement_42_a_renamed_file_is_taken_within_a_second_and_its_former_name_ignored(incoming: Path) -> None:
    taking = Taking()
    with running(watching(incoming, taking)):
        temporary = incoming / f".{name()}.davfs.tmp1a2b"
        temporary.write_bytes(b"content")
        time.sleep(0.5)
        before = list(taking.files)
        temporary.rename(incoming / name())
        took = soon(lambda: bool(taking.files))

    assert before == []
    assert took < 1.0
    assert [(one.name, one.content) for one in taking.files] == [(name(), b"content")]
    assert left(incoming) == []


def test_a_file_that_is_still_written_is_waited_for(incoming: Path) -> None:
    taking = Taking()
    with running(watching(incoming, taking)), (incoming / name()).open("wb") as file:
        file.write(b"first ")
        file.flush()
        time.sleep(1.5)
        assert taking.files == []
        file.write(b"second")
        file.close()
        took = soon(lambda: bool(taking.files))

    assert taking.files[0].content == b"first second"
    assert took < 1.0


def test_statement_43_what_lies_there_at_the_start_drains_fully_whatever_lies_beside_it(incoming: Path) -> None:
    taking = Taking()
    files = {name(number) for number in range(450)}
    for one in files:
        (incoming / one).write_bytes(b"content")
        os.utime(incoming / one, (time.time() - 40,) * 2)
    junk = [f"{number}.junk" for number in range(60)]
    for one in junk:
        (incoming / one).write_bytes(b"junk")

    with running(watching(incoming, taking)):
        soon(lambda: len(taking.files) == len(files))
        soon(lambda: left(incoming) == sorted(junk))

    assert set(taking.names) == files


def test_other_things_in_the_directory_are_left_alone(incoming: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (incoming / name(1)).symlink_to(secret)
    (incoming / name(2)).mkdir()
    os.mkfifo(incoming / name(3))
    (incoming / "note.txt").write_text("note")
    (incoming / name(4)).write_bytes(b"content")
    taking = Taking()

    assert watching(incoming, taking).look() == 1

    assert taking.names == [name(4)]
    assert left(incoming) == sorted([name(1), name(2), name(3), "note.txt"])


def test_statement_46_a_bad_name_is_set_aside_and_blocks_nobody(incoming: Path, tmp_path: Path) -> None:
    for one in ("bad-name.log", name(), "@.gz"):
        (incoming / one).write_bytes(b"content")
    taking, counters = Taking(), Counters()

    watching(incoming, taking, counters=counters).look()

    failed = FailedFiles(tmp_path / "failed")
    assert taking.names == [name()]
    assert failed.names() == ["@.gz", "bad-name.log"]
    assert "does not tell whose report it is" in failed.reason("bad-name.log").reason
    assert counters.snapshot()["quarantined"] == 2


def test_a_file_that_is_too_long_is_set_aside_unread(incoming: Path, tmp_path: Path) -> None:
    with (incoming / name()).open("wb") as file:
        file.truncate(10 * 2**30)

    watching(incoming, Taking()).look()

    failed = FailedFiles(tmp_path / "failed")
    assert failed.names() == [name()]
    assert "longer than" in failed.reason(name()).reason


def test_what_is_refused_is_set_aside_and_what_is_poison_is_found(incoming: Path, tmp_path: Path) -> None:
    contents = [b"good"] * 9
    contents[3], contents[7] = b"bad", b"poison"
    for number, content in enumerate(contents):
        (incoming / name(number)).write_bytes(content)
    taking = Taking()

    assert watching(incoming, taking).look() == 7

    failed = FailedFiles(tmp_path / "failed")
    assert left(incoming) == []
    assert failed.names() == [name(3), name(7)]
    assert [failed.reason(one).reason for one in failed.names()] == ["refused", "poison is not to my liking"]
    assert [failed.reason(one).kind for one in failed.names()] == ["invalid", "error"]


def test_files_stay_while_nobody_takes_them_and_go_on_afterwards(incoming: Path, tmp_path: Path) -> None:
    taking, counters = Taking(), Counters()
    taking.away = True
    (incoming / name()).write_bytes(b"content")

    with running(watching(incoming, taking, counters=counters)):
        soon(lambda: counters.snapshot()["transient_failures"] >= 2)
        assert left(incoming) == [name()]
        taking.away = False
        soon(lambda: left(incoming) == [])

    assert taking.names == [name()]
    assert not (tmp_path / "failed").exists()


class Choosing:
    """A consumer that takes nothing that is spoilt now, and remembers what it was given, in portions."""

    def __init__(self, *, way: bool = False) -> None:
        self.way = way
        self.portions: list[list[str]] = []

    def __call__(self, files: Sequence[Dropped]) -> list[Later]:
        self.portions.append([one.name for one in files])
        return [Later(at, "not now", self.way) for at, one in enumerate(files) if one.content == b"spoilt"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again in half a minute at the earliest."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 60.0)


def test_a_new_file_is_tried_within_a_second_while_others_always_fail(incoming: Path, patient: None) -> None:
    choosing = Choosing()
    for number in range(3):
        (incoming / name(number)).write_bytes(b"spoilt")

    with running(watching(incoming, choosing)):
        soon(lambda: bool(choosing.portions))
        time.sleep(0.1)
        (incoming / name(3)).write_bytes(b"spoilt")
        soon(lambda: [name(3)] in choosing.portions)
        (incoming / name(4)).write_bytes(b"good")
        took = soon(lambda: name(4) not in left(incoming))

    assert took < 1.2
    assert choosing.portions == [[name(0), name(1), name(2)], [name(3)], [name(4)]]
    assert left(incoming) == [name(number) for number in range(4)]


def test_what_failed_before_says_nothing_of_the_way_and_what_is_new_does(
    incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing = Choosing(way=True)
    directory = watching(incoming, choosing)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.02)
    (incoming / name(0)).write_bytes(b"spoilt")

    with pytest.raises(Unavailable) as first:
        directory.look()
    time.sleep(0.05)
    with pytest.raises(FilesWait):
        directory.look()
    (incoming / name(1)).write_bytes(b"good")
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 60.0)
    with_new = directory.look()

    assert not isinstance(first.value, FilesWait)
    assert with_new == 1
    assert left(incoming) == [name(0)]


def test_while_the_way_is_down_new_files_wait_until_its_pause_ends(incoming: Path, patient: None) -> None:
    choosing = Choosing(way=True)
    (incoming / name(0)).write_bytes(b"spoilt")

    with running(watching(incoming, choosing)):
        soon(lambda: bool(choosing.portions))
        (incoming / name(1)).write_bytes(b"good")
        time.sleep(1.0)

    assert choosing.portions == [[name(0)]]


def test_where_nothing_is_taken_few_are_tried_at_a_time_until_something_is(incoming: Path, patient: None) -> None:
    choosing = Choosing()
    directory = watching(incoming, choosing, max_files=20)
    for number in range(50):
        (incoming / name(number)).write_bytes(b"spoilt" if number < 28 else b"good")

    for _ in range(2):
        with pytest.raises(FilesWait):
            directory.look()
    taken = directory.look()

    assert [len(portion) for portion in choosing.portions] == [20, 8, 8, 14]
    assert taken == 22
    assert len({one for portion in choosing.portions for one in portion}) == 50


def test_a_file_that_was_replaced_while_it_was_taken_is_taken_again(incoming: Path) -> None:
    (incoming / name()).write_bytes(b"old")
    taking = Taking()

    def consume(files: Sequence[Dropped]) -> list[Rejection]:
        if not taking.files:
            (incoming / "new").write_bytes(b"new")
            (incoming / "new").rename(incoming / name())
        return taking(files)

    directory = watching(incoming, consume)
    directory.look()
    directory.look()

    assert [one.content for one in taking.files] == [b"old", b"new"]
    assert left(incoming) == []


def test_a_file_that_was_replaced_while_it_was_refused_is_not_set_aside_for_it(incoming: Path, tmp_path: Path) -> None:
    (incoming / name()).write_bytes(b"bad")
    taking = Taking()

    def consume(files: Sequence[Dropped]) -> list[Rejection]:
        if files[0].content == b"bad":
            (incoming / "new").write_bytes(b"good")
            (incoming / "new").rename(incoming / name())
        return taking(files)

    directory = watching(incoming, consume)
    directory.look()
    directory.look()

    assert [one.content for one in taking.files] == [b"good"]
    assert left(incoming) == []
    assert FailedFiles(tmp_path / "failed").names() == []


def test_statement_60_what_is_old_goes_from_both_directories_and_what_is_young_stays(
    incoming: Path, tmp_path: Path
) -> None:
    failed = FailedFiles(tmp_path / "failed")
    ages = {"old": 8 * DAY, "young": 6 * DAY, "future": -100 * DAY}
    for one, age in ages.items():
        (incoming / f"{one}.junk").write_bytes(b"x")
        failed.put(f"{one}.log", b"x", "reason")
        for path in (incoming / f"{one}.junk", failed.directory / f"{one}.log"):
            os.utime(path, (time.time() - age,) * 2)

    assert watching(incoming, Taking()).expire() == 2

    assert left(incoming) == ["future.junk", "young.junk"]
    assert failed.names() == ["future.log", "young.log"]
    assert left(failed.directory) == [
        "future.log",
        "future.log.reason",
        "young.log",
        "young.log.reason",
    ]


def test_one_at_a_time_takes(incoming: Path) -> None:
    first, second = Taking(), Taking()
    with running(watching(incoming, first)):
        soon((incoming.parent / "incoming.lock").exists)
        time.sleep(0.2)
        with running(watching(incoming, second)):
            for number in range(20):
                (incoming / name(number)).write_bytes(b"content")
            soon(lambda: len(first.files) == 20)

    assert second.files == []


def test_the_cost_of_a_file_does_not_grow_with_the_queue(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    listings = 0
    entries = DropDirectory._entries

    def counted(self: DropDirectory) -> list[os.DirEntry[str]]:
        nonlocal listings
        listings += 1
        return entries(self)

    monkeypatch.setattr(DropDirectory, "_entries", counted)
    monkeypatch.setattr(drop_directory, "_MAX_FILES", 10)
    for number in range(1000):
        (incoming / name(number)).write_bytes(b"x")

    def consume(files: Sequence[Dropped]) -> list[Rejection]:
        opened.extend(one.name for one in files)
        return []

    watching(incoming, consume).look()

    assert len(opened) == 1000
    assert listings == 1
