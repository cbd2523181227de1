# SPDX-License-Identifier: Apache-2.0
"""When relays were heard of, what they said, and how that goes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.core.ids import NodeId
from quarterdeck.formats import relay_states
from quarterdeck.formats.relay_states import Below, State, Told
from quarterdeck.relaying.contacts import Contact, Contacts
from quarterdeck.relaying.metrics import queued

NEAR, DEEP, DEEPER = NodeId("near"), NodeId("deep"), NodeId("deeper")
BUSY = State(version="1.2", waiting=3, oldest=7.5)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_deep_relays_say_arrives_at_the_root(tmp_path: Path, clock: Clock) -> None:
    middle, root = Contacts(tmp_path / "middle.json", clock), Contacts(tmp_path / "root.json", clock)
    middle.hear(DEEP, relay_states.written(Told(BUSY, {DEEPER: Below(State(version="1.1"), 2.0, "https://deeper")})))
    clock.now += 10

    root.hear(NEAR, relay_states.written(Told(State(version="1.3"), middle.below({DEEP: "https://deep"}.get))))
    clock.now += 5

    assert root.of(NEAR) == Contact(1010.0, State(version="1.3"))
    assert root.of(DEEP, NEAR) == Contact(1000.0, BUSY, "https://deep")
    assert root.of(DEEPER, NEAR) == Contact(998.0, State(version="1.1"), "https://deeper")
    assert root.of(DEEP) is None
    assert root.of(DEEP, DEEPER) is None


def test_a_relay_that_has_moved_is_where_it_was_heard_of_last(tmp_path: Path, clock: Clock) -> None:
    contacts = Contacts(tmp_path / "contacts.json", clock)
    contacts.hear(DEEP, "")
    clock.now += 100

    contacts.hear(NEAR, relay_states.written(Told(below={DEEP: Below(BUSY, 1.0, "https://new")})))

    below = contacts.below({DEEP: "https://old"}.get)
    assert below[DEEP] == Below(BUSY, 1.0, "https://new")
    assert list(below) == [NEAR, DEEP]


def test_contacts_outlive_a_restart(tmp_path: Path, clock: Clock) -> None:
    Contacts(tmp_path / "contacts.json", clock).hear(NEAR, relay_states.written(Told(BUSY)))

    assert Contacts(tmp_path / "contacts.json", clock).of(NEAR) == Contact(1000.0, BUSY)


def test_they_are_written_once_a_minute_at_most(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "contacts.json"
    contacts = Contacts(path, clock)
    contacts.hear(NEAR, "")
    first = path.read_bytes()
    clock.now += 59
    contacts.hear(NEAR, "")
    then = path.read_bytes()
    clock.now += 2
    contacts.hear(NEAR, "")

    assert then == first
    assert path.read_bytes() != first


@pytest.mark.parametrize("content", [b"", b"{", b'{"near": 3}'])
def test_a_damaged_file_is_no_obstacle(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "contacts.json").write_bytes(content)

    assert Contacts(tmp_path / "contacts.json").of(NEAR) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"state": 3}', '{"below": {"deep": {}}}', '{"state": {"waiting": "x"}}'])
def test_what_cannot_be_read_counts_as_a_contact_that_says_nothing(text: str, tmp_path: Path, clock: Clock) -> None:
    contacts = Contacts(tmp_path / "contacts.json", clock)

    contacts.hear(NEAR, text)

    assert contacts.of(NEAR) == Contact(1000.0, State())


def test_a_header_stays_short_whatever_is_below() -> None:
    below = {f"relay-{number:04}": Below(BUSY, 1.0, f"https://größe-{number}.example.org") for number in range(500)}

    text = relay_states.written(Told(BUSY, below))

    read = relay_states.read(text)
    assert len(text) <= relay_states.LONGEST
    assert text.isascii()
    assert read.state == BUSY
    assert 30 < len(read.below) < 500
    assert read.below["relay-0000"] == below["relay-0000"]


def test_queues_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.batch").touch()
    (tmp_path / "one" / "a.lock").touch()
    since = (tmp_path / "one" / "a.batch").stat().st_mtime

    count, oldest = queued([tmp_path / "one", tmp_path / "missing"], since + 4)

    assert count == 1
    assert oldest == pytest.approx(4.0)
    assert queued([tmp_path / "missing"], since) == (0, 0.0)
