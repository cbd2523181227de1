# SPDX-License-Identifier: Apache-2.0
"""Real disks that are full: what is refused leaves nothing half-written, what was acknowledged stays whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.agents import Agent
from tests.dialects.relay.conftest import shared
from tests.relaying.disks import fill, tiny_disk

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.formats import nodes_list
from quarterdeck.relaying import spool
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.shared_files import Address, SharedFiles
from quarterdeck.relaying.spool import Drain, Rejection, Spool

ME = NodeId("1b000000-0000-4000-8000-00000000000a")
NODE = Agent(hostname="web1.example.com", key_number=1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "disk", 256) as made:
        yield made


def waiting(disk: Path) -> list[bytes]:
    return [record for path in spool.pending(disk) for record in spool.records(path)]


def test_a_spool_keeps_what_it_acknowledged_and_goes_on_when_there_is_space(disk: Path) -> None:
    writer = Spool(disk, reserve_bytes=0)
    acknowledged, refused = [], 0
    for _ in range(40):
        record = os.urandom(10_000)
        try:
            writer.append(record)
        except Unavailable:
            refused += 1
        else:
            acknowledged.append(record)
    before = waiting(disk)

    taken: list[bytes] = []

    def take(batch: Sequence[bytes]) -> list[Rejection]:
        taken.extend(batch)
        return []

    Drain(disk, take).once()
    writer.append(b"afterwards")

    assert refused >= 10
    assert before == taken == acknowledged
    assert waiting(disk) == [b"afterwards"]


def test_several_reports_that_do_not_fit_are_refused_together(disk: Path) -> None:
    writer = Spool(disk, reserve_bytes=0)
    writer.append(b"first")

    with pytest.raises(Unavailable):
        writer.append_all([os.urandom(100_000) for _ in range(3)])

    assert waiting(disk) == [b"first"]


def test_what_cannot_be_set_aside_stays_where_it_is(disk: Path) -> None:
    writer = Spool(disk, reserve_bytes=0)
    writer.append(b"poison" * 1000)
    fill(disk / "ballast")
    drain = Drain(disk, lambda batch: [Rejection(0, "bad")])

    with pytest.raises(OSError, match="No space left"):
        drain.once()
    kept = waiting(disk)
    (disk / "ballast").unlink()
    drain.once()

    assert kept == [b"poison" * 1000]
    assert waiting(disk) == []
    (record, _) = sorted((disk / "quarantine").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert record.read_bytes() == b"poison" * 1000


def test_a_parcel_that_cannot_be_set_aside_leaves_no_reason_either(disk: Path) -> None:
    failed = FailedFiles(disk / "failed")

    with pytest.raises(OSError, match="No space left"):
        failed.put("one.parcel", os.urandom(400_000), "bad")

    assert list((disk / "failed").iterdir()) == []


def test_a_shared_file_that_does_not_fit_leaves_the_old_one_whole(disk: Path) -> None:
    node = NodeId(NODE.node)
    listed = ListedNode(NODE.hostname, ME, nodes_list.hash_of(NODE.certificate))
    listing = Listing(topology=Topology(ME, {node: listed}), keys={node: (NODE.certificate,)})
    files = SharedFiles(disk, NodesList(lambda: listing))
    address = Address(target=node, source=node, file="name")
    assert files.take(address, "1d", io.BytesIO(shared(NODE, b"old"))) is None

    with pytest.raises(Unavailable, match="could not be kept"):
        files.take(address, "1d", io.BytesIO(shared(NODE, os.urandom(400_000))))

    content, metadata = files.give(address)
    with content:
        assert content.read() == b"old"
    assert metadata.expires is not None
    assert sorted(path.name for path in (disk / node / "files" / node).iterdir()) == ["name", "name.metadata"]
