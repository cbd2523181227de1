# SPDX-License-Identifier: Apache-2.0
"""The catalogue of generic methods: complete, consistent, and in agreement with our own agent."""

from __future__ import annotations

import re

import pytest

from quarterdeck.core import methods
from quarterdeck.core.methods import Constraints, Method, MethodParameter
from quarterdeck.formats import agent, method_catalogue

CATALOGUE = method_catalogue.load()


def test_the_catalogue_is_complete() -> None:
    assert len(CATALOGUE) == 183
    assert sum(method.deprecated is not None for method in CATALOGUE.values()) == 45
    assert sum("dsc" in method.agents for method in CATALOGUE.values()) == 40


@pytest.mark.parametrize("method", CATALOGUE.values(), ids=lambda method: method.id)
def test_an_entry_is_consistent(method: Method) -> None:
    names = [parameter.name for parameter in method.parameters]

    assert len(set(names)) == len(names)
    assert method.class_parameter in names
    assert set(method.renamed.values()) <= set(names)
    assert not set(method.renamed) & set(names)
    assert method.description[-1] in ".?"
    for parameter in method.parameters:
        re.compile(parameter.constraints.regex)
    if method.deprecated and method.deprecated.replaced_by:
        assert method.deprecated.replaced_by in CATALOGUE


@pytest.mark.parametrize("name", sorted(agent.methods()))
def test_our_agents_methods_are_those_of_the_catalogue(name: str) -> None:
    ours, catalogued = agent.methods()[name], CATALOGUE[name]

    assert ours.parameters == tuple(parameter.name for parameter in catalogued.parameters)
    assert ours.prefix == catalogued.prefix
    assert ours.class_parameter == catalogued.class_parameter
    empty = {one.name for one in catalogued.parameters if one.constraints.allow_empty or "" in one.constraints.select}
    assert ours.optional == empty


def test_our_agent_has_at_least_forty_methods() -> None:
    current = [name for name in agent.methods() if CATALOGUE[name].deprecated is None]

    assert len(current) >= 40


@pytest.mark.parametrize(
    ("constraints", "value", "expected"),
    [
        (Constraints(), "x", ""),
        (Constraints(), "", "Must not be empty"),
        (Constraints(allow_empty=True), "", ""),
        (Constraints(), " x", "Must not have leading or trailing whitespaces"),
        (Constraints(), "x\n", "Must not have leading or trailing whitespaces"),
        (Constraints(allow_whitespace=True), " = ", ""),
        (
            Constraints(),
            "x" * 16385,
            "Max length is 16384. Current size is 16385. Keep longer texts in a file that the technique copies.",
        ),
        (Constraints(max_length=2), "abc", "Max length is 2. Current size is 3."),
        (Constraints(min_length=3), "ab", "Min length is 3. Current size is 2."),
        (Constraints(regex=r"^\d*$"), "12x", r"Must match regex '^\d*$'"),
        (Constraints(regex=r"^\d*$"), "${technique.limit}", ""),
        (Constraints(not_regex="/$"), "/a/", "Must not match regex '/$'"),
        (Constraints(select=("a", "b")), "c", "Must be one of 'a', 'b'"),
        (Constraints(select=("", "b")), "", ""),
    ],
)
def test_an_argument_is_checked(constraints: Constraints, value: str, expected: str) -> None:
    assert methods.problem(constraints, value) == expected


def test_a_call_is_checked_under_old_and_new_names() -> None:
    method = CATALOGUE["package_present"]

    assert methods.problems(method, {"name": "htop"}) == {}
    assert methods.problems(method, {"package_name": "htop", "version": ""}) == {}
    assert methods.problems(method, {"name": "", "provider": "brew", "colour": "red"}) == {
        "name": "Must not be empty",
        "provider": "Must be one of '', 'default', 'yum', 'apt', 'zypper', 'zypper_pattern', 'slackpkg', 'pkg',"
        " 'ips', 'nimclient', 'snap'",
        "colour": "Method 'package_present' has no parameter 'colour'",
    }


def test_a_parameter_without_constraints_is_mandatory() -> None:
    assert methods.problem(MethodParameter(name="x").constraints, "") == "Must not be empty"
