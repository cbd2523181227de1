# SPDX-License-Identifier: Apache-2.0
"""Class expressions and the conditions a machine starts with."""

from __future__ import annotations

import time

import pytest

from quarterdeck_agent import conditions, facts

KNOWN = {"a", "b", "debian_12"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", True),
        ("any", True),
        ("true", True),
        ("false", False),
        ("!any", False),
        ("a", True),
        ("c", False),
        ("!c", True),
        ("!!a", True),
        ("a.b", True),
        ("a.c", False),
        ("a&b", True),
        ("a&&c", False),
        ("c|a", True),
        ("c||d", False),
        ("c.a|b", True),
        ("a|b.c", True),
        ("(a|b).c", False),
        ("!(a.b)", False),
        ("!a|b", True),
        ("!(c|d).(a|e)", True),
        (" a . b ", True),
        ("a.(b|(c.!d))", True),
        ("debian_12.!redhat", True),
    ],
)
def test_class_expressions(expression: str, expected: bool) -> None:
    assert conditions.holds(expression, KNOWN) is expected


@pytest.mark.parametrize("expression", ["a b", "a.", ".a", "(a", "a)", "a|", "!", "a-b", "a%", "()", "a!b", "é"])
def test_what_is_no_expression_is_an_error_that_shows_it(expression: str) -> None:
    with pytest.raises(conditions.BadExpression, match="cannot be read"):
        conditions.holds(expression, KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/etc/motd", "_etc_motd"), ("a-b.c", "a_b_c"), ("A_9", "A_9"), ("é", "__"), ("", "")],
)
def test_canonify(text: str, expected: str) -> None:
    assert conditions.canonify(text) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, {"debian", "debian_12"}),
        (
            {"ID": "ubuntu", "VERSION_ID": "22.04", "ID_LIKE": "debian"},
            {"ubuntu", "debian", "ubuntu_22", "ubuntu_22_04"},
        ),
        (
            {"ID": "rocky", "VERSION_ID": "9.3", "ID_LIKE": "rhel centos fedora"},
            {"rocky", "redhat", "rhel", "rocky_9", "rocky_9_3"},
        ),
        ({"ID": "opensuse-leap", "VERSION_ID": "15.5", "ID_LIKE": "suse opensuse"}, {"suse", "opensuse_leap_15_5"}),
        ({}, set()),
    ],
)
def test_the_distribution_and_its_family_are_conditions(release: dict[str, str], expected: set[str]) -> None:
    found = facts.os_conditions(release)
    assert expected <= found
    assert "" not in found


def test_the_clock_is_a_condition() -> None:
    found = facts.time_conditions(time.strptime("2026-11-21 09:57", "%Y-%m-%d %H:%M"))
    assert found == {"Hr09", "Min57", "Min55_00", "Q4", "Day21", "Yr2026", "Saturday", "November", "Morning"}


def test_this_machine_has_the_usual_conditions() -> None:
    found = facts.gather()
    assert {"any", "linux"} <= found.conditions
    assert found.variables["const.n"] == "\n"
