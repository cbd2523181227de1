# SPDX-License-Identifier: Apache-2.0
"""A relay as it is wired, asked for files of nodes by the nodes below it and by the relays below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemon.wired_relays import DEEP, INNER, NEAR, Above, Below, refused, wired
from tests.relaying.upstreams import Asked, Said, conditional

from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import FileEntry, TreeDocument


class Root(Above):
    """The server above, which has files for nodes."""

    files: dict[str, bytes]

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        if asked.target == relay_documents.PATH_SHARE:
            tree = {path: FileEntry(agent.digest(one), len(one), 10**18) for path, one in self.files.items()}
            return conditional(asked, relay_documents.encode(TreeDocument(tree)))
        if asked.target.startswith(relay_documents.PATH_SHARE):
            digest = asked.target.rpartition("/")[2]
            return Said(200, next(one for one in self.files.values() if agent.digest(one) == digest))
        return super().answer(asked)


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    above = Root()
    above.files = {
        f"{NEAR.node}/rules/file": b"for near",
        f"{NEAR.node}/rules/dsc/rudder.zip": b"archive for near",
        f"{DEEP.node}/rules/file": b"for deep",
        "common/library": b"for all",
    }
    with wired(above, tmp_path, {"relay.allowed_networks": ["192.0.2.0/24"]}) as made:
        made.relay.mirror.round()
        yield made


def test_a_node_gets_its_files_at_its_relay_also_without_the_server(below: Below) -> None:
    below.above.away = True

    for path, content in (("rules/file", b"for near"), ("rules/dsc/rudder.zip", b"archive for near")):
        answer = below.get(NEAR, f"/policies/{NEAR.node}/{path}")
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert below.client.get("/common/library").content == b"for all"
    assert below.get(NEAR, f"/policies/{DEEP.node}/rules/file").status_code == 403


def test_what_lies_at_the_relay_itself_is_given_first_and_stays_there(below: Below) -> None:
    own = below.data / "share" / NEAR.node / "rules" / "file"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"of the relay")

    assert below.get(NEAR, f"/policies/{NEAR.node}/rules/file").content == b"of the relay"
    assert b"of the relay" not in [path.read_bytes() for path in (below.data / "mirror").rglob("*") if path.is_file()]


def test_a_relay_below_gets_the_files_of_its_own_nodes(below: Below) -> None:
    answer = below.get(INNER, relay_documents.PATH_SHARE)
    found = relay_documents.decode(answer.content, TreeDocument).files

    assert set(found) == {f"{DEEP.node}/rules/file", "common/library"}
    for content, expected in ((b"for deep", 200), (b"for all", 200), (b"for near", 404)):
        got = below.get(INNER, f"{relay_documents.PATH_SHARE}/{agent.digest(content)}")
        assert got.status_code == expected
        assert expected == 404 or got.content == content
    assert below.get(INNER, relay_documents.PATH_SHARE, answer.headers["etag"]).status_code == 304
    for path in (relay_documents.PATH_SHARE, f"{relay_documents.PATH_SHARE}/{agent.digest(b'for all')}"):
        assert refused(below.get(NEAR, path)) == (403, "invalid")


def test_a_node_that_is_no_longer_below_leaves_nothing(below: Below) -> None:
    assert isinstance(below.above, Root)
    del below.above.listed[NEAR.node]
    below.above.files = {path: one for path, one in below.above.files.items() if not path.startswith(NEAR.node)}

    below.relay.mirror.round()

    assert below.get(NEAR, f"/policies/{NEAR.node}/rules/file").status_code in (401, 403)
    share = below.data / "mirror" / "share"
    assert {path.read_bytes() for path in (share / "objects").rglob("*") if path.is_file()} == {b"for deep", b"for all"}
