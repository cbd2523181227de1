# SPDX-License-Identifier: Apache-2.0
"""Statement 65 of the reference, and its chapter 1.10: a node gets its own policy files, and nobody else's."""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.parse
import zipfile
from collections.abc import Callable
from dataclasses import replace

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
    POLICY_KEY,
    STRANGER,
    Make,
    Relay,
)

from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.relaying.copies import PolicyCopy

ARCHIVE = "rules/dsc/rudder.zip"
MODIFIED, SAID = 1_780_000_000, "Thu, 28 May 2026 20:26:40 GMT"


def policy_of(node: NodeId) -> PolicyCopy:
    """NEAR's policy; the others have none."""
    if node != NEAR.node:
        raise NotAccepted("This node has no policy yet.")
    return PolicyCopy("id-1", "c2lnbmVk", b'{"format":1,"node":"near"}')


@pytest.fixture
def relay(make: Make) -> Relay:
    return make(signed=policy_of)


def own(one: Agent, path: str = ARCHIVE) -> str:
    return f"/policies/{one.node}/{path}"


def shown(one: Agent) -> dict[str, str]:
    """The header that a proxy adds for a client with this certificate."""
    return {"X-SSL-Client-Cert": urllib.parse.quote(one.certificate)}


def place(relay: Relay, one: Agent, content: bytes, path: str = ARCHIVE, where: str = "share") -> None:
    """Put a file there as a site's own pipeline does."""
    file = relay.directory / where / one.node / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (MODIFIED, MODIFIED))


def test_the_archive_is_made_of_the_signed_policy(relay: Relay) -> None:
    answer = relay.signed(NEAR, "GET", own(NEAR))

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "policy.json": b'{"format":1,"node":"near"}',
            "policy.signature": b"c2lnbmVk\n",
            "policy-key.pem": POLICY_KEY.encode(),
        }
        assert archive.testzip() is None


def test_the_archive_has_the_files_that_the_policy_names(make: Make) -> None:
    contents = {hashlib.sha256(one).hexdigest(): one for one in (b"first", b"second" * 100_000)}
    named = [{"path": f"file-{digest}", "sha256": digest, "size": len(one)} for digest, one in contents.items()]
    body = json.dumps({"policies": [{"resources": named[:1]}, {"resources": named}]}).replace(" ", "").encode()
    relay = make(signed=lambda _: PolicyCopy("id-1", "c2lnbmVk", body), resources=contents)

    first, second = relay.signed(NEAR, "GET", own(NEAR)), relay.signed(NEAR, "GET", own(NEAR))

    with zipfile.ZipFile(io.BytesIO(first.content)) as archive:
        assert archive.namelist()[3:] == [f"resources/{digest}" for digest in sorted(contents)]
        assert {name[10:]: archive.read(name) for name in archive.namelist()[3:]} == contents
    assert second.content == first.content
    assert list((relay.directory / "bodies").iterdir()) == []


class Packed(dict[str, bytes]):
    """Contents that count how often they are packed."""

    count = 0

    def __getitem__(self, digest: str) -> bytes:
        self.count += 1
        return super().__getitem__(digest)


def naming(content: bytes) -> PolicyCopy:
    """A policy that names one file."""
    named = [{"path": "file", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    body = json.dumps({"policies": [{"resources": named}]}, separators=(",", ":")).encode()
    return PolicyCopy("id-1", "c2lnbmVk", body)


def test_an_archive_is_packed_once_until_the_policy_changes(make: Make) -> None:
    contents = Packed({hashlib.sha256(one).hexdigest(): one for one in (b"first", b"second")})
    policy = [naming(b"first")]
    relay = make(signed=lambda _: policy[0], resources=contents)
    first = relay.signed(NEAR, "GET", own(NEAR))
    after_first = contents.count

    told = relay.signed(NEAR, "HEAD", own(NEAR))
    same = relay.signed(NEAR, "GET", own(NEAR), **{"If-None-Match": first.headers["ETag"]})
    again = relay.signed(NEAR, "GET", own(NEAR))
    after_all = contents.count
    policy[0] = naming(b"second")
    other = relay.signed(NEAR, "GET", own(NEAR))

    assert (after_first, after_all, contents.count) == (1, 1, 2)
    assert (told.headers["ETag"], same.status_code, again.content) == (first.headers["ETag"], 304, first.content)
    assert other.content != first.content


@pytest.mark.parametrize("prefix", ["", "/rudder/relay-api", "/rudder/relay-api/1"])
def test_statement_8_the_archive_is_the_same_at_each_of_its_paths_and_times(prefix: str, relay: Relay) -> None:
    plain, again = relay.signed(NEAR, "GET", own(NEAR)), relay.signed(NEAR, "GET", prefix + own(NEAR))

    assert (again.status_code, again.content, again.headers["ETag"]) == (200, plain.content, plain.headers["ETag"])
    assert "Last-Modified" not in again.headers


def test_what_a_node_has_already_is_not_sent_again(relay: Relay) -> None:
    tag = relay.signed(NEAR, "GET", own(NEAR)).headers["ETag"]

    def status(**headers: str) -> tuple[int, int]:
        answer = relay.signed(NEAR, "GET", own(NEAR), **{name.replace("_", "-"): headers[name] for name in headers})
        return answer.status_code, len(answer.content)

    assert (
        status(If_None_Match=tag) == status(If_None_Match=f'"other", W/{tag}') == status(If_None_Match="*") == (304, 0)
    )
    assert status(If_None_Match='"other"')[0] == 200
    assert status(If_Match=tag)[0] == 200
    assert status(If_Match='"other"') == (412, 0)
    assert status(Range="bytes=0-3") == status(Range="bytes=0-3", If_Range=tag) == (206, 4)
    assert status(Range="bytes=0-3", If_Range='"other"')[0] == 200
    assert status(Range="bytes=99999-") == (416, 0)


def test_another_policy_is_another_archive(make: Make) -> None:
    policy = [policy_of(NodeId(NEAR.node))]
    relay = make(signed=lambda _: policy[0])
    before = relay.signed(NEAR, "GET", own(NEAR))

    policy[0] = PolicyCopy("id-2", "c2lnbmVk", b'{"format":1,"node":"near","more":1}')
    after = relay.signed(NEAR, "GET", own(NEAR), **{"If-None-Match": before.headers["ETag"]})

    assert (after.status_code, after.headers["ETag"] == before.headers["ETag"]) == (200, False)


def test_a_file_that_the_site_placed_is_given_instead(relay: Relay) -> None:
    place(relay, NEAR, b"made by the site")
    place(relay, NEAR, b"other", "rules/rudder.tar.bz2")

    archive, other = relay.signed(NEAR, "GET", own(NEAR)), relay.signed(NEAR, "GET", own(NEAR, "rules/rudder.tar.bz2"))

    assert (archive.content, archive.headers["Last-Modified"], other.content) == (b"made by the site", SAID, b"other")
    for headers in ({"If-None-Match": archive.headers["ETag"]}, {"If-Modified-Since": SAID}):
        assert relay.signed(NEAR, "GET", own(NEAR), **headers).status_code == 304
    assert relay.signed(NEAR, "GET", f"{API}{own(NEAR)}").content == b"made by the site"


def test_a_relay_gives_what_is_mirrored_and_before_that_what_lies_there_itself(make: Make) -> None:
    relay = make(signed=policy_of, mirrored=True)
    place(relay, NEAR, b"from above", "file", "mirrored")
    place(relay, NEAR, b"archive from above", where="mirrored")
    place(relay, NEAR, b"other from above", "both", "mirrored")
    place(relay, NEAR, b"from here", "both")
    place(relay, FAR, b"secret", "file", "mirrored")
    place(relay, replace(NEAR, node="common"), b"for all", "file", "mirrored")
    (relay.directory / "mirrored" / NEAR.node / "sibling").symlink_to(f"../{FAR.node}/file")

    got = {path: relay.signed(NEAR, "GET", own(NEAR, path)).content for path in ("file", ARCHIVE, "both")}

    assert got == {"file": b"from above", ARCHIVE: b"archive from above", "both": b"from here"}
    assert relay.ask("GET", "/common/file").content == b"for all"
    assert relay.signed(NEAR, "GET", own(FAR, "file")).status_code == 403
    assert relay.signed(NEAR, "GET", own(NEAR, "sibling")).status_code == 404
    assert relay.signed(NEAR, "GET", own(NEAR, "none")).status_code == 404


def test_the_tag_counts_more_than_the_time(relay: Relay) -> None:
    place(relay, NEAR, b"first")
    tag = relay.signed(NEAR, "GET", own(NEAR)).headers["ETag"]
    place(relay, NEAR, b"other")  # with the same time

    answer = relay.signed(NEAR, "GET", own(NEAR), **{"If-None-Match": tag, "If-Modified-Since": SAID})

    assert (answer.status_code, answer.content) == (200, b"other")


def test_a_head_tells_what_a_get_would(relay: Relay) -> None:
    place(relay, NEAR, b"x" * 1000, "rules/file")
    for path in (own(NEAR), own(NEAR, "rules/file"), f"{API}{own(NEAR)}"):
        got, told = relay.signed(NEAR, "GET", path), relay.signed(NEAR, "HEAD", path, Range="bytes=0-3")

        assert (told.status_code, told.content) == (200, b"")
        for name in ("Content-Length", "Content-Type", "ETag"):
            assert told.headers[name] == got.headers[name]


def test_a_node_without_a_policy_gets_none(relay: Relay) -> None:
    for path in (own(FAR), f"{API}{own(FAR)}", own(NEAR, "rules/other.zip"), own(NEAR, "rules"), own(NEAR, "")):
        answer = relay.signed(FAR if FAR.node in path else NEAR, "GET", path)
        assert (answer.status_code, answer.text) == (404, "NOT FOUND"), path


def test_a_policy_that_cannot_be_had_now_is_not_an_absent_one(make: Make) -> None:
    def away(node: NodeId) -> PolicyCopy:
        raise Unavailable("The server above does not answer.")

    assert make(signed=away).signed(NEAR, "GET", own(NEAR)).status_code == 503


BOTH = pytest.mark.parametrize("prove", [shown, None], ids=["certificate", "signature"])
Prove = Callable[[Agent], dict[str, str]] | None


def asked(relay: Relay, one: Agent, path: str, prove: Prove, at: str = INSIDE) -> int:
    headers = prove(one) if prove is not None else one.headers("GET", path)
    return relay.ask("GET", path, at=at, headers=headers).status_code


@BOTH
def test_statement_65_another_nodes_policies_are_refused(prove: Prove, relay: Relay) -> None:
    place(relay, FAR, b"secret")

    assert asked(relay, NEAR, own(NEAR), prove) == asked(relay, FAR, own(FAR), prove) == 200
    for path in (own(FAR), own(FAR, "anything"), f"{API}{own(FAR)}"):
        assert asked(relay, NEAR, path, prove) == 403, path


@BOTH
def test_statement_65_an_id_that_only_begins_alike_is_refused(prove: Prove, relay: Relay) -> None:
    longer, shorter = replace(NEAR, node=f"{NEAR.node}0"), replace(NEAR, node=NEAR.node[:-1])
    for other in (longer, shorter, replace(NEAR, node=NEAR.node.upper()), replace(NEAR, node="")):
        place(relay, other, b"secret", "file")
        assert asked(relay, NEAR, own(other, "file"), prove) in (403, 404)
        assert asked(relay, NEAR, own(other), prove) in (403, 404)


def test_statement_65_certificates_for_ids_that_only_begin_alike_or_none_are_refused(relay: Relay) -> None:
    for node in (NEAR.node[:-1], f"{NEAR.node}0", " ", f" {NEAR.node}"):
        named = replace(NEAR, node=node)
        assert asked(relay, named, own(NEAR), shown) == asked(relay, named, own(named), shown) == 403


def test_statement_65_a_certificate_that_another_nodes_key_made_is_refused(relay: Relay) -> None:
    minted = replace(NEAR, key_number=FAR.key_number)

    assert asked(relay, minted, own(NEAR), shown) == asked(relay, minted, own(FAR), shown) == 403


def test_statement_65_who_proves_nothing_is_refused_from_everywhere(relay: Relay) -> None:
    place(relay, NEAR, b"x")
    for address in (INSIDE, LOOPBACK, OUTSIDE):
        for path in (own(NEAR), own(NEAR, "other"), f"{API}{own(NEAR)}", "/policies//rules", "/policies/"):
            assert relay.ask("GET", path, at=address).status_code in (403, 404)
            assert relay.ask("GET", path, at=address, headers=shown(STRANGER)).status_code in (403, 404)


@BOTH
def test_nodes_come_from_allowed_networks_only(prove: Prove, relay: Relay) -> None:
    assert asked(relay, NEAR, own(NEAR), prove, OUTSIDE) == 403


def test_a_node_whose_key_is_not_known_gets_nothing(relay: Relay) -> None:
    assert asked(relay, KEYLESS, own(KEYLESS), shown) == 403


@pytest.mark.parametrize(
    "path",
    [
        "..%2fcommon/file",
        "%2e%2e/common/file",
        f"%2e%2e/{FAR.node}/file",
        f"rules/..%2f..%2f{FAR.node}/file",
        f"./%2e%2e/{FAR.node}/file",
        "..\\common",
        "file%00",
        "%ff",
        "out",
        "sibling",
        "up/common/file",
        "dots/file",
    ],
)
def test_no_path_leads_out_of_the_nodes_own_directory(path: str, relay: Relay) -> None:
    share = relay.directory / "share"
    place(relay, NEAR, b"own", "file")
    place(relay, FAR, b"secret", "file")
    place(relay, replace(NEAR, node="common"), b"for all", "file")
    (relay.directory / "secret").write_text("secret")
    (share / NEAR.node / "out").symlink_to(relay.directory / "secret")
    (share / NEAR.node / "sibling").symlink_to(share / FAR.node / "file")
    (share / NEAR.node / "up").symlink_to(share)
    (share / NEAR.node / "dots").symlink_to(f"../{FAR.node}")

    answer = relay.client(INSIDE).request("GET", own(NEAR, path), headers=shown(NEAR))

    assert answer.status_code in (403, 404)
    assert relay.ask("GET", own(NEAR, "file"), headers=shown(NEAR)).content == b"own"


@pytest.mark.parametrize("node", [".", "..", ".hidden", "a/b", "a\\b", "*"])
def test_an_id_that_is_no_name_of_a_directory_has_no_files(node: str, make: Make) -> None:
    odd = Agent(node=node, key_number=1)
    listed = {node: {"hostname": "odd", "policy-server": "root", "key-hash": "sha256:"}}
    relay = make(document=listed)
    relay.write_list(listed)
    (relay.directory / "certs.pem").write_text(odd.certificate)
    relay.ask("POST", "system/reload", at=LOOPBACK)
    place(relay, FAR, b"secret", "file")

    answer = relay.ask("GET", f"/policies/{urllib.parse.quote(node, safe='')}/{FAR.node}/file", headers=shown(odd))

    assert answer.status_code in (403, 404)


def test_common_files_are_for_allowed_networks(relay: Relay) -> None:
    place(relay, replace(NEAR, node="common"), b"library", "library.tar.bz2")
    (relay.directory / "share" / "common" / "link").symlink_to(relay.directory / "share" / NEAR.node)
    place(relay, NEAR, b"own", "file")

    got = relay.ask("GET", "/common/library.tar.bz2")

    assert (got.status_code, got.content, got.headers["Last-Modified"]) == (200, b"library", SAID)
    assert relay.ask("HEAD", "/common/library.tar.bz2").headers["ETag"] == got.headers["ETag"]
    for path in ("/common/link/file", f"/common/..%2f{NEAR.node}/file", "/common/", "/common/none", "/common/a%00"):
        assert relay.ask("GET", path).status_code == 404
    assert relay.ask("GET", "/common/library.tar.bz2", at=OUTSIDE).status_code == 403


def test_everybody_may_know_who_this_server_is(make: Make) -> None:
    for me in ("root", "1a000000-0000-4000-8000-00000000000a"):
        relay = make(me=me)
        for address in (INSIDE, OUTSIDE, LOOPBACK):
            assert relay.ask("GET", "/uuid", at=address).text == f"{me}\n"
        assert relay.ask("HEAD", "/uuid").content == b""
        assert relay.ask("GET", "/uuid/more").status_code == 404


def test_what_stands_beside_the_prefix_does_not_stand_below_it(relay: Relay) -> None:
    place(relay, NEAR, b"x", "file")

    for path in (own(NEAR, "file"), "/uuid", "/common/file"):
        for prefix in ("/rudder/relay-api", "/rudder/relay-api/1"):
            assert relay.signed(NEAR, "GET", prefix + path).status_code == 404
