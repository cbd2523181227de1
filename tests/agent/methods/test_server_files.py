# SPDX-License-Identifier: Apache-2.0
"""Methods that exchange files with the node's server; here it is a dictionary, over real servers: tests/e2e/test_relays.py."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import IO

import pytest
from tests.agent.methods.casebook import COMPLIANT, DRIFT, ERROR, Scratch

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
        self._node = ME

    def folder_has(self, source: str, digest: str, algorithm: str) -> bool | None:
        self.listen()
        content = self.folder.get(source)
        return None if content is None else hashlib.new(algorithm, content).hexdigest() == digest

    def fetch_from_folder(self, source: str, target: IO[bytes]) -> None:
        target.write(self.folder[source])

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
