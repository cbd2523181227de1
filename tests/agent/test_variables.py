# SPDX-License-Identifier: Apache-2.0
"""Agent-side expansion of variables."""

from __future__ import annotations

import pytest

from quarterdeck_agent import conditions, variables

VARIABLES: dict[str, object] = {
    "app.name": "web",
    "app.port": 8080,
    "app.on": True,
    "app.hosts": ["one", "two"],
    "app.map": {"k": {"n": "deep"}, "web": "by name", "a b": "blank", "x[0]": "bracket"},
    "app.sly": "${app.name}",
    "a.b.c": "three parts",
    "node.properties": {"site": {"city": "Lyon", "zip": 69001}, "empty": ""},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${app.name}", "web"),
        ("<${app.name}-${app.port}>", "<web-8080>"),
        ("${app.on}", "true"),
        ("${app.hosts}", '["one","two"]'),
        ("${app.hosts[1]}", "two"),
        ("${app.map[k][n]}", "deep"),
        ("${app.map[k]}", '{"n":"deep"}'),
        ("${app.map[a b]}", "blank"),
        ("${app.map[${app.name}]}", "by name"),
        ("${app.map[x[0]]}", "bracket"),
        ("${a.b.c}", "three parts"),
        ("${node.properties[site][city]}", "Lyon"),
        ("${node.properties[site][zip]}", "69001"),
        ("${node.properties[empty]}", ""),
        ("${app.sly}", "${app.name}"),  # a value is never read as a reference
        ("${HOME}", "${HOME}"),
        ("$(app.name)", "$(app.name)"),
        ("${a.b:-x}", "${a.b:-x}"),
        ("${app.name", "${app.name"),
        ("${app.map[k}", "${app.map[k}"),
        ("$${app.name}", "$web"),
        ("${}${ app.name}", "${}${ app.name}"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert variables.expand(text, VARIABLES) == expected


@pytest.mark.parametrize(
    "text",
    ["${no.such}", "${app.map[z]}", "${app.map[k][n][x]}", "${app.hosts[2]}", "${node.properties[gone]}"],
)
def test_an_undefined_variable_is_named(text: str) -> None:
    with pytest.raises(variables.UndefinedVariable) as caught:
        variables.expand(f"before {text} after", VARIABLES)
    assert str(caught.value) == f"undefined variable {text}"


def test_in_a_condition_values_become_names() -> None:
    known: dict[str, object] = {"pack.name": "lib-x.y|any"}
    assert variables.expand("present_${pack.name}_ok", known, conditions.canonify) == "present_lib_x_y_any_ok"
