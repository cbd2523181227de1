# SPDX-License-Identifier: Apache-2.0
"""Statements 17 to 29 of the reference: files from one node to another."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import threading
import time
import urllib.parse
from io import BytesIO
from pathlib import Path

import pytest
from tests.agents import Agent
from tests.dialects.relay.conftest import (
    API,
    FAR,
    INSIDE,
    KEYLESS,
    LOOPBACK,
    NEAR,
    OUTSIDE,
    RELAY,
    STRANGER,
    UPSTREAM,
    Make,
    Relay,
    key_hash_of,
    list_of_root,
    listed,
    shared,
)

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import shared_file
from quarterdeck.relaying.shared_files import Address, Passing

CONTENT = b"first line\n\n\xff\xfe\x00 not text\nlast line without an end"
NOW = 1_780_000_000.0


def hash_of(content: bytes, algorithm: str = "sha512") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def everything(relay: Relay) -> list[str]:
    """The names of all files that are kept."""
    return sorted(path.name for path in (relay.directory / "files").rglob("*") if path.is_file())


def test_statement_17_head_says_whether_it_must_be_sent(root: Relay) -> None:
    assert root.has("app.conf", hash_of(CONTENT)) == 404
    assert root.put("app.conf", shared(NEAR, CONTENT)).status_code == 200

    assert root.has("app.conf", hash_of(CONTENT)) == 200
    assert root.has("app.conf", hash_of(b"different")) == 404
    assert root.has("app.conf", hash_of(CONTENT).upper()) == 404
    assert root.has("app.conf", "malformed") == 404
    assert root.has("app.conf", "") == 404
    assert root.has("other.conf", hash_of(CONTENT)) == 404


def test_head_of_what_cannot_be_read_is_500(root: Relay) -> None:
    root.put("app.conf", shared(NEAR, CONTENT))
    root.file(NEAR, "app.conf.metadata").write_text("nonsense")

    assert root.has("app.conf", hash_of(CONTENT)) == 500


def test_parameters_are_needed(root: Relay) -> None:
    path = f"shared-files/{NEAR.node}/{NEAR.node}/app.conf"

    assert root.ask("HEAD", path).status_code == 404
    put = root.ask("PUT", path, content=shared(NEAR, CONTENT))
    assert (put.status_code, put.text) == (404, "NOT FOUND")


def test_statement_18_a_file_is_kept_with_canonical_metadata(make: Make) -> None:
    relay = make(clock=lambda: NOW)
    # Other order, lines without "=" and unknown keys, hash in upper case.
    body = shared(NEAR, CONTENT, hash_value=hash_of(CONTENT).upper())
    head, _, _ = body.partition(b"\n\n")
    mixed = b"\n".join([b"a comment", b"colour=blue", *reversed(head.split(b"\n"))])

    answer = relay.put("app.conf", mixed + b"\n\n" + CONTENT, ttl="1d")

    assert (answer.status_code, answer.content) == (200, b"")
    assert relay.file(NEAR, "app.conf").read_bytes() == CONTENT
    expected = shared(NEAR, CONTENT).partition(b"\n\n")[0] + b"\nexpires=%d\n" % (NOW + 86_400)
    assert relay.file(NEAR, "app.conf.metadata").read_bytes() == expected
    assert everything(relay) == ["app.conf", "app.conf.metadata"]


def test_statement_18_the_time_is_now_plus_ttl(root: Relay) -> None:
    root.put("app.conf", shared(NEAR, CONTENT), ttl="7200")

    kept = shared_file.parse(root.file(NEAR, "app.conf.metadata").read_bytes())

    assert kept.expires is not None
    assert abs(kept.expires - time.time() - 7200) < 5


def test_a_new_content_replaces_the_old(root: Relay) -> None:
    root.put("app.conf", shared(NEAR, CONTENT))

    root.put("app.conf", shared(NEAR, b"new"))

    assert root.file(NEAR, "app.conf").read_bytes() == b"new"
    assert root.has("app.conf", hash_of(b"new")) == 200
    assert root.has("app.conf", hash_of(CONTENT)) == 404


@pytest.mark.parametrize(
    "body",
    [
        shared(NEAR, CONTENT) + b"\n",
        shared(NEAR, CONTENT)[:-1],
        shared(NEAR, CONTENT, digest="00" * 256),
        shared(NEAR, CONTENT, digest="nonsense"),
        shared(NEAR, CONTENT).replace(b"=sha512", b"=sha256"),
        shared(NEAR, CONTENT).replace(b"=sha512", b"=md5"),
        shared(NEAR, CONTENT, header="rudder-signature-v2"),
        shared(NEAR, CONTENT, hash_value=hash_of(b"another")),
        shared(NEAR, CONTENT, hash_value=hash_of(CONTENT, "sha256")),
        shared(NEAR, CONTENT, short_pubkey="AAAA"),
        shared(NEAR, CONTENT).replace(b"keydate=", b"date="),
        b"keyid=again\n" + shared(NEAR, CONTENT),
        shared(NEAR, CONTENT).replace(b"\n\n", b"\r\n\r\n", 1),
        b"\xff\n" + shared(NEAR, CONTENT),
        b"#" * 100_000,
        b"",
        b"\n",
    ],
)
def test_statement_19_what_proves_nothing_is_500_and_leaves_nothing(body: bytes, root: Relay) -> None:
    assert root.put("app.conf", body).status_code == 500
    assert everything(root) == []


def test_statement_20_keys_and_sources_must_be_known(root: Relay) -> None:
    another_key = root.put("app.conf", shared(STRANGER, CONTENT), source=NEAR)
    unknown = root.put("app.conf", shared(STRANGER, CONTENT), source=STRANGER)
    keyless = root.put("app.conf", shared(KEYLESS, CONTENT), source=KEYLESS)

    assert [one.status_code for one in (another_key, unknown, keyless)] == [404, 404, 500]
    assert everything(root) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(
    "key_hash",
    [
        key_hash_of(NEAR),
        key_hash_of(NEAR, hexadecimal=True),
        key_hash_of(NEAR, "sha512"),
        key_hash_of(NEAR, "sha512", hexadecimal=True),
    ],
    ids=["sha256//", "sha256:", "sha512//", "sha512:"],
)
def test_statement_21_algorithms_and_notations(algorithm: str, key_hash: str, make: Make) -> None:
    relay = make("root", {**list_of_root(), NEAR.node: listed(NEAR, "root", key_hash)})

    assert relay.put("app.conf", shared(NEAR, CONTENT, algorithm)).status_code == 200
    assert relay.has("app.conf", hash_of(CONTENT, algorithm)) == 200


@pytest.mark.parametrize("content", [CONTENT, b"", b"\n", b"\n\n", b"\n\nheader=x\n", bytes(range(256)) * 300])
def test_statement_22_content_survives_byte_for_byte(content: bytes, root: Relay) -> None:
    assert root.put("app.conf", shared(NEAR, content)).status_code == 200
    assert root.file(NEAR, "app.conf").read_bytes() == content


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ("1d 2h", 93_600),
        ("1d2h", 93_600),
        ("7200", 7200),
        ("0", 0),
        ("2h 1d", 93_600),
        ("1h 1h", 7200),
        ("1 day 3 hours", 97_200),
        ("1m", 60),
        ("1M", 2_630_016),
        ("1y", 31_557_600),
        ("1w", 604_800),
        ("1500ms", 1),
        ("5 nanos", 0),
        ("5µs", 0),
    ],
)
def test_statement_23_ttls(ttl: str, seconds: int, make: Make) -> None:
    relay = make(clock=lambda: NOW)

    assert relay.put("app.conf", shared(NEAR, CONTENT), ttl=ttl).status_code == 200
    kept = shared_file.parse(relay.file(NEAR, "app.conf.metadata").read_bytes())
    assert kept.expires == NOW + seconds


@pytest.mark.parametrize(
    "ttl",
    ["913j", "913b83", "", "1.5h", "-1", "1D", "day", "h1", "１d", str(2**64 - 1), "1000001y", "9" * 500, "1d" * 600],
)
def test_statement_23_what_is_no_ttl_is_refused_without_side_effects(ttl: str, root: Relay) -> None:
    assert root.put("app.conf", shared(NEAR, CONTENT), ttl=ttl).status_code == 400
    assert not (root.directory / "files").exists()


@pytest.mark.parametrize(
    "name",
    [".", "..", "a%2fb", "a%0a", "a.metadata", "a.METADATA", ".metadata", "a%20b", "%c3%a9", "%ff", "~a", "a" * 250],
)
def test_statement_24_ids_that_are_none_are_refused(name: str, root: Relay) -> None:
    raw = name.replace(".", "%2e") if set(name) == {"."} else name
    paths = [f"{NEAR.node}/{NEAR.node}/{raw}", f"{NEAR.node}/{raw}/app.conf", f"{raw}/{NEAR.node}/app.conf"]

    for path in paths[: 1 if "metadata" in name.lower() or "%0a" in name else 3]:
        put = root.ask("PUT", f"shared-files/{path}?ttl=1d", content=shared(NEAR, CONTENT))
        head = root.ask("HEAD", f"shared-files/{path}?hash=aa")

        assert (put.status_code, head.status_code) == (400, 400), path
    assert not (root.directory / "files").exists()


@pytest.mark.parametrize("name", ["app.properties", ".hidden", "a_b-c.d", "...", "metadata", "a.metadata.gz"])
def test_other_ids_are_fine(name: str, root: Relay) -> None:
    assert root.put(name, shared(NEAR, CONTENT)).status_code == 200
    assert root.has(name, hash_of(CONTENT)) == 200


def test_statement_25_the_end_of_life_is_not_the_clients_to_say(make: Make) -> None:
    relay = make(clock=lambda: NOW)

    relay.put("app.conf", shared(NEAR, CONTENT, expires="9999999999"), ttl="1h")

    text = relay.file(NEAR, "app.conf.metadata").read_text()
    assert text.count("expires=") == 1
    assert text.endswith(f"\nexpires={int(NOW) + 3600}\n")


def test_statement_26_what_is_over_goes_with_its_metadata(make: Make) -> None:
    now = [NOW]
    relay = make(clock=lambda: now[0])
    relay.put("app.properties", shared(NEAR, CONTENT), ttl="1h")
    relay.put("other.properties", shared(NEAR, CONTENT), ttl="2h")

    now[0] = NOW + 3600
    assert relay.edge.parts.files.expire() == 0
    now[0] = NOW + 3601
    assert relay.edge.parts.files.expire() == 1

    assert everything(relay) == ["other.properties", "other.properties.metadata"]


def test_what_cannot_be_read_stays_and_holds_nothing_up(make: Make) -> None:
    now = [NOW]
    relay = make(clock=lambda: now[0])
    for name in ("a", "b", "c"):
        relay.put(name, shared(NEAR, CONTENT), ttl="1h")
    relay.file(NEAR, "a.metadata").write_text("nonsense")
    leftover = relay.file(NEAR, "~killed")
    leftover.write_text("half")
    os.utime(leftover, (NOW - 90_000, NOW - 90_000))
    now[0] = NOW + 3601

    assert relay.edge.parts.files.expire() == 2
    assert everything(relay) == ["a", "a.metadata"]


class Tree:
    """A root and a relay below it, which pass requests on to each other."""

    def __init__(self, make: Make) -> None:
        self.passed: list[Passing] = []
        self.root = make("root", pass_on=self.down)
        self.relay = make(RELAY.node, {FAR.node: listed(FAR, RELAY.node)}, upstream=(UPSTREAM,), pass_on=self.up)

    def down(self, passing: Passing) -> int:
        assert passing.to == RELAY.node
        return self._pass(self.relay, passing, at=UPSTREAM)

    def up(self, passing: Passing) -> int:
        assert passing.to is None
        return self._pass(self.root, passing, at=INSIDE)

    def _pass(self, other: Relay, passing: Passing, at: str) -> int:
        self.passed.append(passing)
        one = passing.address
        path = f"shared-files/{one.target}/{one.source}/{one.file}"
        word = urllib.parse.quote_plus(passing.word)
        if passing.body is None:
            return other.ask("HEAD", f"{path}?hash={word}", at=at).status_code
        return other.ask("PUT", f"{path}?ttl={word}", at=at, content=passing.body.read()).status_code


@pytest.fixture
def tree(make: Make) -> Tree:
    return Tree(make)


def test_statement_27_a_target_elsewhere_is_asked_for_above(tree: Tree) -> None:
    put = tree.relay.put("app.conf", shared(FAR, CONTENT), source=FAR, target=NEAR)

    assert put.status_code == 200
    assert tree.root.file(FAR, "app.conf").read_bytes() == CONTENT
    assert everything(tree.relay) == []
    assert tree.relay.has("app.conf", hash_of(CONTENT), source=FAR, target=NEAR) == 200
    assert tree.relay.has("app.conf", hash_of(b"other"), source=FAR, target=NEAR) == 404
    altered = tree.relay.put("app.conf", shared(FAR, CONTENT) + b"x", source=FAR, target=NEAR)
    assert altered.status_code == 500


def test_statement_27_unknown_on_the_root_is_an_error(tree: Tree) -> None:
    assert tree.root.put("app.conf", shared(NEAR, CONTENT), target=STRANGER).status_code == 500
    assert tree.root.has("app.conf", hash_of(CONTENT), target=STRANGER) == 500
    assert tree.relay.put("app.conf", shared(FAR, CONTENT), source=FAR, target=STRANGER).status_code == 500


@pytest.mark.parametrize("sender", [NEAR, FAR], ids=["from above", "from beside"])
def test_statement_28_a_file_reaches_a_node_behind_a_relay(sender: Agent, tree: Tree) -> None:
    first = tree.root if sender is NEAR else tree.relay

    put = first.put("app.conf", shared(sender, CONTENT), ttl="1d 2h", source=sender, target=FAR)

    assert put.status_code == 200
    assert tree.relay.file(sender, "app.conf", FAR).read_bytes() == CONTENT
    assert everything(tree.root) == []
    assert tree.root.has("app.conf", hash_of(CONTENT), source=sender, target=FAR) == 200
    assert tree.root.has("app.conf", hash_of(b"other"), source=sender, target=FAR) == 404


def test_what_goes_down_is_checked_above_and_once_more_below(tree: Tree) -> None:
    forged = tree.root.put("app.conf", shared(STRANGER, CONTENT), source=NEAR, target=FAR)
    altered = tree.root.put("app.conf", shared(NEAR, CONTENT) + b"x", source=NEAR, target=FAR)
    bad_ttl = tree.root.put("app.conf", shared(NEAR, CONTENT), ttl="913j", target=FAR)
    assert [one.status_code for one in (forged, altered, bad_ttl)] == [404, 500, 400]
    assert tree.passed == []

    below = tree.relay.put("app.conf", shared(NEAR, CONTENT) + b"x", target=FAR, at=UPSTREAM)
    around = tree.relay.put("app.conf", shared(NEAR, CONTENT), target=FAR, at=INSIDE)

    assert (below.status_code, around.status_code) == (500, 404)


def test_a_relay_that_does_not_answer_is_told(make: Make) -> None:
    def away(_: Passing) -> int:
        raise Unavailable("The relay does not answer.")

    relay = make(pass_on=away)

    assert relay.put("app.conf", shared(NEAR, CONTENT), target=FAR).status_code == 503


def test_a_loop_in_the_list_is_no_way(make: Make) -> None:
    looped = {**list_of_root(), FAR.node: listed(FAR, STRANGER.node), STRANGER.node: listed(STRANGER, FAR.node)}
    relay = make("root", looped)

    assert relay.put("app.conf", shared(NEAR, CONTENT), target=FAR).status_code == 500


def test_statement_29_a_long_body_is_413(root: Relay) -> None:
    answer = root.put("app.conf", shared(NEAR, b"x" * (1024 * 1024)))

    assert (answer.status_code, answer.text) == (413, "PAYLOAD TOO LARGE")
    assert everything(root) == []


def test_statement_29_memory_does_not_grow_with_the_body(make: Make) -> None:
    relay = make(max_body=200 * 1024 * 1024)
    content = bytes(100 * 1024 * 1024)
    body = shared(NEAR, content)
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    del body
    statuses: list[int] = []
    target = f"{API}/shared-files/{NEAR.node}/{NEAR.node}/app.conf"
    scope = {
        "type": "http",
        "method": "PUT",
        "path": target,
        "query_string": b"ttl=1d",
        "headers": [],
        "client": (INSIDE, 1),
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, object]) -> None:
        if "status" in message:
            statuses.append(int(str(message["status"])))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(relay.edge(scope, receive, send))  # type: ignore[arg-type]

    assert statuses == [200]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert relay.file(NEAR, "app.conf").stat().st_size == len(content)


def test_no_body_stays_behind(root: Relay) -> None:
    root.put("app.conf", shared(NEAR, CONTENT))
    root.put("app.conf", b"nonsense")
    before = len(list(Path("/proc/self/fd").iterdir()))

    root.put("app.conf", b"nonsense")
    root.put("app.conf", shared(NEAR, CONTENT))

    assert list((root.directory / "bodies").iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_of_many_who_bring_a_file_at_once_one_wins_whole(root: Relay) -> None:
    contents = [b"%d" % number * 1000 for number in range(8)]
    files = root.edge.parts.files

    def bring(content: bytes) -> None:
        address = Address(target=NodeId(NEAR.node), source=NodeId(NEAR.node), file="app.conf")
        for _ in range(5):
            files.take(address, "1d", BytesIO(shared(NEAR, content)))

    threads = [threading.Thread(target=bring, args=(content,)) for content in contents]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    kept = root.file(NEAR, "app.conf").read_bytes()
    assert kept in contents
    assert root.has("app.conf", hash_of(kept)) == 200
    assert everything(root) == ["app.conf", "app.conf.metadata"]


def test_who_may_share(root: Relay) -> None:
    path = f"shared-files/{NEAR.node}/{NEAR.node}/app.conf?ttl=1d"
    body = shared(NEAR, CONTENT)

    assert root.put("app.conf", body, at=OUTSIDE).status_code == 403
    assert root.ask("HEAD", path.replace("ttl=1d", "hash=aa"), at=OUTSIDE).status_code == 403
    assert root.put("app.conf", body, at=INSIDE).status_code == 200
    assert root.put("app.conf", body, at=LOOPBACK).status_code == 200
    assert root.signed(NEAR, "PUT", path, body).status_code == 200


@pytest.mark.parametrize("shown", ["", "(null)"])
def test_who_shows_no_certificate_to_the_proxy_may_share_all_the_same(shown: str, root: Relay) -> None:
    path = f"shared-files/{NEAR.node}/{NEAR.node}/app.conf?ttl=1d"

    answer = root.ask("PUT", path, content=shared(NEAR, CONTENT), headers={"X-SSL-Client-Cert": shown})

    assert answer.status_code == 200


def test_a_signature_covers_the_body(make: Make) -> None:
    relay = make(networks=())
    path = f"{API}/shared-files/{NEAR.node}/{NEAR.node}/app.conf?ttl=1d"
    body = shared(NEAR, CONTENT)

    good = relay.signed(NEAR, "PUT", path, body, at=OUTSIDE)
    swapped = relay.ask("PUT", path, at=OUTSIDE, content=body + b"x", headers=NEAR.headers("PUT", path, body))
    unsigned = relay.ask("PUT", path, at=OUTSIDE, content=body)

    assert (good.status_code, swapped.status_code, unsigned.status_code) == (200, 401, 403)


def test_a_node_gets_what_others_share_with_it_and_nothing_else(root: Relay) -> None:
    root.put("app.conf", shared(NEAR, CONTENT), target=KEYLESS)
    root.put("mine.conf", shared(NEAR, CONTENT), target=NEAR)
    root.put("broken.conf", shared(NEAR, CONTENT), target=NEAR)
    root.file(NEAR, "broken.conf.metadata").write_text("nonsense")

    def get(one: Agent, name: str) -> tuple[int, bytes]:
        answer = root.signed(one, "GET", f"own-shared-files/{NEAR.node}/{name}")
        return answer.status_code, answer.content

    assert get(NEAR, "mine.conf") == (200, CONTENT)
    assert [get(NEAR, name)[0] for name in ("app.conf", "none", "~x", "mine.conf.metadata", "broken.conf")] == [
        404,
        404,
        400,
        400,
        500,
    ]
    assert root.ask("GET", f"own-shared-files/{NEAR.node}/mine.conf").status_code == 403
