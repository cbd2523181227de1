# SPDX-License-Identifier: Apache-2.0
"""Files of nodes over a tree of relays: each relay has what the nodes below it may have, and nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.relaying.upstreams import Asked, Said, Upstream, conditional, upstream

from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import TreeDocument
from quarterdeck.relaying import policy_files
from quarterdeck.relaying.copies import PolicyCopy
from quarterdeck.relaying.folder_copies import SHARE, FolderCopy
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.policy_archives import Archives
from quarterdeck.relaying.policy_files import PolicyFiles
from quarterdeck.relaying.shared_folder import SharedFolder

NEAR = NodeId("1b000000-0000-4000-8000-000000000001")
DEEP = NodeId("1b000000-0000-4000-8000-000000000002")
ELSEWHERE = NodeId("1b000000-0000-4000-8000-000000000003")


class Giving:
    """A server that gives a relay the files of some nodes."""

    def __init__(self, server: Upstream, folder: SharedFolder, *nodes: NodeId) -> None:
        self.now = 0.0
        self.server = server
        self.tree = FolderTree(folder, clock=self._later, apart=True, name=SHARE.name)
        self.nodes = set(nodes)
        self.away = False
        #: digests of what comes altered
        self.altered: set[str] = set()
        server.answer = self.answer

    def _later(self) -> float:
        """Each look is of another moment."""
        self.now += 10.0
        return self.now

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        directories = policy_files.directories_for(self.nodes)
        if asked.target == relay_documents.PATH_SHARE:
            return conditional(asked, self.tree.document(directories))
        digest = asked.target.removeprefix(f"{relay_documents.PATH_SHARE}/")
        try:
            file = self.tree.open(digest, directories)
        except NotFound:
            return Said(404, b'{"code":"invalid","message":"There is no such file."}')
        with os.fdopen(file.descriptor, "rb") as opened:
            content = opened.read()
        return Said(200, content[::-1] if digest in self.altered else content)

    def fetched(self) -> int:
        """How many contents were asked for."""
        return sum(one.target.startswith(f"{relay_documents.PATH_SHARE}/") for one in self.server.asked)


class Chain:
    """root <- relay <- inner: NEAR is served by the relay, DEEP by the inner one, ELSEWHERE by the root."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.share = directory / "share"
        self.share.mkdir()
        self.root = Giving(stack.enter_context(upstream()), SharedFolder(self.share), NEAR, DEEP)
        self.relay = self.copy("relay", self.root)
        self.middle = Giving(stack.enter_context(upstream()), self.relay.folder, DEEP)
        self.inner = self.copy("inner", self.middle)

    def copy(self, name: str, above: Giving) -> FolderCopy:
        return FolderCopy(self.directory / name, above.server.link(), SHARE)

    def place(self, path: str, content: bytes) -> None:
        """Put a file there as a site's own pipeline does."""
        (self.share / path).parent.mkdir(parents=True, exist_ok=True)
        (self.share / path).write_bytes(content)

    def round(self) -> None:
        self.relay.refresh()
        self.inner.refresh()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with ExitStack() as stack:
        yield Chain(tmp_path, stack)


def served(copy: FolderCopy) -> dict[str, bytes]:
    root = copy.folder.root
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kept(directory: Path) -> set[bytes]:
    """Every content that lies at a relay."""
    return {path.read_bytes() for path in (directory / "objects").glob("??/*")}


def given(chain: Chain, copy: FolderCopy) -> Callable[[NodeId, str], bytes]:
    """Reads files as nodes get them at a relay that has none of its own."""

    def unsigned(_: NodeId) -> PolicyCopy:
        raise NotAccepted("This node has no policy yet.")

    def no_resource(_node: NodeId, _digest: str) -> bytes:
        raise AssertionError

    (chain.directory / "own").mkdir(exist_ok=True)
    files = PolicyFiles(
        share=SharedFolder(chain.directory / "own"),
        signed=unsigned,
        resource=no_resource,
        archives=Archives(directory=chain.directory, key=""),
        mirrored=copy.folder,
    )

    def read(node: NodeId, path: str) -> bytes:
        file = files.open(node, path) if node != policy_files.COMMON else files.open_common(path)
        with os.fdopen(file.descriptor, "rb") as opened:
            return opened.read()

    return read


def test_each_relay_gets_the_files_of_nodes_below_it_and_the_common_ones(chain: Chain) -> None:
    chain.place(f"{NEAR}/rules/near", b"for near")
    chain.place(f"{DEEP}/rules/dsc/rudder.zip", b"for deep")
    chain.place(f"{ELSEWHERE}/rules/secret", b"for elsewhere")
    chain.place("common/library", b"for all")

    chain.round()

    deep = {f"{DEEP}/rules/dsc/rudder.zip": b"for deep", "common/library": b"for all"}
    assert served(chain.relay) == deep | {f"{NEAR}/rules/near": b"for near"}
    assert served(chain.inner) == deep
    read = given(chain, chain.inner)
    assert read(DEEP, "rules/dsc/rudder.zip") == b"for deep"
    assert read(NodeId(policy_files.COMMON), "library") == b"for all"
    with pytest.raises(NotFound):
        read(NEAR, "rules/near")


def test_only_new_contents_are_fetched_each_once(chain: Chain) -> None:
    for node in (NEAR, DEEP):
        chain.place(f"{node}/same", b"the same for both")
    chain.place(f"{DEEP}/own", b"first")
    chain.round()
    before = chain.root.fetched(), chain.middle.fetched()

    chain.place(f"{DEEP}/own", b"second")
    (chain.share / NEAR / "same").unlink()
    chain.round()
    chain.round()

    assert before == (2, 2)
    assert (chain.root.fetched(), chain.middle.fetched()) == (3, 3)
    assert served(chain.inner) == {f"{DEEP}/same": b"the same for both", f"{DEEP}/own": b"second"}
    assert kept(chain.directory / "relay") == kept(chain.directory / "inner") == {b"the same for both", b"second"}


def test_nothing_stays_of_a_node_that_moves_away(chain: Chain) -> None:
    chain.place(f"{DEEP}/file", b"for deep")
    chain.place("common/file", b"for all")
    chain.round()

    chain.root.nodes.remove(DEEP)
    chain.middle.nodes.remove(DEEP)
    chain.round()

    for name, copy in (("relay", chain.relay), ("inner", chain.inner)):
        assert served(copy) == {"common/file": b"for all"}
        assert kept(chain.directory / name) == {b"for all"}
        with pytest.raises(NotFound):
            given(chain, copy)(DEEP, "file")


def test_while_the_server_is_away_nodes_get_what_was_mirrored_also_after_a_restart(chain: Chain) -> None:
    chain.place(f"{DEEP}/file", b"for deep")
    chain.round()
    chain.root.away = chain.middle.away = True

    with pytest.raises(Unavailable):
        chain.inner.refresh()
    again = chain.copy("inner", chain.middle)

    assert given(chain, again)(DEEP, "file") == given(chain, chain.inner)(DEEP, "file") == b"for deep"


def test_who_knows_a_digest_gets_no_content_of_other_nodes(chain: Chain) -> None:
    chain.place(f"{ELSEWHERE}/secret", b"for elsewhere")
    chain.place("at-the-top", b"of nobody")
    chain.place(f"{ELSEWHERE}/both", b"for both")
    chain.place(f"{DEEP}/both", b"for both")
    chain.round()
    tree, mine = chain.root.tree, policy_files.directories_for([DEEP])

    for content in (b"for elsewhere", b"of nobody"):
        with pytest.raises(NotFound):
            tree.open(agent.digest(content), mine)
    tree.open(agent.digest(b"for both"), mine).close()
    assert sorted(tree.directories_with(agent.digest(b"for both"))) == [DEEP, ELSEWHERE]
    assert tree.directories_with(agent.digest(b"of nobody")) == []


def test_no_link_leads_to_another_nodes_files(chain: Chain) -> None:
    chain.place(f"{ELSEWHERE}/secret", b"for elsewhere")
    chain.place(f"{DEEP}/real", b"for deep")
    (chain.directory / "outside").write_bytes(b"outside")
    (chain.share / DEEP / "link").symlink_to("real")
    (chain.share / DEEP / "theirs").symlink_to(f"../{ELSEWHERE}/secret")
    (chain.share / DEEP / "outside").symlink_to(chain.directory / "outside")

    found = relay_documents.decode(chain.root.tree.document({DEEP}), TreeDocument).files

    assert set(found) == {f"{DEEP}/real", f"{DEEP}/link"}


def test_what_cannot_be_fetched_is_told_once_until_it_changes_or_comes(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "quarterdeck.relaying.folder_copies")
    chain.place(f"{NEAR}/file", b"for near")
    chain.root.altered = {agent.digest(b"for near"), agent.digest(b"other")}

    told = []
    for content in (b"for near", b"for near", b"other", b"other"):
        chain.place(f"{NEAR}/file", content)
        chain.relay.refresh()
        told.append(len(caplog.records))
    chain.root.altered = set()
    chain.relay.refresh()
    chain.relay.refresh()

    assert told == [1, 1, 2, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert served(chain.relay) == {f"{NEAR}/file": b"other"}
