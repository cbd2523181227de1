# SPDX-License-Identifier: Apache-2.0
"""Files of techniques at a relay: what the policies below name, each content once, and given to whom it is meant for."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from tests.relaying.disks import fill, tiny_disk
from tests.relaying.upstreams import Asked, Said, Upstream, conditional

from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, relay_documents
from quarterdeck.relaying.copies import PolicyCopies
from quarterdeck.relaying.resource_copies import ResourceCopies

NEAR = NodeId("1b000000-0000-4000-8000-000000000001")
DEEP = NodeId("1b000000-0000-4000-8000-000000000002")


class Above:
    """A server above: the files that each node's policy names, by node, and what it gives for a content."""

    def __init__(self) -> None:
        self.files: dict[NodeId, list[bytes]] = {}
        #: given in place of a content
        self.instead: dict[bytes, bytes] = {}
        self.away = False
        self.asked: list[str] = []

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        if asked.target == relay_documents.PATH_POLICIES:
            ids = {node: agent.digest(self.policy(node)) for node in self.files}
            return conditional(asked, relay_documents.encode(ids))
        name = asked.target.rpartition("/")[2]
        if asked.target.startswith(relay_documents.PATH_POLICIES):
            body = self.policy(NodeId(name))
            return Said(200, body, {"ETag": f'"{agent.digest(body)}"', agent.HEADER_SIGNATURE: "c2ln"})
        self.asked.append(name)
        for content in {content for some in self.files.values() for content in some}:
            if agent.digest(content) == name:
                return Said(200, self.instead.get(content, content))
        return Said(404, b'{"code":"invalid","message":"No policy of yours names it."}')

    def policy(self, node: NodeId) -> bytes:
        named = [
            {"path": str(number), "sha256": agent.digest(one), "size": len(one)}
            for number, one in enumerate(self.files[node])
        ]
        return json.dumps({"node": node, "policies": [{"resources": named}, {}]}, separators=(",", ":")).encode()


@pytest.fixture
def above(server: Upstream) -> Above:
    made = Above()
    server.answer = made.answer
    return made


class Copies:
    """A relay's mirror of policies and of the files that they name."""

    def __init__(self, directory: Path, server: Upstream) -> None:
        (directory / "policies").mkdir(exist_ok=True)
        self.policies = PolicyCopies(directory / "policies", server.link())
        self.directory = directory / "resources"
        self.resources = ResourceCopies(
            self.directory, self.policies, mirrored=server.link(), for_nodes=server.link(rest_seconds=60.0)
        )

    def round(self) -> int:
        self.policies.refresh()
        return self.resources.refresh()

    def read(self, node: NodeId, content: bytes) -> bytes:
        return read(*self.resources.open(node, agent.digest(content)))

    def kept(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.directory.glob("??/*"))


def read(descriptor: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size + 1, 0)
    finally:
        os.close(descriptor)


def test_each_content_comes_once_and_goes_when_no_policy_names_it(
    tmp_path: Path, above: Above, server: Upstream
) -> None:
    above.files = {NEAR: [b"one", b"both"], DEEP: [b"both"]}
    copies = Copies(tmp_path, server)

    first, second = copies.round(), copies.round()
    above.files = {NEAR: [b"two", b"both"], DEEP: []}
    third = copies.round()

    assert (first, second, third) == (2, 0, 1)
    assert sorted(above.asked) == sorted(map(agent.digest, (b"one", b"both", b"two")))
    assert copies.kept() == [b"both", b"two"]
    above.files = {}
    copies.round()
    assert copies.kept() == []


def test_while_the_server_is_away_nodes_get_what_is_here_also_after_a_restart(
    tmp_path: Path, above: Above, server: Upstream
) -> None:
    above.files = {NEAR: [b"one"]}
    Copies(tmp_path, server).round()
    above.away = True

    again = Copies(tmp_path, server)

    assert again.read(NEAR, b"one") == b"one"
    with pytest.raises(Unavailable):
        again.round()
    assert again.kept() == [b"one"]


def test_a_node_gets_what_its_own_policy_names_and_nothing_else(tmp_path: Path, above: Above, server: Upstream) -> None:
    above.files = {NEAR: [b"one"], DEEP: [b"two"]}
    copies = Copies(tmp_path, server)
    copies.round()

    assert copies.read(NEAR, b"one") == b"one"
    for content in (b"two", b"nobody's"):
        with pytest.raises(NotFound):
            copies.read(NEAR, content)
    for odd in ("", "../../policies/x", "x" * 64):
        with pytest.raises(NotFound):
            copies.resources.open(NEAR, odd)


def test_a_relay_gets_what_some_policy_below_it_names(tmp_path: Path, above: Above, server: Upstream) -> None:
    above.files = {NEAR: [b"one"], DEEP: [b"two"]}
    copies = Copies(tmp_path, server)
    copies.policies.refresh()

    before = read(*copies.resources.open_for([DEEP], agent.digest(b"two")))
    copies.resources.refresh()
    after = read(*copies.resources.open_for([DEEP], agent.digest(b"two")))

    assert (before, after) == (b"two", b"two")
    with pytest.raises(NotFound):
        copies.resources.open_for([DEEP], agent.digest(b"one"))
    with pytest.raises(NotFound):
        copies.resources.open_for([], agent.digest(b"one"))


def test_what_a_newer_policy_names_is_fetched_when_a_node_asks(tmp_path: Path, above: Above, server: Upstream) -> None:
    above.files = {NEAR: [b"one"]}
    copies = Copies(tmp_path, server)
    copies.round()
    above.files = {NEAR: [b"two"]}

    assert copies.read(NEAR, b"two") == b"two"
    assert copies.kept() == [b"one", b"two"]
    copies.resources.refresh()
    assert copies.kept() == [b"two"], "what a node asked for between two rounds stays"


@pytest.mark.parametrize("instead", [b"eno", b"one and more", b""])
def test_another_content_is_not_kept_and_does_not_hold_up_others(
    tmp_path: Path, above: Above, server: Upstream, instead: bytes
) -> None:
    above.files = {NEAR: [b"one", b"two"]}
    above.instead = {b"one": instead}
    copies = Copies(tmp_path, server)

    copies.round()

    assert copies.kept() == [b"two"]
    with pytest.raises(Unavailable):
        copies.read(NEAR, b"one")
    assert [path.name for path in copies.directory.iterdir() if path.is_file()] == []
    above.instead = {}
    assert copies.round() == 1
    assert copies.kept() == [b"one", b"two"]


def test_what_cannot_be_had_is_told_once_until_it_comes_or_fails_otherwise(
    tmp_path: Path, above: Above, server: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "quarterdeck.relaying.resource_copies")
    above.files, above.instead = {NEAR: [b"one", b"two"]}, {b"one": b"eno", b"two": b"owt"}
    copies = Copies(tmp_path, server)

    told = []
    for instead in ({b"one": b"eno", b"two": b"owt"}, {b"one": b"eno"}, {b"one": b"far too long"}, {}, {}):
        above.instead = instead
        for _ in range(2):
            copies.round()
        told.append([record.levelname for record in caplog.records])
        caplog.clear()

    assert told == [["WARNING", "WARNING"], ["INFO"], ["WARNING"], ["INFO"], []]


def test_what_nobody_needs_any_more_may_be_told_of_again(
    tmp_path: Path, above: Above, server: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    above.instead = {b"one": b"eno"}
    copies = Copies(tmp_path, server)

    for files in ([b"one"], [], [b"one"]):
        above.files = {NEAR: files}
        copies.round()

    assert len(caplog.records) == 2


def test_a_full_disk_costs_what_does_not_fit_and_no_policy(tmp_path: Path, above: Above, server: Upstream) -> None:
    large = os.urandom(100_000)
    above.files = {NEAR: [large]}
    with tiny_disk(tmp_path / "disk", 512) as disk:
        copies = Copies(disk, server)
        copies.policies.refresh()
        fill(disk / "ballast")

        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be kept here"):
                copies.read(NEAR, large)
        (disk / "ballast").unlink()

        assert copies.read(NEAR, large) == large, "the server above was not taken for one that does not answer"
