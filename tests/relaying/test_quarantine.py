# SPDX-License-Identifier: Apache-2.0
"""What was set aside: told with its reason, tried again where it came from, forgotten, and never without bounds."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from quarterdeck.core.errors import Conflict, NotFound
from quarterdeck.formats import report_files
from quarterdeck.relaying import failed_files, spool
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.quarantine import HEAD_BYTES, Inventories, Quarantine, Records, ReportFiles
from quarterdeck.relaying.spool import Spool

NAME = "2026-01-31T12:00:00+00:00@e745a140-40bc-4b86-b6dc-084488fc906b.log.gz"


class Places:
    """All three places of a server."""

    def __init__(self, directory: Path) -> None:
        self.incoming, self.inventories = directory / "incoming", directory / "inventories"
        self.refused = directory / "refused"
        for one in (self.incoming, self.inventories, self.refused):
            one.mkdir()
        self.failed = FailedFiles(directory / "failed")
        self.spool = Spool(directory / "spool", reserve_bytes=0)
        self.records = directory / "spool" / "quarantine"
        self.quarantine = Quarantine(
            [
                ReportFiles(self.failed, self.incoming),
                Records(self.records, self.spool),
                Inventories(self.refused, self.inventories),
            ]
        )

    def only(self) -> str:
        [entry] = self.quarantine.entries()
        return entry.id


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_told_with_its_reason_and_what_is_in_it(places: Places) -> None:
    places.failed.put(NAME, gzip.compress(b"line\n\xff"), "not signed", "invalid")

    [entry] = places.quarantine.entries()

    assert (entry.place, entry.name, entry.reason, entry.kind) == ("reports", NAME, "not signed", "invalid")
    assert entry.id == report_files.queue_id(NAME), "as the log calls it"
    assert places.quarantine.get(entry.id) == entry
    assert places.quarantine.head(entry) == "line\n\ufffd"


def test_no_more_than_the_beginning_of_a_file_is_shown(places: Places) -> None:
    places.failed.put(NAME, gzip.compress(b"x" * 10 * HEAD_BYTES), "too boring")

    assert places.quarantine.head(places.quarantine.get(places.only())) == "x" * HEAD_BYTES


def test_a_file_is_tried_again_where_it_came_from(places: Places) -> None:
    places.failed.put(NAME, b"content", "reason")

    places.quarantine.retry(places.only())

    assert (places.incoming / NAME).read_bytes() == b"content"
    assert names(places.failed.directory) == []
    assert places.quarantine.entries() == []


def test_what_is_tried_again_replaces_nothing_that_waits(places: Places) -> None:
    places.failed.put(NAME, b"old", "reason")
    places.failed.put(f"2{NAME}", b"another", "reason")
    (places.refused / "node.ocs").write_bytes(b"old")
    for waiting in (places.incoming / NAME, places.inventories / "node.ocs.sign", places.inventories / "node.ocs"):
        waiting.write_bytes(b"new")

    for entry in places.quarantine.entries():
        if entry.name in (NAME, "node.ocs"):
            with pytest.raises(Conflict, match="newer"):
                places.quarantine.retry(entry.id)
    assert [entry.name for entry in places.quarantine.retry_all()] == [f"2{NAME}"]

    assert (places.incoming / NAME).read_bytes() == (places.inventories / "node.ocs").read_bytes() == b"new"
    assert {entry.name for entry in places.quarantine.entries()} == {NAME, "node.ocs"}


def test_a_record_is_tried_again_at_the_end_of_its_spool(places: Places) -> None:
    spool.quarantine(places.records, b"record", "bad")
    [entry] = places.quarantine.entries()
    assert (entry.place, entry.reason, entry.size) == ("parcels", "bad", 6)

    places.quarantine.retry(entry.id)

    assert [one for path in spool.pending(places.spool.directory) for one in spool.records(path)] == [b"record"]
    assert names(places.records) == []


def test_an_inventory_goes_with_its_signature(places: Places) -> None:
    name = "e745a140-40bc-4b86-b6dc-084488fc906b_2026-01-31T12:00:00.ocs"
    for one in (f"{name}.gz", f"{name}.sign", "lone.ocs.sign"):
        (places.refused / one).write_text("content")
    (places.refused / f"{f'{name}.gz'[:50]}.reject-20260131T120000Z.log").write_text("No such node.\n")

    entries = {one.name: one for one in places.quarantine.entries()}
    assert {one: entries[one].reason for one in entries} == {f"{name}.gz": "No such node.", "lone.ocs.sign": ""}
    places.quarantine.retry(entries[f"{name}.gz"].id)
    places.quarantine.remove(entries["lone.ocs.sign"].id)

    assert names(places.inventories) == [f"{name}.gz", f"{name}.sign"]
    assert places.quarantine.entries() == []


def test_what_is_forgotten_is_gone(places: Places) -> None:
    places.failed.put(NAME, b"content", "reason")
    spool.quarantine(places.records, b"record", "bad")

    for entry in places.quarantine.entries():
        places.quarantine.remove(entry.id)

    assert places.quarantine.entries() == []
    assert names(places.failed.directory) == names(places.records) == []


def test_what_is_not_there_is_told(places: Places) -> None:
    for deed in (places.quarantine.get, places.quarantine.retry, places.quarantine.remove):
        with pytest.raises(NotFound):
            deed("../../etc/passwd")


@pytest.mark.parametrize(
    "name",
    ["x" * 250, ".hidden", "a.reason", "a\nb", "ü" * 100, "...", *map(os.fsdecode, (b"\xff.log", b"\xff" * 250))],
    ids=range(8),
)
def test_every_name_can_be_set_aside_and_comes_back(places: Places, name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"content")

    places.failed.move(source / name, "reason")
    assert places.quarantine.get(places.only()).name == name
    places.quarantine.retry(places.only())

    assert (places.incoming / name).read_bytes() == b"content"
    assert names(places.failed.directory) == []


def test_a_file_set_aside_again_has_its_latest_reason(places: Places) -> None:
    places.failed.put(NAME, b"first", "first")
    places.failed.put(NAME, b"second", "second")

    [entry] = places.quarantine.entries()

    assert (entry.reason, entry.path.read_bytes()) == ("second", b"second")


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    prune = FailedFiles._prune

    def counting(self: FailedFiles) -> tuple[int, int]:
        nonlocal counted
        counted += 1
        return prune(self)

    monkeypatch.setattr(FailedFiles, "_prune", counting)
    failed = FailedFiles(tmp_path / "failed", max_files=20, max_bytes=2_000)
    for number in range(100):
        failed.put(f"{number:03d}.log", b"x" * 10, "reason")
        os.utime(failed.directory / f"{number:03d}.log", (number, number))
    few = failed.names()
    for number in range(100, 110):
        failed.put(f"{number:03d}.log", b"x" * 900, "reason")

    assert len(few) <= 20
    assert few[-1] == "099.log"
    assert len([one for one in failed.names() if one >= "100"]) <= 2
    assert failed.names()[-1] == "109.log"
    assert counted < 60, "most files are set aside without looking at the others"
    assert failed_files.MAX_FILES >= 10_000
