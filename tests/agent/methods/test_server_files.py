# SPDX-License-Identifier: Apache-2.0
"""Methods that exchange files with the node's server; here it is a dictionary, over real servers: tests/e2e/test_relays.py."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import IO, Any

import pytest
from tests.agent.methods.casebook import COMPLIANT, DRIFT, ERROR, Scratch

from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import Unreachable
from quarterdeck_agent.exchange import Exchange
from quarterdeck_agent.outcome import METHODS, Finding, MethodCall

ME, OTHER = "node-me", "node-other"


class Server(Exchange):
    """What a server has, by path; `away` lets it be silent."""

    def __init__(self) -> None:
        self.folder: dict[str, bytes] = {}
        self.shared: dict[tuple[str, str, str], bytes] = {}
        self.away = False
        #: what was fetched, and what a file has become between listing and fetching
        self.fetched: list[str] = []
        self.changed: dict[str, bytes] = {}
        self._node = ME

    def folder_has(self, source: str, digest: str, algorithm: str) -> bool | None:
        self.listen()
        content = self.folder.get(source)
        return None if content is None else hashlib.new(algorithm, content).hexdigest() == digest

    def list_folder(self, source: str, levels: int | None) -> dict[str, str] | None:
        self.listen()
        if source in self.folder:
            return {"": hashlib.sha256(self.folder[source]).hexdigest()}
        start = f"{source}/" if source else ""
        inside = {path[len(start) :]: content for path, content in self.folder.items() if path.startswith(start)}
        if not inside:
            return None
        entries = {"": ""}
        for path, content in inside.items():
            parts = path.split("/")
            entries.update({"/".join(parts[:depth]): "" for depth in range(1, len(parts))})
            entries[path] = hashlib.sha256(content).hexdigest()
        return {path: one for path, one in entries.items() if levels is None or not path or path.count("/") < levels}

    def fetch_from_folder(self, source: str, target: IO[bytes]) -> None:
        self.fetched.append(source)
        target.write(self.changed.get(source, self.folder[source]))

    def is_shared(self, target: str, source: str, name: str, digest: str) -> bool:
        self.listen()
        content = self.shared.get((target, source, name))
        return content is not None and hashlib.sha512(content).hexdigest() == digest

    def share(self, target: str, name: str, ttl: str, content: bytes) -> None:
        self.shared[target, ME, name] = content

    def fetch_shared(self, source: str, name: str, target: IO[bytes]) -> None:
        target.write(self.shared[ME, source, name])

    def listen(self) -> None:
        if self.away:
            raise Unreachable("The server did not answer in time.")


@dataclasses.dataclass
class Called:
    """One method on one scratch machine with one server."""

    scratch: Scratch
    server: Server
    name: str
    params: dict[str, str]

    def call(self) -> MethodCall:
        return dataclasses.replace(self.scratch.call(**self.params), server=self.server)

    def audit(self) -> Finding:
        return METHODS[self.name].audit(self.call())

    def enforce(self) -> Finding:
        enforce = METHODS[self.name].enforce
        assert enforce is not None
        return enforce(self.call())


@pytest.fixture
def server() -> Server:
    return Server()


def folder(scratch: Scratch, server: Server, hash_type: str = "") -> Called:
    params = {"source": "tools/a", "path": "{work}/a", "hash_type": hash_type}
    return Called(scratch, server, "file_from_shared_folder", params)


@pytest.mark.parametrize("hash_type", ["", "sha256", "sha512", "md5", "sha1"])
def test_a_file_of_the_shared_folder_is_fetched_when_it_differs(
    scratch: Scratch, server: Server, hash_type: str
) -> None:
    server.folder["tools/a"] = b"new\n"
    called = folder(scratch, server, hash_type)

    missing = called.audit()
    called.enforce()
    fetched = called.audit()
    scratch.file("a", "altered")
    altered = called.audit()

    assert [found.state for found in (missing, fetched, altered)] == [DRIFT, COMPLIANT, DRIFT]
    called.enforce()
    assert scratch.read("a") == "new\n"


def test_what_the_shared_folder_lacks_or_nobody_answers_is_an_error(scratch: Scratch, server: Server) -> None:
    called = folder(scratch, server)

    absent = called.audit()
    server.away = True
    silent = called.audit()

    assert (absent.state, silent.state) == (ERROR, ERROR)
    assert "no file tools/a" in absent.message
    assert "did not answer" in silent.message


def test_a_file_is_shared_when_the_other_lacks_it_or_it_changed(scratch: Scratch, server: Server) -> None:
    params = {"remote_node": OTHER, "file_id": "keys", "file_path": "{work}/a", "ttl": "1d"}
    called = Called(scratch, server, "sharedfile_to_node", params)

    missing = called.audit()
    scratch.file("a", "one")
    before = called.audit()
    called.enforce()
    after = called.audit()
    scratch.file("a", "two")
    changed = called.audit()

    assert [found.state for found in (missing, before, after, changed)] == [ERROR, DRIFT, COMPLIANT, DRIFT]
    assert server.shared == {(OTHER, ME, "keys"): b"one"}


def test_a_file_that_another_node_shares_is_fetched(scratch: Scratch, server: Server) -> None:
    params = {"remote_node": OTHER, "file_id": "keys", "file_path": "{work}/a"}
    called = Called(scratch, server, "sharedfile_from_node", params)
    server.shared[ME, OTHER, "keys"] = b"theirs"

    before = called.audit()
    called.enforce()
    after = called.audit()

    assert (before.state, after.state) == (DRIFT, COMPLIANT)
    assert scratch.read("a") == "theirs"


@pytest.mark.parametrize("name", ["sharedfile_to_node", "sharedfile_from_node"])
def test_a_relative_path_is_an_error(scratch: Scratch, server: Server, name: str) -> None:
    params = {"remote_node": OTHER, "file_id": "keys", "file_path": "a", "ttl": "1d"}

    assert Called(scratch, server, name, params).audit().state is ERROR


# -- copies of what the shared folder has --------------------------------------------------

PEERS = "/var/rudder/configuration-repository/shared-files"


def copying(scratch: Scratch, server: Server, source: str, recursion: str = "") -> Called:
    params = {"source": source, "path": "{work}/copy"}
    if not recursion:
        return Called(scratch, server, "file_from_remote_source", params)
    return Called(scratch, server, "file_from_remote_source_recursion", {**params, "recursion": recursion})


def copied(scratch: Scratch) -> dict[str, bytes | None]:
    """What is below the target; None for directories."""
    target = scratch.work / "copy"
    found = sorted(target.rglob("*"))
    return {str(one.relative_to(target)): None if one.is_dir() else one.read_bytes() for one in found}


@pytest.mark.parametrize("source", ["tools/a", f"{PEERS}/tools/a", f"{PEERS}//tools/./a"])
def test_a_file_of_the_policy_server_is_one_of_its_shared_folder(scratch: Scratch, server: Server, source: str) -> None:
    server.folder["tools/a"] = b"new\n"
    called = copying(scratch, server, source)

    missing = called.audit()
    nothing = server.fetched == [] and not (scratch.work / "copy").exists()
    called.enforce()
    after = called.audit()

    assert nothing
    assert (missing.state, after.state) == (DRIFT, COMPLIANT)
    assert scratch.read("copy") == "new\n"
    assert (scratch.work / "copy").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "/var/rudder/shared-files/x",
        f"{PEERS}-other/a",
        f"{PEERS}/../../secret",
        "tools/../../secret",
        "/var/rudder/configuration-repository",
    ],
)
def test_other_files_of_the_policy_server_are_refused(scratch: Scratch, server: Server, source: str) -> None:
    found = copying(scratch, server, source, "inf").audit()

    assert found.state is ERROR
    assert f"{source} is not served" in found.message


def test_what_the_server_has_not_or_nobody_answers_is_an_error(scratch: Scratch, server: Server) -> None:
    called = copying(scratch, server, "tools")

    absent = called.audit()
    server.away = True
    silent = called.audit()

    assert (absent.state, silent.state) == (ERROR, ERROR)
    assert "has no tools" in absent.message
    assert "did not answer" in silent.message


TREE = {"app/a": b"1", "app/with blank.txt": b"2", "app/sub/\u00e9": b"3", "app/sub/deep/b": b"4", "other": b"5"}


@pytest.mark.parametrize(
    ("recursion", "wanted"),
    [
        ("0", {}),
        ("1", {"a": b"1", "with blank.txt": b"2", "sub": None}),
        ("2", {"a": b"1", "with blank.txt": b"2", "sub": None, "sub/\u00e9": b"3", "sub/deep": None}),
        ("inf", {"a", "with blank.txt", "sub", "sub/\u00e9", "sub/deep", "sub/deep/b"}),
    ],
)
def test_a_directory_is_copied_as_deep_as_asked(
    scratch: Scratch, server: Server, recursion: str, wanted: dict[str, bytes | None] | set[str]
) -> None:
    server.folder.update(TREE)
    called = copying(scratch, server, f"{PEERS}/app", recursion)

    before = called.audit()
    called.enforce()
    after = called.audit()

    assert (before.state, after.state) == (DRIFT, COMPLIANT)
    found = copied(scratch)
    assert (set(found) if isinstance(wanted, set) else found) == wanted
    assert (scratch.work / "copy").stat().st_mode & 0o777 == 0o700


def test_without_a_depth_a_directory_is_copied_without_what_is_in_it(scratch: Scratch, server: Server) -> None:
    server.folder.update(TREE)

    copying(scratch, server, "app").enforce()

    assert (scratch.work / "copy").is_dir()
    assert copied(scratch) == {}


def test_the_whole_shared_folder_can_be_copied(scratch: Scratch, server: Server) -> None:
    server.folder.update(TREE)

    copying(scratch, server, PEERS, "inf").enforce()

    assert copied(scratch)["other"] == b"5"


def test_only_what_differs_is_fetched_the_rest_keeps_its_mode_and_what_is_only_here_stays(
    scratch: Scratch, server: Server
) -> None:
    server.folder.update(TREE)
    called = copying(scratch, server, "app", "inf")
    called.enforce()
    server.fetched.clear()
    scratch.file("copy/sub/\u00e9", "altered", mode=0o640)
    scratch.file("copy/mine", "mine")

    drift = called.audit()
    called.enforce()

    assert drift.state is DRIFT
    assert "\u00e9 differs" in drift.message
    assert server.fetched == ["app/sub/\u00e9"]
    assert (scratch.work / "copy/sub/\u00e9").stat().st_mode & 0o777 == 0o640
    assert scratch.read("copy/mine") == "mine"
    assert called.audit().state is COMPLIANT


def test_the_previous_content_is_kept(scratch: Scratch, server: Server) -> None:
    server.folder["a"] = b"new"
    scratch.file("copy", "precious")
    called = copying(scratch, server, "a")
    backups = called.call().backups
    assert backups is not None

    called.enforce()

    assert [one.read_text() for one in Path(backups).iterdir()] == ["precious"]


def test_a_file_that_changes_while_it_is_fetched_is_an_error_and_nothing_is_changed(
    scratch: Scratch, server: Server
) -> None:
    server.folder["a"] = b"new"
    server.changed["a"] = b"newer"
    scratch.file("copy", "old")

    found = copying(scratch, server, "a").enforce()

    assert found.state is ERROR
    assert "changed while it was fetched" in found.message
    assert scratch.read("copy") == "old"


def test_a_directory_in_place_of_a_file_and_the_other_way_round_are_errors(scratch: Scratch, server: Server) -> None:
    server.folder.update({"a": b"1", "app/b": b"2"})
    scratch.file("copy/b/c", "3")

    over_directory = copying(scratch, server, "a").audit()
    deeper = copying(scratch, server, "app", "1").audit()
    (scratch.work / "copy/b/c").unlink()
    (scratch.work / "copy/b").rmdir()
    (scratch.work / "copy").rmdir()
    scratch.file("copy", "file")
    over_file = copying(scratch, server, "app").audit()

    assert [found.state for found in (over_directory, deeper, over_file)] == [ERROR] * 3
    assert "is not a regular file" in over_directory.message
    assert "is not a directory" in over_file.message


def test_a_recursion_that_is_no_depth_is_an_error(scratch: Scratch, server: Server) -> None:
    server.folder["a"] = b"1"

    found = copying(scratch, server, "a", "deep").audit()

    assert found.state is ERROR
    assert "recursion" in found.message


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a//b", "a\0b", "./a"])
def test_a_listing_that_leads_out_of_its_target_is_not_believed(path: str) -> None:
    class Lying(Client):
        def __init__(self) -> None:
            pass

        def document(self, path_: str) -> dict[str, Any]:
            return {"entries": {"": "", path: "00"}}

    class Believing(Exchange):
        def __init__(self) -> None:
            self._client = Lying()

    with pytest.raises(Unreachable, match="as agreed"):
        Believing().list_folder("app", None)
