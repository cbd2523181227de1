# SPDX-License-Identifier: Apache-2.0
"""Nodes lists, key hashes and certificates: what can be read is, and a bad hash costs its own node only."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from tests.agents import Agent, certificate, private_key

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import KeyHash, ListedNode
from quarterdeck.formats import nodes_list

ONE, OTHER = Agent(node="node-1", key_number=1), Agent(node="node-2", key_number=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha256:" + "0a" * 32, KeyHash("sha256", b"\n" * 32)),
        ("sha256:" + "0A" * 32, KeyHash("sha256", b"\n" * 32)),
        ("sha256//CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo=", KeyHash("sha256", b"\n" * 32)),
        ("sha512:" + "0a" * 64, KeyHash("sha512", b"\n" * 64)),
        ("sha256:", None),
        ("sha256//", None),
        ("", None),
        ("garbage", None),
        ("md5:" + "0a" * 16, None),
        ("sha256:" + "0a" * 31, None),
        ("sha512:" + "0a" * 32, None),
        ("sha256:" + "zz" * 32, None),
        ("sha256//****", None),
        (None, None),
        (17, None),
        (["sha256:"], None),
    ],
)
def test_key_hashes(text: object, expected: KeyHash | None) -> None:
    assert nodes_list.key_hash(text) == expected


def test_a_list_is_tolerant_about_hashes_and_takes_the_last_of_two() -> None:
    def line(hostname: str, key_hash: object) -> str:
        return json.dumps({"hostname": hostname, "policy-server": "root", "key-hash": key_hash})

    first, last = line("first", "sha256:"), line("last", "sha256:" + "0a" * 32)
    without = json.dumps({"hostname": "c", "policy-server": "a", "more": 1})
    text = f'{{"a": {first}, "b": {line("b", 12)}, "c": {without}, "a": {last}}}'

    nodes = nodes_list.parse(text.encode())

    assert nodes[NodeId("a")].hostname == "last"
    assert nodes[NodeId("a")].key_hash == KeyHash("sha256", b"\n" * 32)
    assert nodes[NodeId("b")].key_hash is nodes[NodeId("c")].key_hash is None
    assert nodes[NodeId("c")].policy_server == "a"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"a": {}}', b'{"a": {"hostname": 1, "policy-server": "b"}}', b"\xff"]
)
def test_what_is_no_list_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid, match="nodes list"):
        nodes_list.parse(content)


@given(
    st.dictionaries(
        st.text(max_size=9).map(NodeId),
        st.builds(
            ListedNode,
            st.text(max_size=9),
            st.text(max_size=9).map(NodeId),
            st.none() | st.binary(min_size=64, max_size=64).map(lambda digest: KeyHash("sha512", digest)),
        ),
        max_size=9,
    )
)
def test_what_is_written_is_read_again(nodes: dict[NodeId, ListedNode]) -> None:
    assert nodes_list.parse(nodes_list.written(nodes)) == nodes


def test_a_key_has_the_same_hash_however_it_comes() -> None:
    public = ONE.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    assert nodes_list.hash_of(public.decode()) == nodes_list.hash_of(ONE.certificate)
    assert nodes_list.hash_of(ONE.certificate) != nodes_list.hash_of(OTHER.certificate)
    assert nodes_list.hash_of("nonsense") is None


def test_all_certificates_of_a_node_are_kept() -> None:
    newer = certificate(private_key(3), ONE.node)
    text = f"# comment\n{ONE.certificate}{OTHER.certificate}\n\n{newer}".encode()

    found = nodes_list.parse_certificates(text)

    assert [len(found[NodeId(node)]) for node in ("node-1", "node-2")] == [2, 1]
    assert found[NodeId("node-1")][1].strip() == newer.strip()
    assert nodes_list.parse_certificates(b"") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ONE.certificate.encode()[:-40],
        ONE.certificate.encode() + b"-----BEGIN CERTIFICATE-----\nAA",
    ],
)
def test_one_certificate_that_cannot_be_read_fails_the_whole(content: bytes) -> None:
    with pytest.raises(Invalid, match="certificates"):
        nodes_list.parse_certificates(content)
