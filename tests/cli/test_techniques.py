# SPDX-License-Identifier: Apache-2.0
"""Techniques and the files that come with them with `quarterdeck`, against the whole application."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine, Running

pytestmark = pytest.mark.xdist_group("cli techniques")

CALL = {"type": "call", "id": "call", "method": "file_present", "component": "x", "condition": "any"}
TECHNIQUE = {
    "id": "with_files",
    "version": "1.0",
    "name": "With files",
    "calls": [{**CALL, "parameters": {"path": "/tmp/x"}}],
    "parameters": [],
}


@pytest.fixture(scope="module")
def technique(running: Running) -> Running:
    running.ask("PUT", "/techniques", TECHNIQUE)
    return running


def test_files_of_a_technique_are_put_listed_read_and_deleted(
    technique: Running, operator: CommandLine, tmp_path: Path
) -> None:
    content = b"\x00\xff not text\n"
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    one = ("with_files", "1.0", "deep/a file")

    put = operator("techniques", "resources", "put", *one, str(source))
    listed = json.loads(operator("techniques", "resources", "list", "with_files", "1.0", "--json").out)
    got = json.loads(operator("techniques", "resources", "get", *one, "--output", str(target), "--json").out)
    of_rudder = technique.ask("GET", "/techniques/with_files/1.0/resources")["resources"]
    deleted = operator("techniques", "resources", "delete", *one)
    empty = operator("techniques", "resources", "list", "with_files", "1.0")

    assert put.code == deleted.code == 0
    assert listed == [got] == [{"path": "deep/a file", "sha256": hashlib.sha256(content).hexdigest(), "size": 12}]
    assert target.read_bytes() == content
    assert of_rudder == [{"path": "deep/a file", "state": "untouched"}]
    assert "The technique has no resource." in empty.out


def test_what_the_server_refuses_is_one_sentence(technique: Running, operator: CommandLine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")

    outside = operator("techniques", "resources", "put", "with_files", "1.0", "../x", str(source))
    missing = operator("techniques", "resources", "get", "with_files", "1.0", "nothing")
    nowhere = operator("techniques", "resources", "get", "with_files", "1.0", "nothing", "--json")

    assert (outside.code, missing.code, nowhere.code) == (1, 1, 2)
    assert "every part between slashes must be a name" in outside.err
    assert "has no resource 'nothing'" in missing.err
    assert "--output" in nowhere.err


def test_techniques_are_listed(technique: Running, operator: CommandLine) -> None:
    shown = operator("techniques", "list")

    assert "with_files" in shown.out
    assert "editor" in shown.out
