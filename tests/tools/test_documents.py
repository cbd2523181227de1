# SPDX-License-Identifier: Apache-2.0
"""Documents keep up with the code: dependencies, decisions, functions that the architecture names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tests.daemon.servers import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
SOURCES = ROOT / "src" / "quarterdeck"


def test_every_direct_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {name.partition("[")[0] for name in project["dependencies"]}

    named = set(re.findall(r"^\| ([a-z][a-z0-9-]*) \|", ARCHITECTURE.partition("## Dependencies")[2], re.MULTILINE))

    assert named == wanted


@pytest.mark.parametrize(
    ("path", "function"),
    re.findall(r"`([a-z_]+/[a-z_/]+\.py): ([A-Za-z_.]+)`", ARCHITECTURE),
    ids=str,
)
def test_what_the_architecture_names_exists(path: str, function: str) -> None:
    source = (SOURCES.parent if path.startswith("quarterdeck_agent") else SOURCES) / path

    text = source.read_text()

    for name in function.split("."):
        assert re.search(rf"^\s*(async )?(def|class) {name}\b|^{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_what_enforces_it_and_that_exists(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.name[:4]}. ")
    enforced = text.partition("## What enforces it")[2]

    named = re.findall(r"`((?:tests|bench)/[a-z_/]+(?:\.py|\.yaml)?)/?`", enforced)

    assert enforced.strip()
    assert [name for name in named if not (ROOT / name).exists()] == []
