# SPDX-License-Identifier: Apache-2.0
"""Projects: their names and what their properties say."""

from __future__ import annotations

import pytest

from quarterdeck.core import projects
from quarterdeck.core.errors import Invalid
from quarterdeck.core.projects import Project, Source


@pytest.mark.parametrize("name", ["test", "a", "My-Project_1.2+x", "_x"])
def test_names_that_a_project_can_have(name: str) -> None:
    assert projects.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-x", "é", "x" * 256, "a\n"])
def test_names_that_no_project_has(name: str) -> None:
    with pytest.raises(Invalid):
        projects.check_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", Source("none")), ("none", Source("none")), ("all", Source("all")), ("group:a-1", Source("group", "a-1"))],
)
def test_where_nodes_come_from(text: str, expected: Source) -> None:
    assert Project("p", properties={"project.inventory.source": text}).inventory_source == expected


@pytest.mark.parametrize("text", ["some", "group", "group:", "all:x", "group:a b"])
def test_a_source_that_is_none_is_told(text: str) -> None:
    with pytest.raises(Invalid, match="none, all or group:ID"):
        projects.source(text)


def test_properties_may_refer_to_each_other_but_not_for_ever() -> None:
    project = Project(
        "p",
        properties={
            "host": "h.example.org",
            "project.resources.url": "https://${host}/r.xml",
            "project.ssh-keypath": "${unknown}/key",
            "a": "${b}",
            "b": "${a}",
            "project.resources.allowedURL.0": "https://${host}/.*",
            "project.resources.allowedURL.2": "not reached",
        },
    )

    assert project.resources_url == "https://h.example.org/r.xml"
    assert project.ssh_keypath == "${unknown}/key"
    assert project.get("a") in ("${a}", "${b}")
    assert project.allowed_urls == ("https://${host}/.*",)
