# SPDX-License-Identifier: Apache-2.0
"""Statements 11 to 16 of the reference: the files that every node may have."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from pathlib import Path

import pytest
from tests.dialects.relay.conftest import FAR, INSIDE, LOOPBACK, NEAR, OUTSIDE, RELAY, STRANGER, Make, Relay

CONTENT = b"0123456789" * 100
SHA256, SHA512 = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha512(CONTENT).hexdigest()
MODIFIED = 1_780_000_000  # Thu, 28 May 2026 20:26:40 GMT
SAID = "Thu, 28 May 2026 20:26:40 GMT"


@pytest.fixture
def folder(root: Relay) -> Relay:
    path = root.folder / "app" / "settings.txt"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    os.utime(path, (MODIFIED, MODIFIED))
    return root


def head(relay: Relay, path: str, **query: str) -> int:
    asked = f"shared-folder/{path}?{urllib.parse.urlencode(query)}" if query else f"shared-folder/{path}"
    answer = relay.signed(NEAR, "HEAD", asked)
    assert answer.content == b""
    return answer.status_code


def test_statement_11_head_without_a_hash(folder: Relay) -> None:
    assert head(folder, "app/settings.txt") == 200
    assert head(folder, "app/settings.txt", hash="") == 200
    assert head(folder, "app/settings.txt", hash="", hash_type="nonsense") == 200
    assert head(folder, "app/other.txt") == 404
    assert head(folder, "app/other.txt", hash="nonsense", hash_type="nonsense") == 404
    assert head(folder, "app/settings.txt/below") == 404


def test_statement_12_head_with_the_same_hash_is_304(folder: Relay) -> None:
    assert head(folder, "app/settings.txt", hash=SHA256) == 304
    assert head(folder, "app/settings.txt", hash=SHA256, hash_type="sha256") == 304
    assert head(folder, "app/settings.txt", hash=SHA256, hash_type="") == 304
    assert head(folder, "app/settings.txt", hash=SHA512, hash_type="sha512") == 304
    assert head(folder, "app/settings.txt", hash=SHA256.upper()) == 304
    assert head(folder, "app/settings.txt", hash="0" * 64) == 200


def test_statement_12_a_file_that_changes_is_different_from_then_on(folder: Relay) -> None:
    assert head(folder, "app/settings.txt", hash=SHA256) == 304

    (folder.folder / "app" / "settings.txt").write_bytes(CONTENT[::-1])

    assert head(folder, "app/settings.txt", hash=SHA256) == 200
    assert head(folder, "app/settings.txt", hash=hashlib.sha256(CONTENT[::-1]).hexdigest()) == 304


@pytest.mark.parametrize(
    ("hash_", "kind"),
    [
        ("not hex", "sha256"),
        (SHA256[:-1], "sha256"),
        (SHA256[:-2], "sha256"),
        (SHA256 + "00", "sha256"),
        (SHA256, "sha512"),
        (SHA512, "sha256"),
        (SHA256, "SHA256"),
        (SHA256, "md5"),
        (f"{SHA256[:32]} {SHA256[32:]}", "sha256"),
    ],
)
def test_statement_13_bad_hashes_and_kinds_are_400(hash_: str, kind: str, folder: Relay) -> None:
    assert head(folder, "app/settings.txt", hash=hash_, hash_type=kind) == 400


def test_statement_14_blanks_and_other_letters_are_fine(root: Relay) -> None:
    for name in ("with blank.txt", "é.txt", "a+b", "100%"):
        (root.folder / name).write_bytes(name.encode())

        path = f"shared-folder/{urllib.parse.quote(name)}"

        assert root.signed(NEAR, "HEAD", path).status_code == 200
        assert root.signed(NEAR, "GET", path).content == name.encode()


@pytest.mark.parametrize(
    "path",
    [
        "..%2fsecret",
        "%2e%2e/secret",
        "app/..%2f..%2fsecret",
        "app/%2e%2e/%2e%2e/secret",
        "..foo",
        "app/..foo",
        "app%5csettings.txt",
        "a%00b",
        "%ff",
    ],
)
def test_statement_14_paths_that_lead_elsewhere_are_refused(path: str, folder: Relay) -> None:
    (folder.directory / "secret").write_text("secret")

    assert head(folder, path) == 400
    got = folder.signed(NEAR, "GET", f"shared-folder/{path}")
    assert (got.status_code, got.text) == (404, "NOT FOUND")


def test_links_lead_nowhere_outside_the_folder(folder: Relay) -> None:
    (folder.directory / "secret").write_text("secret")
    (folder.folder / "out").symlink_to(folder.directory / "secret")
    (folder.folder / "up").symlink_to(folder.directory)
    (folder.folder / "in").symlink_to(folder.folder / "app" / "settings.txt")

    assert head(folder, "out") == head(folder, "up/secret") == 404
    assert folder.signed(NEAR, "GET", "shared-folder/out").status_code == 404
    assert head(folder, "in", hash=SHA256) == 304


def test_directories_and_pipes_are_no_files(folder: Relay) -> None:
    os.mkfifo(folder.folder / "pipe")

    assert head(folder, "app") == 400
    assert head(folder, "pipe") == 400
    assert folder.signed(NEAR, "GET", "shared-folder/app").status_code == 404
    assert folder.signed(NEAR, "GET", "shared-folder/pipe").status_code == 404

    (folder.folder / "app" / "index.html").write_text("<p>index</p>")
    got = folder.signed(NEAR, "GET", "shared-folder/app/")
    assert (got.status_code, got.text, got.headers["Content-Type"]) == (200, "<p>index</p>", "text/html")


def test_statement_15_get_gives_the_content(folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/settings.txt")

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Last-Modified"] == SAID
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == "1000"
    assert answer.headers["Content-Type"] == "text/plain"
    assert "ETag" not in answer.headers


def test_statement_15_a_missing_file_is_not_found(folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/missing")

    assert (answer.status_code, answer.text) == (404, "NOT FOUND")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Modified-Since": SAID}, 304),
        ({"If-Modified-Since": "Thu, 28 May 2026 20:26:41 GMT"}, 304),
        ({"If-Modified-Since": "Thu, 28 May 2026 20:26:39 GMT"}, 200),
        ({"If-Modified-Since": "nonsense"}, 200),
        ({"If-Unmodified-Since": SAID}, 200),
        ({"If-Unmodified-Since": "Thu, 28 May 2026 20:26:39 GMT"}, 412),
        ({"If-Unmodified-Since": "Thu, 28 May 2026 20:26:39 GMT", "If-Modified-Since": SAID}, 412),
    ],
)
def test_statement_15_conditions(headers: dict[str, str], status: int, folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", **headers)

    assert answer.status_code == status
    assert answer.content == (CONTENT if status == 200 else b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=990-", 990, 999),
        ("bytes=990-5000", 990, 999),
        ("bytes=-5", 995, 999),
        ("bytes=-5000", 0, 999),
        ("bytes=0-1,5-6", 0, 1),
    ],
)
def test_statement_15_ranges(asked: str, first: int, last: int, folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", Range=asked)

    assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/1000"
    assert answer.headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_statement_15_ranges_without_a_byte_are_416(asked: str, folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", Range=asked)

    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */1000"


@pytest.mark.parametrize(
    "asked", ["lines=1-2", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=" + "9" * 99 + "-"]
)
def test_ranges_that_cannot_be_read_are_ignored(asked: str, folder: Relay) -> None:
    answer = folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", Range=asked)

    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_range_of_an_older_state_is_the_whole_file(folder: Relay) -> None:
    same = {"Range": "bytes=0-9", "If-Range": SAID}
    older = {"Range": "bytes=0-9", "If-Range": "Thu, 28 May 2026 20:26:39 GMT"}

    assert folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", **same).status_code == 206
    assert folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", **older).status_code == 200


def test_no_file_stays_open(folder: Relay) -> None:
    def ask() -> None:
        head(folder, "app/settings.txt", hash=SHA256)
        head(folder, "app")
        for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=5000-"}, {"If-Modified-Since": SAID}):
            folder.signed(NEAR, "GET", "shared-folder/app/settings.txt", **headers)

    ask()
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(5):
        ask()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def certificate(one: object, form: str = "nginx") -> dict[str, str]:
    """The header that a proxy adds for a client with a certificate."""
    pem = one.certificate  # type: ignore[attr-defined]
    return {"X-SSL-Client-Cert": urllib.parse.quote(pem) if form == "nginx" else pem.replace("\n", " ")}


def test_statement_16_who_proves_nothing_is_refused(folder: Relay) -> None:
    for address in (INSIDE, LOOPBACK, OUTSIDE):
        for method in ("GET", "HEAD"):
            assert folder.ask(method, "shared-folder/app/settings.txt", at=address).status_code == 403


@pytest.mark.parametrize("form", ["nginx", "apache"])
def test_statement_16_known_certificates_open_from_allowed_networks_only(form: str, folder: Relay) -> None:
    def get(one: object, at: str) -> int:
        return folder.ask("GET", "shared-folder/app/settings.txt", at=at, headers=certificate(one, form)).status_code

    assert get(NEAR, INSIDE) == get(FAR, INSIDE) == get(RELAY, LOOPBACK) == 200
    assert get(NEAR, OUTSIDE) == get(STRANGER, INSIDE) == 403


def test_statement_16_a_certificate_with_another_key_for_a_known_node_is_refused(folder: Relay) -> None:
    forged = type(NEAR)(node=NEAR.node, hostname=NEAR.hostname, key_number=STRANGER.key_number)

    answer = folder.ask("GET", "shared-folder/app/settings.txt", headers=certificate(forged))

    assert answer.status_code == 403


@pytest.mark.parametrize("node", ["", NEAR.node[:-1], f"{NEAR.node}0"])
def test_a_certificate_must_name_the_node_exactly(node: str, folder: Relay) -> None:
    named = type(NEAR)(node=node, hostname=NEAR.hostname, key_number=NEAR.key_number)
    try:
        headers = certificate(named)
    except ValueError:
        pytest.skip("such a certificate cannot be made")

    assert folder.ask("GET", "shared-folder/app/settings.txt", headers=headers).status_code == 403


def test_statement_16_signed_requests_open_too(folder: Relay) -> None:
    def get(one: object, at: str = INSIDE, **headers: str) -> int:
        return folder.signed(one, "GET", "shared-folder/app/settings.txt", at=at, **headers).status_code  # type: ignore[arg-type]

    assert get(NEAR) == 200
    assert get(NEAR, OUTSIDE) == 403
    assert get(STRANGER) == 401
    assert get(NEAR, **{"Quarterdeck-Nonce": "f" * 32}) == 401
    assert get(NEAR, **{"Quarterdeck-Time": "1000000000"}) == 401
    assert get(NEAR, **{"Quarterdeck-Node": FAR.node}) == 401


def test_a_signed_request_counts_once_and_for_its_path(folder: Relay) -> None:
    target = "/rudder/relay-api/1/shared-folder/app/settings.txt"
    headers = NEAR.headers("GET", target)

    elsewhere = folder.ask("GET", target.replace("/1/", "/"), headers=headers)
    first, second = folder.ask("GET", target, headers=headers), folder.ask("GET", target, headers=headers)

    assert [one.status_code for one in (elsewhere, first, second)] == [401, 200, 401]


def test_without_networks_nodes_that_sign_may_come_from_everywhere(make: Make) -> None:
    relay = make(networks=())
    (relay.folder / "file").write_bytes(b"content")

    signed = relay.signed(NEAR, "GET", "shared-folder/file", at=OUTSIDE)
    shown = relay.ask("GET", "shared-folder/file", at=OUTSIDE, headers=certificate(NEAR))

    assert (signed.status_code, shown.status_code) == (200, 403)


# -- what is at a path, for nodes that copy it ----------------------------------------------


def listing(relay: Relay, path: str) -> dict[str, str]:
    answer = relay.signed(NEAR, "GET", f"shared-folder-tree/{path}")
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()["entries"]
    return found


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("app/settings.txt", {"": SHA256}),
        ("app/settings.txt?depth=3", {"": SHA256}),
        ("app", {"": ""}),
        ("app?depth=0", {"": ""}),
        ("?depth=1", {"": "", "app": ""}),
        ("app?depth=1", {"": "", "settings.txt": SHA256, "more": ""}),
        ("?depth=2", {"": "", "app": "", "app/settings.txt": SHA256, "app/more": ""}),
        ("app?depth=inf", {"": "", "settings.txt": SHA256, "more": "", "more/with blank é": SHA256}),
        ("app/more/?depth=1", {"": "", "with blank é": SHA256}),
    ],
)
def test_a_node_is_told_what_is_at_a_path_as_deep_as_it_asks(folder: Relay, path: str, entries: dict[str, str]) -> None:
    (folder.folder / "app" / "more").mkdir()
    (folder.folder / "app" / "more" / "with blank é").write_bytes(CONTENT)

    assert listing(folder, path) == entries


def test_what_nobody_gets_is_not_told(folder: Relay) -> None:
    (folder.directory / "secret").write_text("secret")
    app = folder.folder / "app"
    (app / "out").symlink_to(folder.directory / "secret")
    (app / "up").symlink_to(folder.directory)
    (app / "loop").symlink_to(app)
    (app / "in").symlink_to(app / "settings.txt")
    (app / "back\\slash").write_bytes(b"x")
    os.mkfifo(app / "pipe")

    assert listing(folder, "app?depth=inf") == {"": "", "settings.txt": SHA256, "in": SHA256}
    for path in ("app/up?depth=1", "app/pipe", "app/none", "none?depth=inf", "app/settings.txt/x"):
        assert folder.signed(NEAR, "GET", f"shared-folder-tree/{path}").status_code == 404


@pytest.mark.parametrize("path", ["..%2fsecret", "app?depth=x", "app?depth=-1", f"app?depth={'9' * 5000}", "%ff"])
def test_a_listing_of_what_cannot_be_is_400(folder: Relay, path: str) -> None:
    assert folder.signed(NEAR, "GET", f"shared-folder-tree/{path}").status_code == 400


def test_a_listing_is_for_nodes_that_prove_who_they_are(folder: Relay) -> None:
    assert folder.ask("GET", "shared-folder-tree/app").status_code == 403
    assert folder.signed(STRANGER, "GET", "shared-folder-tree/app").status_code in (401, 403)
