# SPDX-License-Identifier: Apache-2.0
"""Techniques as YAML: read and written without loss; a bad document is told where it is bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import policies, technique_checks
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId, TechniqueId
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode
from quarterdeck.core.rules import Rule
from quarterdeck.core.techniques import PARAMETERS_SECTION, Block, Call, Constraints, Technique, TechniqueParameter
from quarterdeck.formats import agent, method_catalogue, technique_yaml

DOCUMENT = """\
format: 1
id: web_server
name: Web server
version: 1.0
description: Serves the web
category: ncf_techniques
tags: {team: web, level: 3, on: true, parts: [a, 1.5, null]}
multi_instance: false
params:
  - name: package
    default: nginx
    constraints:
      regex: {value: "[a-z]+", error_message: lower case letters}
  - id: 7d3f
    name: mode
    type: permissions
    default: 0644
sections:
  - name: Sites
    repeated: true
    params:
      - name: host
        constraints: {allow_empty: true}
      - name: kind
        type: string
        constraints:
          select:
            - {value: static, name: Static files}
            - {value: proxy}
items:
  - name: Software
    reporting: {mode: focus, id: pkg}
    items:
      - id: pkg
        method: package_present
        name: Package
        params: {name: "${web_server.package}", version: ""}
      - method: permissions
        condition: package_present_nginx_ok
        params:
          path: /etc/nginx
          mode: 0755
        reporting: {mode: disabled}
        tags: {why: because}
  - name: Site ${web_server.host}
    foreach: Sites
    when: kind == static
    condition: false
    items:
      - method: file_content
        params:
          path: /srv/${web_server.host}
          lines: |
            one
              two
          enforce: true
"""


def test_a_document_is_read() -> None:
    technique = technique_yaml.read(DOCUMENT)

    assert (technique.id, technique.version, technique.name) == ("web_server", "1.0", "Web server")
    assert technique.tags == {"team": "web", "level": 3, "on": True, "parts": ["a", 1.5, None]}
    assert technique.multi_instance is False
    assert technique.repeated == {"Sites"}
    package, mode, host, kind = technique.parameters
    assert (package.id, package.type, package.default, package.section) == (
        "package",
        "multiline-string",
        "nginx",
        PARAMETERS_SECTION,
    )
    assert package.constraints == Constraints(regex="[a-z]+", regex_message="lower case letters")
    assert (mode.id, mode.default) == ("7d3f", "0644")
    assert (host.section, host.constraints.may_be_empty, host.default) == ("Sites", True, None)
    assert kind.constraints.select == ("static", "proxy")
    assert kind.constraints.labels == {"static": "Static files"}
    software, site = technique.items
    assert isinstance(software, Block)
    assert isinstance(site, Block)
    assert software.logic == "focus:pkg"
    first, second = software.items
    assert isinstance(second, Call)
    assert first.id == "pkg"
    assert (second.report, second.condition, second.tags) == (False, "package_present_nginx_ok", {"why": "because"})
    assert second.parameters == {"path": "/etc/nginx", "mode": "0755"}
    assert (site.foreach, site.when, site.condition) == ("Sites", "kind == static", "false")
    (content,) = site.items
    assert isinstance(content, Call)
    assert content.parameters["lines"] == "one\n  two\n"
    assert content.parameters["enforce"] == "true"


def test_what_was_read_is_written_and_read_again_the_same() -> None:
    technique = technique_yaml.read(DOCUMENT)
    written = technique_yaml.write(technique)

    assert technique_yaml.read(written) == technique
    assert technique_yaml.write(technique_yaml.read(written)) == written


def test_items_without_id_get_the_same_one_each_time() -> None:
    one, two = technique_yaml.read(DOCUMENT), technique_yaml.read(DOCUMENT)

    assert [item.id for item in one.items] == [item.id for item in two.items]
    assert len({item.id for item in one.items}) == 2


HEAD = "id: t\nname: T\nversion: '1.0'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: The document is empty."),
        ("- a", "line 1: A technique must be a mapping"),
        ("id: [", "line 2: Not YAML: "),
        ("id: t\nid: t\n", "line 2: 'id' is given twice"),
        ("name: T\nversion: '1.0'", "line 1: A technique needs 'id'"),
        (HEAD + "colour: red", "line 4: A technique has no 'colour'"),
        (HEAD + "format: 2", "line 4: Only format 1 is known"),
        (HEAD + "policy_mode_override: audit", "line 4: Overriding the policy mode is not supported"),
        (HEAD + "name2: x", "line 4: A technique has no 'name2'"),
        (HEAD + "items: text", "line 4: 'items' must be a list"),
        (HEAD + "items:\n- just text", "line 5: A technique item must be a mapping"),
        (HEAD + "items:\n- name: x\n  params: {}", "line 5: A technique item needs 'method'"),
        (HEAD + "items:\n- method: m\n  params: {a: [1]}", "line 6: 'a' must be text"),
        (HEAD + "items:\n- method: m\n  foreach: S", "line 6: A technique item has no 'foreach'"),
        (HEAD + "items:\n- method: m\n  reporting: {mode: loud}", "line 6: The reporting of a call is enabled or"),
        (HEAD + "multi_instance: maybe", "line 4: 'multi_instance' must be true or false"),
        (HEAD + "sections:\n- name: S\n- name: S", "line 6: The section 'S' is given twice"),
        (HEAD + "tags: [a]", "line 4: 'tags' must be a mapping"),
        (HEAD + "documentation: &a x\ndescription: *a", "line 5: Aliases are not supported"),
        (HEAD + "tags: {a: " + "[" * 5000, "line 4: Nested more than 64 levels deep"),
        ("a: \x01", "Not YAML: "),
        ("x" * (technique_yaml.MAX_LENGTH + 1), "A technique has at most"),
    ],
)
def test_a_bad_document_is_told_where(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        technique_yaml.read(text)

    assert message in caught.value.message


texts = st.text(max_size=40)
lines = st.text(alphabet="ab :#-|>'\"\n\t\r\x85 é${}&*!0", max_size=30)
names = st.text(alphabet="abcXYZ_019-", min_size=1, max_size=8)
ids = st.uuids().map(str)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
tags = st.dictionaries(names, json_values, max_size=2)
conditions = st.one_of(st.sampled_from(["any", "", "false", "debian.!ubuntu"]), names)
calls = st.builds(
    Call,
    id=ids,
    method=names,
    component=lines,
    condition=conditions,
    parameters=st.dictionaries(names, texts | lines, max_size=3),
    report=st.booleans(),
    when=names,
    tags=tags,
)
items: st.SearchStrategy[Any] = st.recursive(
    calls,
    lambda inner: st.builds(
        Block,
        id=ids,
        component=lines,
        condition=conditions,
        logic=st.sampled_from(["weighted", "worst-case-weighted-one", "focus:x", "disabled"]),
        items=st.lists(inner, max_size=3).map(tuple),
        foreach=names | st.just(""),
        when=names | st.just(""),
        tags=tags,
    ),
    max_leaves=5,
)
constraints = st.builds(
    Constraints,
    may_be_empty=st.booleans(),
    regex=lines.filter(bool),
    regex_message=lines,
    select=st.lists(names, max_size=3, unique=True).map(tuple),
    password_hashes=st.lists(st.sampled_from(["plain", "md5"]), unique=True).map(tuple),
)
parameters = st.builds(
    TechniqueParameter,
    id=ids,
    name=names,
    description=texts,
    documentation=lines,
    type=st.sampled_from(["string", "multiline-string", "integer"]),
    default=st.none() | lines,
    constraints=constraints,
)
techniques = st.builds(
    Technique,
    id=names.map(TechniqueId),
    version=st.sampled_from(["1.0", "10.2"]),
    name=lines,
    category=names,
    description=lines,
    documentation=texts,
    items=st.lists(items, max_size=4).map(tuple),
    parameters=st.lists(parameters, max_size=3).map(tuple),
    multi_instance=st.booleans(),
    tags=tags,
)


def test_the_document_of_the_manual_is_a_good_technique() -> None:
    manual = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-technique.md"
    document = manual.read_text().partition("```yaml\n")[2].partition("```")[0]

    technique = technique_yaml.read(document)

    technique_checks.check(technique, method_catalogue.load())
    assert technique.parameters[0].id == "MOTD_TEXT"


@given(techniques, st.lists(texts | st.sampled_from(["${rudder.node.id}", "${node.properties[a]}"]), max_size=3))
def test_any_technique_gives_a_policy_or_a_reason(technique: Technique, values: list[str]) -> None:
    directive = Directive(
        id=DirectiveId("d"),
        name="D",
        technique=technique.id,
        version=technique.version,
        parameters={parameter.id: tuple(values) for parameter in technique.parameters},
    )
    rule = Rule(id=RuleId("r"), name="R", directives=frozenset({directive.id}))
    node = FleetNode(id=NodeId("n"), hostname="h", properties={"a": "1"})
    fleet = Fleet(
        nodes=[node],
        rules=[AppliedRule(rule, frozenset({node.id}))],
        directives={directive.id: directive},
        techniques={technique.key: technique},
        methods=method_catalogue.load(),
    )

    generated = policies.generate(fleet)

    for policy in generated.policies:
        document = policies.assemble(policy, "id", generated.fragments)
        assert document == agent.canonical(json.loads(document))
    assert len(generated.policies) + len(generated.errors) == 1


@given(techniques)
def test_any_technique_survives_writing_and_reading(technique: Technique) -> None:
    written = technique_yaml.write(technique)

    assert technique_yaml.read(written) == technique
    assert technique_yaml.write(technique_yaml.read(written)) == written
