# SPDX-License-Identifier: Apache-2.0
"""Which paths the files of techniques may have, and what policies say of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.common.fleets import TECHNIQUE

from quarterdeck.core import policy_items, technique_resources, variables
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Conflict, Invalid
from quarterdeck.core.ids import DirectiveId, RuleId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.policy_items import Fragment
from quarterdeck.core.techniques import TechniqueResource

DIGEST = "ab" * 32


@pytest.mark.parametrize("path", ["motd", "deep/er/motd", ".profile", "a b", "über", "a" * 255, "..a/b.."])
def test_plain_paths_are_allowed(path: str) -> None:
    technique_resources.check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/motd",
        "..",
        "../motd",
        "a/../motd",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "\udcff",
        "a" * 256,
        "é" * 128,
        "/".join(["a" * 200] * 6),
    ],
)
def test_paths_that_lead_elsewhere_or_cannot_be_written_are_refused(path: str) -> None:
    with pytest.raises(Invalid, match="cannot have the path"):
        technique_resources.check_path(path)


@pytest.mark.parametrize(("path", "other"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a/b", "a/b/c/d")])
def test_nothing_is_a_file_and_a_directory(path: str, other: str) -> None:
    with pytest.raises(Conflict, match="file and a directory"):
        technique_resources.check_beside(path, ["z", other])


def test_a_file_may_lie_beside_others_and_in_place_of_itself() -> None:
    technique_resources.check_beside("a", ["a", "ab", "b/a"])


def test_a_technique_has_only_so_many_files() -> None:
    others = [f"file-{number}" for number in range(technique_resources.MAX_FILES)]

    technique_resources.check_beside(others[0], others)
    with pytest.raises(Conflict, match="at most 1000"):
        technique_resources.check_beside("one more", others)


@pytest.mark.parametrize(("text", "expected"), [(DIGEST, True), (DIGEST.upper(), False), ("ab", False), ("", False)])
def test_a_digest_is_told_from_other_text(text: str, expected: bool) -> None:  # a table
    assert technique_resources.is_digest(text) is expected


# -- in policies -------------------------------------------------------------------------------


def fragment(text: str = "hello", *resources: TechniqueResource) -> Fragment:
    """The technique of fleets, with these files, as a directive brings it."""
    technique = replace(TECHNIQUE, resources=resources)
    directive = Directive(
        id=DirectiveId("d"),
        name="d",
        technique=TECHNIQUE.id,
        version=TECHNIQUE.version,
        parameters={"TEXT": (text,)},
    )
    return policy_items.compile_fragment(
        technique, directive, RuleId("r"), PolicyMode.ENFORCE, scope=variables.Scope({}), methods={}, known={}
    )


def test_a_fragment_names_the_files_of_its_technique() -> None:
    made = fragment("${rudder.node.id}", TechniqueResource("motd", DIGEST, 5), TechniqueResource("issue", DIGEST, 5))

    filled = json.loads(policy_items.fill(made.body, {hole.key: "node" for hole in made.holes}))

    assert filled["resources"] == [
        {"path": "motd", "sha256": DIGEST, "size": 5},
        {"path": "issue", "sha256": DIGEST, "size": 5},
    ]
    assert policy_items.contents_of(made.body) == (DIGEST,)


def test_a_fragment_without_files_looks_as_it_always_did() -> None:
    made = fragment('"resources":')

    assert "resources" not in json.loads(made.body)
    assert policy_items.contents_of(made.body) == ()


def test_another_content_makes_another_fragment() -> None:
    one, other = (fragment("hello", TechniqueResource("motd", digest, 5)) for digest in (DIGEST, "cd" * 32))

    assert one.digest != other.digest
