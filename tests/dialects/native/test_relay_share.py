# SPDX-License-Identifier: Apache-2.0
"""Which files of nodes the server gives to a relay: those of the nodes below it, the common ones, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agents import Agent
from tests.dialects.native.conftest import Native

from quarterdeck.core.ids import ROOT
from quarterdeck.core.nodes import NodeKind
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import TreeDocument
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.shared_folder import SharedFolder
from quarterdeck.services import relays

RELAY = Agent(hostname="relay.example.com", key_number=1)
INNER = Agent(hostname="inner.example.com", key_number=2)
NEAR = Agent(hostname="near.example.com", key_number=3)
DEEP = Agent(hostname="deep.example.com", key_number=4)
ELSEWHERE = Agent(hostname="elsewhere.example.com", key_number=5)


def add(native: Native, one: Agent, **changes: Any) -> None:
    with native.unit_of_work() as ctx:
        ctx.store.nodes.add(replace(one.as_node(), **changes))


@pytest.fixture
def tree(native: Native, tmp_path: Path) -> Native:
    """root <- RELAY <- INNER <- DEEP, RELAY <- NEAR, root <- ELSEWHERE; each has a file, and there is a common one."""
    add(native, RELAY, kind=NodeKind.RELAY)
    add(native, INNER, kind=NodeKind.RELAY, policy_server=RELAY.node)
    add(native, NEAR, policy_server=RELAY.node)
    add(native, DEEP, policy_server=INNER.node)
    add(native, ELSEWHERE)
    for name in (*(one.node for one in (RELAY, INNER, NEAR, DEEP, ELSEWHERE)), "common", "nobody"):
        directory = tmp_path / "share" / name / "rules"
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(content(name))
    native.parts.share = FolderTree(SharedFolder(tmp_path / "share"), apart=True)
    return native


def content(name: str) -> bytes:
    return f"for {name}".encode()


def get(native: Native, one: Agent, path: str, tag: str = "") -> httpx.Response:
    return native.client.get(path, headers=one.headers("GET", path) | ({"If-None-Match": tag} if tag else {}))


def fetched(native: Native, one: Agent, name: str) -> httpx.Response:
    return get(native, one, f"{relay_documents.PATH_SHARE}/{agent.digest(content(name))}")


def listed(native: Native, one: Agent) -> set[str]:
    answer = get(native, one, relay_documents.PATH_SHARE)
    assert answer.status_code == 200, answer.text
    return {path.removesuffix("/rules/file") for path in relay_documents.decode(answer.content, TreeDocument).files}


def test_a_relay_is_told_of_the_files_of_nodes_below_it_and_of_the_common_ones(tree: Native) -> None:
    tag = get(tree, RELAY, relay_documents.PATH_SHARE).headers["etag"]

    assert listed(tree, RELAY) == {INNER.node, NEAR.node, DEEP.node, "common"}
    assert listed(tree, INNER) == {DEEP.node, "common"}
    assert get(tree, RELAY, relay_documents.PATH_SHARE, tag).status_code == 304
    assert get(tree, INNER, relay_documents.PATH_SHARE, tag).status_code == 200


def test_a_relay_gets_the_contents_of_those_and_no_others(tree: Native) -> None:
    listed(tree, RELAY)

    for name in (NEAR.node, DEEP.node, INNER.node, "common"):
        assert fetched(tree, RELAY, name).content == content(name)
    assert fetched(tree, INNER, DEEP.node).content == content(DEEP.node)
    for one, name in ((RELAY, ELSEWHERE.node), (RELAY, RELAY.node), (RELAY, "nobody"), (INNER, NEAR.node)):
        assert fetched(tree, one, name).status_code == 404, name


def test_a_content_that_many_nodes_have_is_given_when_one_of_them_is_below(
    tree: Native, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_ASKED_AT_ONCE", 2)
    for name in (*(f"a{number}" for number in range(5)), DEEP.node):
        directory = tmp_path / "share" / name
        directory.mkdir(exist_ok=True)
        (directory / "same").write_bytes(content("many"))
    tree.parts.share = FolderTree(SharedFolder(tmp_path / "share"), apart=True)
    listed(tree, INNER)

    assert fetched(tree, INNER, "many").content == content("many")


def test_a_node_that_moves_takes_its_files_from_the_relay(tree: Native) -> None:
    with tree.unit_of_work() as ctx:
        node = ctx.store.nodes.find(DEEP.node)
        assert node is not None
        ctx.store.nodes.replace(replace(node, policy_server=ROOT))

    assert listed(tree, INNER) == {"common"}
    assert fetched(tree, INNER, DEEP.node).status_code == 404


@pytest.mark.parametrize("path", [relay_documents.PATH_SHARE, f"{relay_documents.PATH_SHARE}/0"])
def test_who_is_no_relay_gets_nothing(tree: Native, path: str) -> None:
    thief = Agent(node=RELAY.node, key_number=9)

    answers = [get(tree, one, path) for one in (NEAR, thief, Agent(key_number=8))]

    assert [answer.status_code for answer in answers] == [403, 401, 404]
    assert tree.client.get(path).status_code == 401


def test_a_server_without_such_files_says_so(tree: Native) -> None:
    tree.parts.share = None

    assert get(tree, RELAY, relay_documents.PATH_SHARE).status_code == 404
