# SPDX-License-Identifier: Apache-2.0
"""What a relay keeps of the server above it: whole states of the shared folder, policies, the nodes list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents import Agent
from tests.relaying.disks import fill, tiny_disk
from tests.relaying.upstreams import RELAY, Asked, Folder, Said, Upstream, conditional, upstream

from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.agent_copies import AgentCopy
from quarterdeck.relaying.copies import NodesCopy, PolicyCopies, document_below
from quarterdeck.relaying.folder_copies import FolderCopy
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.mirror import Mirror
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.resource_copies import ResourceCopies
from quarterdeck.relaying.shared_folder import SharedFolder

NODE = NodeId("1b000000-0000-4000-8000-000000000001")
INNER = NodeId("1b000000-0000-4000-8000-00000000000b")
DEEP = NodeId("1b000000-0000-4000-8000-000000000002")


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture
def folder(above: Upstream) -> Folder:
    made = Folder()
    above.answer = made.answer
    return made


def served(copy: FolderCopy) -> dict[str, bytes]:
    """Every file as nodes get it."""
    root = copy.folder.root
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            with copy.folder.opened(path.relative_to(root).parts) as file:
                found[path.relative_to(root).as_posix()] = os.pread(file.descriptor, file.size, 0)
    return found


def fetched(above: Upstream) -> int:
    """How many contents were asked for."""
    return sum(one.target.startswith(relay_documents.PATH_FILES) for one in above.asked)


# -- the shared folder ---------------------------------------------------------------------------


def test_the_folder_is_mirrored_and_only_new_contents_are_fetched(
    tmp_path: Path, above: Upstream, folder: Folder
) -> None:
    folder.files = {"a": b"one", "deep/er/b": b"two", "same": b"one"}
    copy = FolderCopy(tmp_path, above.link())

    first = copy.refresh()
    after_first = fetched(above)
    unchanged = copy.refresh()
    folder.files = {"a": b"one", "deep/er/b": b"changed"}
    changed = copy.refresh()

    assert (first, unchanged, changed) == (True, False, True)
    assert (after_first, fetched(above)) == (2, 3)
    assert served(copy) == folder.files
    assert sorted(path.name for path in (tmp_path / "objects").glob("??/*")) == sorted(
        map(agent.digest, (b"one", b"changed"))
    )


def test_after_a_restart_the_last_state_is_served_without_asking(
    tmp_path: Path, above: Upstream, folder: Folder
) -> None:
    folder.files = {"a": b"one"}
    FolderCopy(tmp_path, above.link()).refresh()
    above.asked.clear()

    again = FolderCopy(tmp_path, above.link())

    assert served(again) == {"a": b"one"}
    assert again.refresh() is False
    assert fetched(above) == 0


def test_a_content_that_is_not_what_it_claims_is_not_served_and_holds_up_nobody(
    tmp_path: Path, above: Upstream, folder: Folder
) -> None:
    folder.files = {"a": b"old"}
    copy = FolderCopy(tmp_path, above.link(rest_seconds=5.0))
    copy.refresh()
    folder.files = {"a": b"new", "b": b"beside"}
    folder.altered = {agent.digest(b"new")}

    copy.refresh()

    assert served(copy) == {"a": b"old", "b": b"beside"}
    folder.altered = set()
    assert copy.refresh()
    assert served(copy) == folder.files


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "a//b", "a\\b", "", "nul\0"])
def test_paths_that_lead_elsewhere_are_left_out(tmp_path: Path, above: Upstream, folder: Folder, path: str) -> None:
    folder.files = {path: b"evil", "good": b"good"}
    copy = FolderCopy(tmp_path / "mirror", above.link())

    copy.refresh()

    assert served(copy) == {"good": b"good"}
    assert {one.name for one in tmp_path.iterdir()} == {"mirror"}


def test_a_file_that_would_be_a_directory_too_holds_up_nobody(tmp_path: Path, above: Upstream, folder: Folder) -> None:
    folder.files = {"a": b"one", "a/b": b"two", "c": b"three"}
    copy = FolderCopy(tmp_path, above.link())

    copy.refresh()

    assert served(copy)["c"] == b"three"


def test_while_the_server_above_is_away_the_folder_stays(tmp_path: Path, above: Upstream, folder: Folder) -> None:
    folder.files = {"a": b"one"}
    copy = FolderCopy(tmp_path, above.link())
    copy.refresh()
    above.answer = lambda _: Said(503, b"")

    with pytest.raises(Unavailable):
        copy.refresh()

    assert served(copy) == {"a": b"one"}


_MIRRORING = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.folder_copies import FolderCopy
from quarterdeck.relaying.links import Link, Signer

pem = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
link = Link(url=sys.argv[2], pin="", signer=Signer(node="relay", key=SigningKey(pem)))
print("ready", flush=True)
while True:
    FolderCopy(Path(sys.argv[1]), link).refresh()
"""


def test_a_kill_at_any_moment_leaves_a_whole_state(tmp_path: Path, above: Upstream, folder: Folder) -> None:
    def state(number: int) -> dict[str, bytes]:
        return {f"d{one}/file": b"%d %d " % (number, one) * 2000 for one in range(20)}

    states = [state(number) for number in range(60)]
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.wait(0.03):
            number = (number + 1) % len(states)
            folder.files = states[number]

    folder.files = states[0]
    FolderCopy(tmp_path, above.link()).refresh()
    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(3):
            command = [sys.executable, "-c", _MIRRORING, str(tmp_path), above.url]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                stop.wait(0.4)
                process.send_signal(signal.SIGKILL)
            found = served(FolderCopy(tmp_path, above.link()))
            assert found.keys() == states[0].keys()
            # Some files may be of the state before, where the newer content was gone above already: each is whole.
            assert all(any(found[path] == one[path] for one in states) for path in found)
    finally:
        stop.set()
        changing.join()
    copy = FolderCopy(tmp_path, above.link())
    copy.refresh()
    assert served(copy) == folder.files


def test_a_state_that_comes_back_is_whole_again(tmp_path: Path, above: Upstream, folder: Folder) -> None:
    first = {"a": b"one", "b": b"two"}
    folder.files = first
    copy = FolderCopy(tmp_path, above.link())
    copy.refresh()
    folder.files = {"a": b"three", "b": b"four"}
    folder.altered = {agent.digest(b"four")}
    copy.refresh()
    folder.files = first

    copy.refresh()

    assert served(copy) == first


def test_a_tree_is_given_on_by_its_digests_and_changes_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"one")
    (tmp_path / "outside").symlink_to("/etc/passwd")
    now = [0.0]
    tree = FolderTree(SharedFolder(tmp_path), clock=lambda: now[0])

    first = relay_documents.decode(tree.document(), relay_documents.TreeDocument).files
    (tmp_path / "sub" / "a").write_bytes(b"longer")
    soon = tree.document()
    now[0] = 3.0
    later = relay_documents.decode(tree.document(), relay_documents.TreeDocument).files

    assert {path: entry.sha256 for path, entry in first.items()} == {"sub/a": agent.digest(b"one")}
    assert agent.digest(b"one").encode() in soon
    assert {path: entry.sha256 for path, entry in later.items()} == {"sub/a": agent.digest(b"longer")}
    with pytest.raises(NotFound):
        tree.open(agent.digest(b"one"))
    file = tree.open(agent.digest(b"longer"))
    assert os.pread(file.descriptor, 10, 0) == b"longer"
    file.close()


# -- policies ------------------------------------------------------------------------------------


class Policies:
    """Policies above, by node."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}

    def answer(self, asked: Asked) -> Said:
        if asked.target == relay_documents.PATH_POLICIES:
            return conditional(asked, relay_documents.encode(self.ids))
        node = asked.target.rpartition("/")[2]
        if node not in self.ids:
            return Said(404, b'{"code":"not_accepted","message":"Not yet."}')
        tag = f'"{self.ids[node]}"'
        if asked.headers.get("if-none-match") == tag:
            return Said(304, b"", {"ETag": tag})
        return Said(200, self.ids[node].encode(), {"ETag": tag, agent.HEADER_SIGNATURE: "c2lnbmVk"})


def test_policies_are_fetched_when_they_changed_and_kept_for_when_the_server_is_away(
    tmp_path: Path, above: Upstream
) -> None:
    policies = Policies()
    above.answer = policies.answer
    policies.ids = {NODE: "one", DEEP: "two"}
    copies = PolicyCopies(tmp_path, above.link())

    changed = [copies.refresh(), copies.refresh()]
    policies.ids = {NODE: "three"}
    changed.append(copies.refresh())
    above.answer = lambda _: Said(500)
    kept = PolicyCopies(tmp_path, above.link()).fetch(NODE)

    assert changed == [2, 0, 1]
    assert (kept.config_id, kept.signature, kept.body) == ("three", "c2lnbmVk", b"three")
    with pytest.raises(Unavailable):
        copies.fetch(DEEP)


def test_a_hanging_server_costs_one_wait_and_then_the_kept_policy_comes_at_once(
    tmp_path: Path, above: Upstream
) -> None:
    policies = Policies()
    above.answer = policies.answer
    policies.ids = {NODE: "one"}
    link = above.link(answer_seconds=0.2, rest_seconds=60.0)
    copies = PolicyCopies(tmp_path, link)
    copies.refresh()
    release = threading.Event()
    above.answer = lambda _: Said(200, b"", wait=release)
    above.asked.clear()

    found = [copies.fetch(NODE).config_id for _ in range(5)]
    release.set()

    assert found == ["one"] * 5
    assert len(above.asked) == 1


def test_a_policy_that_cannot_be_kept_reaches_its_node_all_the_same(
    tmp_path: Path, above: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    policies = Policies()
    above.answer = policies.answer
    policies.ids = {NODE: "one"}
    with tiny_disk(tmp_path / "disk", 64) as disk:
        fill(disk / "ballast")

        assert PolicyCopies(disk, above.link()).fetch(NODE).config_id == "one"

        assert [path.name for path in disk.iterdir()] == ["ballast"]
    assert "is not kept here: [Errno 28]" in caplog.text


def test_policies_of_nodes_whose_ids_are_paths_stay_in_their_directory(tmp_path: Path, above: Upstream) -> None:
    ids = ["../../escaped", "/etc/escaped", "..", "a/b", "%2e%2e%2fescaped"]
    above.answer = lambda asked: (
        Said(200, b"body", {"ETag": '"one"'})
        if asked.target != relay_documents.PATH_POLICIES
        else conditional(asked, relay_documents.encode(dict.fromkeys(ids, "one")))
    )
    directory = tmp_path / "mirror" / "policies"
    directory.mkdir(parents=True)
    copies = PolicyCopies(directory, above.link())

    assert copies.refresh() == len(ids)

    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(directory.iterdir())
    assert [kept.body for one in ids if (kept := copies.kept(NodeId(one)))] == [b"body"] * len(ids)


def test_a_node_without_a_policy_is_told_so(tmp_path: Path, above: Upstream) -> None:
    above.answer = Policies().answer

    with pytest.raises(NotAccepted):
        PolicyCopies(tmp_path, above.link()).fetch(NODE)


# -- rounds --------------------------------------------------------------------------------------


def test_a_fault_that_nobody_foresaw_ends_no_rounds_and_holds_up_no_other_part(
    tmp_path: Path, above: Upstream, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.files = {"a": b"content"}
    copies, link = PolicyCopies(tmp_path, above.link()), above.link()
    shared = FolderCopy(tmp_path / "folder", link)

    def load() -> Listing:
        raise RecursionError("nobody foresaw this")

    nodes = NodesCopy(path=tmp_path / "nodes.json", me=RELAY, link=link, address="")
    mirror = Mirror(
        copy=nodes,
        nodes=NodesList(load),
        policies=copies,
        resources=ResourceCopies(tmp_path / "resources", copies, mirrored=link, for_nodes=link),
        folder=shared,
        share=FolderCopy(tmp_path / "share", link),
        agent=AgentCopy(tmp_path / "agent", link, "", lambda: b""),
        seconds=60,
    )
    document = relay_documents.encode(NodesDocument(server=ServerEntry(id=ROOT, keys=()), nodes={}))
    above.answer = lambda asked: (
        conditional(asked, document) if asked.target == relay_documents.PATH_NODES else folder.answer(asked)
    )

    assert not mirror.round()

    assert "nobody foresaw this" in caplog.text
    assert served(shared) == {"a": b"content"}


# -- the nodes list ------------------------------------------------------------------------------


def test_a_relay_knows_its_nodes_their_keys_and_who_stands_above_and_tells_relays_below(
    tmp_path: Path, above: Upstream
) -> None:
    node, inner, deep = Agent(node=NODE), Agent(node=INNER, key_number=1), Agent(node=DEEP, key_number=2)
    document = NodesDocument(
        server=ServerEntry(id=ROOT, keys=("root's key",)),
        nodes={
            NODE: NodeEntry("near", RELAY, (node.certificate,)),
            INNER: NodeEntry("inner", RELAY, (inner.certificate,), relay=True),
            DEEP: NodeEntry("deep", INNER, (deep.certificate,)),
        },
    )
    above.answer = lambda asked: conditional(asked, relay_documents.encode(document))
    copy = NodesCopy(path=tmp_path / "nodes.json", me=RELAY, link=above.link(), address="https://relay:8443")
    before = copy.load()

    changed = [copy.refresh(), copy.refresh()]
    listing = copy.load()
    below = document_below(listing, INNER, "relay's certificate")

    assert len(before.topology.nodes) == 0
    assert changed == [True, False]
    assert above.asked[0].headers[relay_documents.HEADER_ADDRESS.lower()] == "https://relay:8443"
    assert listing.topology.neighbours == {NODE, INNER}
    assert listing.relays == {INNER}
    assert listing.topology.next_hop(DEEP) == INNER
    assert (listing.server, listing.keys_of(ROOT)) == (ROOT, ("root's key",))
    assert below.server == ServerEntry(id=RELAY, keys=("relay's certificate",))
    assert below.nodes == {DEEP: NodeEntry("deep", INNER, (deep.certificate,))}


def test_an_answer_that_is_no_list_leaves_the_old_one(tmp_path: Path, above: Upstream) -> None:
    document = NodesDocument(server=ServerEntry(id=ROOT, keys=()), nodes={NODE: NodeEntry("near", RELAY)})
    above.answer = lambda asked: conditional(asked, relay_documents.encode(document))
    copy = NodesCopy(path=tmp_path / "nodes.json", me=RELAY, link=above.link(), address="")
    copy.refresh()
    above.answer = lambda _: Said(200, b"<html>a captive portal</html>")

    with pytest.raises(Exception, match="cannot be read"):
        copy.refresh()

    assert set(copy.load().topology.nodes) == {NODE}


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://relay.example.com:8443", True),
        ("http://relay.example.com", False),
        ("https://", False),
        ("https://relay/path", False),
        ("https://user@relay", False),
        ("https://relay:0", False),
        ("https://" + "a" * 400, False),
    ],
)
def test_only_addresses_that_can_be_meant_so_are_kept(tmp_path: Path, address: str, kept: bool) -> None:
    Addresses(tmp_path / "relays.json").learn(INNER, address)

    assert Addresses(tmp_path / "relays.json").of(INNER) == (address if kept else None)
