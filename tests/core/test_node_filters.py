# SPDX-License-Identifier: Apache-2.0
"""Which nodes a filter means, and in which order they come."""

from __future__ import annotations

import pytest

from quarterdeck.core import node_filters
from quarterdeck.core.node_filters import EVERYTHING, NodeFilter, Side
from quarterdeck.core.resources import Resource

NODES = [
    Resource("web2", hostname="web2", tags=frozenset({"www", "blue"}), os_family="unix", attributes={"rank": "10"}),
    Resource("web1", hostname="web1", tags=frozenset({"www"}), os_family="unix", attributes={"rank": "9"}),
    Resource("db1", hostname="db.example.org", tags=frozenset({"sql", "blue"}), os_name="Linux"),
    Resource("win", hostname="a,b", os_family="windows", attributes={"rank": "x"}),
    Resource("bare"),
]


def names(wanted: NodeFilter) -> str:
    return " ".join(one.name for one in node_filters.select(wanted, NODES))


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (Side(hostname=".*"), "db1 web1 web2 win"),  # a node without hostname fits nothing
        (Side(hostname="web."), "web1 web2"),
        (Side(hostname="/web./"), "web1 web2"),
        (Side(hostname="/ web1 /"), "web1"),
        (Side(hostname="web"), ""),  # the whole value
        (Side(hostname="WEB1"), ""),
        (Side(hostname=" web1 "), "web1"),
        (Side(hostname="web1,web2"), "web1 web2"),
        (Side(hostname="web1, web2"), "web1"),  # items are taken as they are
        (Side(hostname="web.*,x"), ""),  # no patterns in a list
        (Side(hostname="a,b"), "win"),
        (Side(hostname="web[1"), ""),  # no regular expression
        (Side(name="web.", os_family="unix"), "web1 web2"),
        (Side(name="web.", os_family="windows"), ""),
        (Side(os_name="Linux"), "db1"),
        (Side(tags="www"), "web1 web2"),
        (Side(tags="www+blue"), "web2"),
        (Side(tags="www + blue"), "web2"),
        (Side(tags="sql,www"), "db1 web1 web2"),
        (Side(tags="sql,www+blue"), "db1 web2"),
        (Side(tags="b.*"), "db1 web2"),
        (Side(tags="/s.l/"), "db1"),
        (Side(tags="none"), ""),
        (Side(tags="www+"), ""),
    ],
)
def test_a_side_takes_the_nodes_that_fit_every_part(side: Side, expected: str) -> None:
    assert names(NodeFilter(include=side)) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (NodeFilter(), ""),
        (NodeFilter(include=Side(name=" ")), ""),
        (EVERYTHING, "db1 web1 web2 win"),
        (NodeFilter(exclude=Side(tags="www")), "bare db1 win"),
        (NodeFilter(include=Side(tags="blue"), exclude=Side(tags="www")), "db1"),
        (
            NodeFilter(include=Side(tags="blue"), exclude=Side(tags="www"), exclude_precedence=False),
            "bare db1 web2 win",
        ),
    ],
)
def test_both_sides_together(wanted: NodeFilter, expected: str) -> None:
    assert names(wanted) == expected


def test_ranks_are_numbers_before_texts_and_nodes_without_come_last_by_name() -> None:
    def order(attribute: str, *, descending: bool = False) -> list[str]:
        return [one.name for one in node_filters.order(NODES, attribute, descending=descending)]

    assert order("") == ["bare", "db1", "web1", "web2", "win"]
    assert order("rank") == ["web1", "web2", "win", "bare", "db1"]
    assert order("rank", descending=True) == ["win", "web2", "web1", "bare", "db1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"hostname": " ", "exclude-tags": ""}, None),
        ({"hostname": " h ", "os-name": "L"}, NodeFilter(include=Side(hostname="h", os_name="L"))),
        ({"exclude-tags": "x"}, NodeFilter(exclude=Side(tags="x"))),
        ({"name": "n", "exclude-precedence": "true"}, NodeFilter(include=Side(name="n"))),
        ({"name": "n", "exclude-precedence": "yes"}, NodeFilter(include=Side(name="n"), exclude_precedence=False)),
        ({"exclude-precedence": "false"}, EVERYTHING),
        ({"exclude-precedence": " "}, None),
        ({"project": "p"}, None),
    ],
)
def test_the_filter_of_a_request(given: dict[str, str], expected: NodeFilter | None) -> None:
    assert node_filters.from_parameters(given) == expected


def test_the_filters_of_a_job_may_hold_options() -> None:
    wanted = NodeFilter(include=Side(hostname="${option.h}"), exclude=Side(tags="a"), exclude_precedence=False)

    found = node_filters.replaced(wanted, lambda text: text.replace("${option.h}", "web1"))

    assert found == NodeFilter(include=Side(hostname="web1"), exclude=Side(tags="a"), exclude_precedence=False)
