# SPDX-License-Identifier: Apache-2.0
"""The drop directory: what is read, what is refused and why, what waits."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.common import genuine

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.engine import inventory_watcher
from quarterdeck.engine.inventory_watcher import InventoryWatcher
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

NODE = "17dadf50-6056-4c8b-a935-6b97d14b89a7"


@pytest.fixture
def database(fresh_postgres_url: str) -> Iterator[Database]:
    database = Database(fresh_postgres_url, pool_size=2)
    yield database
    database.close()


def watcher_of(database: Database, directory: Path, *, pause_seconds: float = 0.05) -> InventoryWatcher:
    @contextmanager
    def unit_of_work() -> Iterator[Context]:
        with database.unit_of_work(Provenance(actor="tests")) as store:
            yield Context(account=SYSTEM, store=store)
            store.commit()

    for name in ("incoming", "accepted-nodes-updates", "received", "failed"):
        (directory / name).mkdir()
    return InventoryWatcher(directory, unit_of_work, pause_seconds=pause_seconds, settled_seconds=0, orphan_seconds=60)


def drop(directory: Path, name: str, content: bytes, *, sign_ending: str = ".sign") -> None:
    (directory / "incoming" / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (directory / "incoming" / f"{name.removesuffix('.gz')}{sign_ending}").write_bytes(genuine.sign_file(content))


def names(directory: Path, place: str) -> list[str]:
    return sorted(path.name for path in (directory / place).iterdir())


def status(database: Database, node: str) -> NodeStatus | None:
    with database.unit_of_work(Provenance(actor="tests")) as store:
        return next(iter(store.nodes.statuses([node]).values()), None)


@pytest.mark.parametrize("name", ["node.ocs", "node.xml", "node.xml.gz"])
def test_a_signed_inventory_becomes_a_pending_node_and_is_moved(name: str, database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    drop(tmp_path, name, genuine.inventory(NODE, "node1.example.com"))

    assert watcher.look() == 1

    assert status(database, NODE) is NodeStatus.PENDING
    assert names(tmp_path, "incoming") == []
    assert name in names(tmp_path, "received")


def test_the_date_in_a_name_goes_so_that_the_next_one_overwrites(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)

    for day in ("01", "02"):
        drop(tmp_path, f"node1-{NODE}_2026-01-{day}.ocs", genuine.inventory(NODE, f"node{day}.example.com"))
        watcher.look()

    assert names(tmp_path, "received") == [f"node1-{NODE}.ocs", f"node1-{NODE}.ocs.sign"]
    assert b"node02.example.com" in (tmp_path / "received" / f"node1-{NODE}.ocs").read_bytes()


def test_a_wrong_signature_is_refused_with_its_reason(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    drop(tmp_path, "bad.ocs", genuine.inventory(NODE, "node1.example.com"))
    (tmp_path / "incoming" / "bad.ocs.sign").write_bytes(genuine.sign_file(b"something else"))
    drop(tmp_path, "good.ocs", genuine.inventory(NODE.replace("17", "27"), "node2.example.com"))

    assert watcher.look() == 1

    log, *files = names(tmp_path, "failed")[1:2], *names(tmp_path, "failed")
    assert [name for name in files if not name.endswith(".log")] == ["bad.ocs", "bad.ocs.sign"]
    assert "signature is not valid" in (tmp_path / "failed" / log[0]).read_text()
    assert status(database, NODE) is None


@pytest.mark.parametrize("content", [b"no xml", b"<REQUEST/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_what_is_no_inventory_is_refused(content: bytes, database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    drop(tmp_path, "bad.ocs", content)

    assert watcher.look() == 0

    assert "bad.ocs" in names(tmp_path, "failed")


def test_a_very_long_name_does_not_stop_the_others(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    long = "a" * 245 + ".ocs"
    drop(tmp_path, long, b"no xml")
    drop(tmp_path, "good.ocs", genuine.inventory(NODE, "node1.example.com"))

    assert watcher.look() == 1

    assert long in names(tmp_path, "failed")
    assert names(tmp_path, "incoming") == []


def test_of_what_was_refused_only_the_newest_is_kept(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory_watcher, "MAX_FAILED", 6)
    watcher = watcher_of(database, tmp_path)
    for number in range(5):
        drop(tmp_path, f"bad{number}.ocs", b"no xml")
        watcher.look()

    kept = names(tmp_path, "failed")
    assert len(kept) == 6
    assert {"bad3.ocs", "bad4.ocs", "bad4.ocs.sign"} <= set(kept)


def test_an_inventory_waits_for_its_signature_but_not_for_ever(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    path = tmp_path / "incoming" / "node.ocs"
    path.write_bytes(genuine.inventory(NODE, "node1.example.com"))

    watcher.look()
    assert names(tmp_path, "incoming") == ["node.ocs"]

    os.utime(path, (time.time() - 100, time.time() - 100))
    watcher.look()
    assert names(tmp_path, "incoming") == []
    assert names(tmp_path, "failed")[0] == "node.ocs"


def test_a_signature_without_inventory_is_cleared_away(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    path = tmp_path / "incoming" / "node.ocs.sign"
    path.write_bytes(b"")
    os.utime(path, (time.time() - 100, time.time() - 100))

    watcher.look()

    assert names(tmp_path, "incoming") == []


def test_while_the_database_is_away_inventories_wait(tmp_path: Path) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    watcher = watcher_of(database, tmp_path)
    drop(tmp_path, "node.ocs", genuine.inventory(NODE, "node1.example.com"))

    with pytest.raises(Unavailable):
        watcher.look()

    assert names(tmp_path, "incoming") == ["node.ocs", "node.ocs.sign"]


def test_it_looks_only_while_it_is_started(database: Database, tmp_path: Path) -> None:
    watcher = watcher_of(database, tmp_path)
    watcher.start()
    watcher.start()
    assert watcher.running

    drop(tmp_path, "first.ocs", genuine.inventory(NODE, "node1.example.com"))
    end = time.monotonic() + 10
    while names(tmp_path, "incoming") and time.monotonic() < end:
        time.sleep(0.02)
    assert names(tmp_path, "incoming") == []

    watcher.stop()
    watcher.stop()
    assert not watcher.running
    drop(tmp_path, "second.ocs", genuine.inventory(NODE, "node1.example.com"))
    time.sleep(0.2)
    assert names(tmp_path, "incoming") == ["second.ocs", "second.ocs.sign"]
