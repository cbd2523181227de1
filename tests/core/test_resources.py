# SPDX-License-Identifier: Apache-2.0
"""Resources under the names that RunDeck gives their attributes."""

from __future__ import annotations

import pytest

from quarterdeck.core import resources
from quarterdeck.core.resources import Resource

WEB = Resource(
    "web1",
    hostname="web1.example.org:22",
    tags=frozenset({"www", "blue"}),
    os_family="unix",
    attributes={"rack": "7", "empty": ""},
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "web1"),
        ("nodename", "web1"),
        ("hostname", "web1.example.org:22"),
        ("tags", "blue,www"),
        ("os-family", "unix"),
        ("osFamily", "unix"),
        ("os-name", ""),
        ("rack", "7"),
        ("unknown", ""),
    ],
)
def test_every_attribute_is_found_by_its_name(name: str, value: str) -> None:
    assert WEB.get(name) == value


def test_a_default_stands_for_what_is_not_set() -> None:
    assert WEB.get("username", "root") == "root"
    assert WEB.get("unknown", "x") == "x"


def test_only_what_has_a_value_is_listed() -> None:
    assert list(WEB.items()) == [
        ("name", "web1"),
        ("hostname", "web1.example.org:22"),
        ("tags", "blue,www"),
        ("os-family", "unix"),
        ("rack", "7"),
    ]


def test_of_two_with_one_name_the_later_values_win() -> None:
    later = Resource("web1", username="ops", os_family="windows", attributes={"rack": "8"})

    [one, other] = resources.merged([WEB, Resource("db1"), later])

    assert (one.hostname, one.username, one.os_family) == ("web1.example.org:22", "ops", "windows")
    assert (one.tags, one.attributes["rack"], other.name) == (WEB.tags, "8", "db1")
