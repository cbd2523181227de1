# SPDX-License-Identifier: Apache-2.0
"""Where links lead a change that an ordinary user can influence: nowhere that user could not change alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.agent.methods.casebook import Scratch, needs_root

from quarterdeck_agent.methods import system
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import State


def foreign_link(scratch: Scratch, name: str, target: Path, uid: int = 12345) -> None:
    """A link that an ordinary user put where the agent will look."""
    path = scratch.work / name
    path.symlink_to(target)
    os.lchown(path, uid, uid)


@needs_root
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("file_content", {"path": "{work}/f", "lines": "mine", "enforce": "true"}),
        ("file_lines_present", {"path": "{work}/f", "lines": "mine"}),
        ("permissions", {"path": "{work}/f", "owner": "12345"}),
        ("permissions", {"path": "{work}/f", "mode": "666"}),
        ("file_lines_present", {"path": "{work}/d/secret", "lines": "mine"}),
        ("permissions", {"path": "{work}/d/secret", "mode": "666"}),
        ("file_absent", {"path": "{work}/d/secret"}),
        ("directory_absent", {"path": "{work}/d/inside", "recursive": "true"}),
        ("file_present", {"path": "{work}/d/new"}),
        ("directory_present", {"path": "{work}/d/fresh"}),
    ],
)
def test_a_link_of_another_user_leads_no_change_astray(scratch: Scratch, method: str, params: dict[str, str]) -> None:
    secret = scratch.file("of-root/secret", "root's\n", 0o600)
    (secret.parent / "inside").mkdir()
    foreign_link(scratch, "f", secret)
    foreign_link(scratch, "d", secret.parent)
    before = scratch.snapshot()

    found = scratch.enforce(method, **params)

    assert found.state is State.ERROR
    assert "is a link to a file of somebody else, made by user 12345" in found.message
    assert scratch.snapshot() == before


@needs_root
def test_a_link_of_another_user_is_removed_and_replaced_itself(scratch: Scratch) -> None:
    secret = scratch.file("secret", "root's\n", 0o600)
    foreign_link(scratch, "f", secret)
    foreign_link(scratch, "g", secret)

    scratch.enforce("file_absent", path="{work}/f")
    scratch.enforce("file_symlink_present_force", source="elsewhere", path="{work}/g")

    assert not (scratch.work / "f").is_symlink()
    assert (scratch.work / "g").readlink() == Path("elsewhere")
    assert secret.read_text() == "root's\n"


@needs_root
def test_a_link_to_what_its_maker_owns_is_followed(scratch: Scratch) -> None:
    own = scratch.file("own", "a\n")
    os.chown(own, 12345, 12345)
    foreign_link(scratch, "f", own)

    scratch.enforce("file_lines_present", path="{work}/f", lines="b")

    assert own.read_text() == "a\nb\n"


@pytest.mark.parametrize("path", ["{work}/l/../x", "{work}/l/x", "{work}/./a//l", "{work}/none/../x", "{work}/chain"])
def test_paths_resolve_as_the_system_resolves_them(scratch: Scratch, path: str) -> None:
    scratch.file("a/b/x", "")
    (scratch.work / "l").symlink_to("a/b")
    (scratch.work / "a/l").symlink_to(scratch.work / "l")
    (scratch.work / "chain").symlink_to("a/l/x")

    assert system.resolved(scratch.filled(path)) == os.path.realpath(scratch.filled(path))


def test_a_ring_of_links_is_an_error(scratch: Scratch) -> None:
    (scratch.work / "a").symlink_to("b")
    (scratch.work / "b").symlink_to("a")

    with pytest.raises((UnableError, OSError)):
        system.resolved(scratch.filled("{work}/a"))
