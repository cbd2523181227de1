# SPDX-License-Identifier: Apache-2.0
"""Variables in directive values: what each form gives, and what each mistake is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import variables
from quarterdeck.core.errors import Invalid

PROPERTIES: dict[str, Any] = {
    "env": "prod",
    "net": {"fqdn": "n1.example.com", "ips": ["10.0.0.1"]},
    "count": 3,
    "on": True,
    "nothing": None,
    "from_node": "${rudder.param.secret}",
    "key.with-signs": "odd",
}
PARAMETERS: dict[str, Any] = {
    "dc": "par1",
    "secret": "s3cret",
    "nested": "at ${rudder.param.dc} on ${rudder.node.hostname}",
    "tree": {"a": {"b": "leaf ${rudder.param.dc}"}, "n": 5},
    "loop": "${rudder.param.loop}",
    "only_global": "g ${rudder.node.id}",
    "env": "overridden",
}
FACTS = {
    ("node", "id"): "node-1",
    ("node", "hostname"): "host1",
    ("node", "admin"): "root",
    ("node", "state"): "enabled",
    ("node", "policymode"): "audit",
    ("policyserver", "id"): "root",
    ("policyserver", "hostname"): "server",
    ("policyserver", "admin"): "root",
}


def expand(text: str, parameters: dict[str, Any] | None = None) -> str:
    scope = variables.Scope(PARAMETERS if parameters is None else parameters)
    subject = variables.Subject(id="node-1", hostname="host1", properties=PROPERTIES, facts=FACTS)
    return variables.render(scope.bind(variables.parse(text)), subject)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain $ {text} } ${", "plain $ {text} } ${"),
        ("${rudder.node.id}", "node-1"),
        ("a ${rudder.node.hostname} b ${rudder.node.admin}", "a host1 b root"),
        ("${rudder.node.state}/${rudder.node.policymode}", "enabled/audit"),
        ("${rudder.node.policyserver.id} ${rudder.node.policyserver.hostname}", "root server"),
        ("${ RUDDER . Node . HostName }", "host1"),
        ("${rudder.param.dc}", "par1"),
        ("${rudder.param.nested}", "at par1 on host1"),
        ("${rudder.parameters[tree][a][b]}", "leaf par1"),
        ("${rudder.parameters[tree][n]}", "5"),
        ("${rudder.parameters[ dc ]}", "par1"),
        ("${node.properties[env]}", "prod"),
        ("${NODE.Properties[ net ][ fqdn ]}", "n1.example.com"),
        ("${node.properties[net][ips]}", '["10.0.0.1"]'),
        ("${node.properties[net]}", '{"fqdn":"n1.example.com","ips":["10.0.0.1"]}'),
        ("${node.properties[count]} ${node.properties[on]} [${node.properties[nothing]}]", "3 true []"),
        ("${node.properties[key.with-signs]}", "odd"),
        ("${node.properties[only_global]}", "g node-1"),
        ("${node.properties[env] | node}", "${node.properties[env]}"),
        ("${node.properties[ absent ][x]|Node }", "${node.properties[absent][x]}"),
        ('${node.properties[absent] | default = "text"}', "text"),
        ('${node.properties[absent]|default="""say "hi" } there"""}', 'say "hi" } there'),
        ('${node.properties[absent] | default = ""}', ""),
        ('${node.properties[env] | default = "unused"}', "prod"),
        ("${node.properties[absent] | default = ${rudder.param.dc}}", "par1"),
        ('${node.properties[x] | default = ${node.properties[y] | default = "z"} }', "z"),
        (
            "${any.other} ${agent} $(this) ${data.frame} ${prefix.name[key]}",
            "${any.other} ${agent} $(this) ${data.frame} ${prefix.name[key]}",
        ),
        ("${rudderish.x} ${nodes.y}", "${rudderish.x} ${nodes.y}"),
    ],
)
def test_a_variable_gives(text: str, expected: str) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${node.properties[absent]}", "Missing property '${node.properties[absent]}' on node 'host1' [node-1]"),
        ("${node.properties[net][x]}", "Missing property '${node.properties[net][x]}' on node 'host1' [node-1]"),
        ("${rudder.param.absent}", "Missing parameter '${node.parameter[absent]}'"),
        ("${rudder.parameters[tree][x]}", "Missing parameter '${node.parameter[tree][x]}'"),
        ("${node.x}", "Unknown interpolated variable ${node.x}"),
        ("${rudder.node.colour}", "Unknown interpolated variable ${rudder.node.colour}"),
        ("${rudder.other}", "Unknown interpolated variable ${rudder.other}"),
        ("${node.properties}", "Error when parsing value (without ''): '${node.properties}'"),
        ("${node.properties[a b]}", "Error when parsing value (without ''): '${node.properties[a b]}'"),
        ("${node.properties[a] | wrong}", "Error when parsing value (without ''): "),
        ("${node.properties[a] | default = text}", "Error when parsing value (without ''): "),
        ("x ${rudder.node.id", "Error when parsing value (without ''): 'x ${rudder.node.id'"),
        ("${data.vault[secret][key]}", "Unknown property engine 'vault' in '${data.vault[secret][key]}'"),
        ("${rudder.param.loop}", "Parameters are nested more than 5 levels deep: this is a circular dependency"),
    ],
)
def test_a_mistake_is_told(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        expand(text)

    assert caught.value.message.startswith(message)


def test_parameters_may_name_each_other_five_levels_deep() -> None:
    chain = {f"p{level}": f"${{rudder.param.p{level + 1}}}" for level in range(6)}

    assert expand("${rudder.param.p2}", chain | {"p6": "end"}) == "end"
    with pytest.raises(Invalid, match="nested more than 5"):
        expand("${rudder.param.p0}", chain | {"p6": "end"})


def test_a_nodes_own_property_is_not_read_for_variables() -> None:
    assert expand("${node.properties[from_node]}") == "${rudder.param.secret}"


def test_thousands_of_nested_defaults_are_refused_with_a_sentence() -> None:
    text = "${node.properties[a]|default=" * 3000 + '"x"' + "}" * 3000

    with pytest.raises(Invalid, match="nested more than 5"):
        expand(text)


def test_a_text_is_parsed_once() -> None:
    assert variables.parse("again ${node.properties[env]}") is variables.parse("again ${node.properties[env]}")


@pytest.mark.parametrize(
    ("text", "depends"),
    [
        ("plain", False),
        ("${rudder.param.dc} ${other.var}", False),
        ("${node.properties[env] | node}", False),
        ("${rudder.param.nested}", True),
        ("${node.properties[env]}", True),
        ("${rudder.node.id}", True),
    ],
)
def test_a_template_tells_whether_it_depends_on_the_node(text: str, *, depends: bool) -> None:
    bound = variables.Scope(PARAMETERS).bind(variables.parse(text))

    assert (bound.literal is None) is depends


def test_references_that_mean_the_same_have_one_key() -> None:
    keys = {
        reference.key
        for text in ('${node.properties[a] | default = "x"}', '${NODE.properties[ a ]|default="""x"""}')
        for reference in variables.parse(text).references()
    }

    assert len(keys) == 1


def test_a_technique_text_leaves_to_the_agent_what_the_server_does_not_know() -> None:
    text = "${node.properties[a]} ${node.inventory[os]} ${rudder.node.id} ${x.y}"

    template = variables.parse_technique_text(text)

    assert template.parts == (
        "${node.properties[a]} ${node.inventory[os]} ",
        variables.Fact("node", "id"),
        " ${x.y}",
    )


@given(st.text())
def test_any_text_is_read_or_refused_with_our_error(text: str) -> None:
    try:
        template = variables.parse(text)
    except Invalid:
        return

    if "${" not in text:
        assert (template.literal or "") == text
