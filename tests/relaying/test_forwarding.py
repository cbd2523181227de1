# SPDX-License-Identifier: Apache-2.0
"""The way up: nothing leaves the spool before the server above has it, whatever that one does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemon.servers import eventually
from tests.relaying.upstreams import Asked, Said, Upstream, upstream

from quarterdeck.core.errors import Unavailable
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import Refused, Slip, Taken
from quarterdeck.relaying import pauses, spool
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.forwarding import Forwarder
from quarterdeck.relaying.spool import Spool

NODE = "1b000000-0000-4000-8000-000000000001"


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


class Way:
    """A spool, and the way up from it."""

    def __init__(self, directory: Path, above: Upstream) -> None:
        self.spool = Spool(directory / "spool", reserve_bytes=0)
        self.failed = FailedFiles(directory / "failed")
        self.counters = Counters()
        self.forwarder = Forwarder(
            self.spool.directory,
            above.link(answer_seconds=0.5),
            self.failed,
            self.counters,
        )

    def counted(self) -> tuple[float, float]:
        """How many went up, and how many never will."""
        found = self.counters.snapshot()
        return found["reports.forward_ok"], found["reports.forward_error"]

    def waiting(self) -> int:
        return sum(1 for path in spool.pending(self.spool.directory) for _ in spool.records(path))


@pytest.fixture
def way(tmp_path: Path, above: Upstream) -> Way:
    return Way(tmp_path, above)


def record(number: int) -> bytes:
    return relay_documents.pack_slip(Slip("report", NODE, 1.0), b"parcel %d" % number)


def takes(*refused: Refused) -> Said:
    return Said(202, relay_documents.encode(Taken(refused)))


def test_parcels_go_up_together_signed_and_leave_the_spool(above: Upstream, way: Way) -> None:
    above.answer = lambda _: takes()
    way.spool.append_all([record(1), record(2)])

    carried = way.forwarder.once()

    (asked,) = above.asked
    assert carried == 2
    assert (asked.method, asked.target) == ("POST", relay_documents.PATH_PARCELS)
    assert relay_documents.unpack_batch(asked.body) == [record(1), record(2)]
    assert agent.HEADER_SIGNATURE.lower() in asked.headers
    assert (way.waiting(), way.counted()) == (0, (2, 0))


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_an_answer_that_may_change_leaves_everything_in_the_spool(above: Upstream, way: Way, status: int) -> None:
    above.answer = lambda _: Said(status, b"")
    way.spool.append(record(1))

    with pytest.raises(Unavailable):
        way.forwarder.once()

    assert (way.waiting(), way.failed.names()) == (1, [])
    above.answer = lambda _: takes()
    assert way.forwarder.once() == 1
    assert way.waiting() == 0


def test_an_answer_of_somebody_else_counts_as_none(above: Upstream, way: Way) -> None:
    above.answer = lambda _: Said(202, b"<html>a captive portal</html>")
    way.spool.append(record(1))

    with pytest.raises(Unavailable):
        way.forwarder.once()

    assert way.waiting() == 1


def test_a_server_that_hangs_is_given_up_in_time(above: Upstream, way: Way) -> None:
    release = threading.Event()
    above.answer = lambda _: Said(202, wait=release)
    way.spool.append(record(1))

    with pytest.raises(Unavailable):
        way.forwarder.once()
    release.set()

    assert way.waiting() == 1


def test_what_is_refused_for_good_is_set_aside_with_the_reason(above: Upstream, way: Way) -> None:
    above.answer = lambda _: takes(Refused(1, "There is no such node.", "invalid"))
    way.spool.append_all([record(1), record(2), record(3)])

    way.forwarder.once()

    (name,) = way.failed.names()
    path = way.failed.path(name)
    assert path is not None
    assert path.read_bytes() == record(2)
    assert (way.failed.reason(name).reason, way.failed.reason(name).kind) == ("There is no such node.", "invalid")
    assert (way.waiting(), way.counted()) == (0, (2, 1))


def test_a_batch_that_is_refused_as_a_whole_is_halved_until_the_poison_stands_alone(above: Upstream, way: Way) -> None:
    def answer(asked: Asked) -> Said:
        return Said(400, b'{"message":"poison"}') if record(3) in relay_documents.unpack_batch(asked.body) else takes()

    above.answer = answer
    way.spool.append_all([record(number) for number in range(5)])

    way.forwarder.once()

    (name,) = way.failed.names()
    path = way.failed.path(name)
    assert path is not None
    assert path.read_bytes() == record(3)
    assert way.counted() == (4, 1)
    assert way.waiting() == 0


def test_after_an_outage_everything_goes_up_without_a_restart(
    above: Upstream, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.05)
    above.answer = lambda _: Said(503)
    stop = threading.Event()
    running = threading.Thread(target=way.forwarder.run, args=(stop,))
    way.spool.append(record(1))
    running.start()
    try:
        assert eventually(lambda: len(above.asked) >= 3, 10)
        way.spool.append(record(2))
        above.answer = lambda _: takes()

        assert eventually(lambda: way.waiting() == 0, 10)
    finally:
        stop.set()
        running.join()
    assert way.counted() == (2, 0)
    assert way.counters.snapshot()["transient_failures"] >= 2


def test_a_clock_that_is_off_is_put_right_by_the_answer(above: Upstream, way: Way) -> None:
    def answer(asked: Asked) -> Said:
        moment = int(asked.headers[agent.HEADER_TIME.lower()])
        if moment < 4_000_000_000:
            return Said(401, b'{"code":"clock_skew","server_time":4000000000}')
        return takes()

    above.answer = answer
    way.spool.append(record(1))

    assert way.forwarder.once() == 1


def test_pauses_grow_and_are_spread() -> None:
    found = [[pauses.after(failures) for _ in range(50)] for failures in (0, 3, 30)]

    assert [
        (min(some) >= low, max(some) <= high)
        for some, (low, high) in zip(found, [(0.25, 0.5), (2.0, 4.0), (30.0, 60.0)], strict=True)
    ] == [(True, True)] * 3
    assert all(len(set(some)) > 1 for some in found)
