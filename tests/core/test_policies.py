# SPDX-License-Identifier: Apache-2.0
"""Policy generation: which directives a node gets, in which mode and order, and what the document says."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import policies, variables
from quarterdeck.core.directives import Directive
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, RuleId, TechniqueId
from quarterdeck.core.methods import Method, MethodParameter
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.nodes import AgentSchedule, NodeKind, NodeState
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode, Overridden
from quarterdeck.core.rules import Rule
from quarterdeck.core.settings import Settings
from quarterdeck.core.techniques import Block, Call, Technique, TechniqueParameter

AUDIT, ENFORCE = PolicyMode.AUDIT, PolicyMode.ENFORCE
STARTED = datetime(2026, 11, 21, 9, 5, 3, tzinfo=UTC)
N1, N2 = NodeId("n1"), NodeId("n2")
METHODS = {
    "file_content": Method(
        id="file_content",
        name="File content",
        description="",
        prefix="file_lines_present",
        class_parameter="path",
        parameters=tuple(MethodParameter(name=name) for name in ("path", "lines", "enforce")),
        renamed={"file": "path"},
    )
}
FILE = Technique(
    id=TechniqueId("file_tech"),
    version="1.0",
    name="File",
    parameters=(
        TechniqueParameter(id="PATH", name="path"),
        TechniqueParameter(id="LINES", name="lines", default="hello"),
    ),
    items=(
        Call(
            id="c1",
            method="file_content",
            component="Content of ${file_tech.path}",
            parameters={"file": "${file_tech.path}", "lines": "${file_tech.lines}", "enforce": "true"},
        ),
    ),
)
SOLO = replace(FILE, id=TechniqueId("solo"), multi_instance=False, items=())


def directive(name: str, technique: Technique = FILE, **fields: Any) -> Directive:
    values: dict[str, Any] = {"parameters": {"PATH": ("/etc/x",)}, "technique": technique.id, "version": "1.0"}
    return Directive(id=DirectiveId(f"d-{name}"), name=name, **(values | fields))


def fleet(
    rules: dict[str, list[Directive]],
    *,
    nodes: list[FleetNode] | None = None,
    techniques: tuple[Technique, ...] = (FILE, SOLO),
    **fields: Any,
) -> Fleet:
    found = nodes if nodes is not None else [FleetNode(id=N1, hostname="host1")]
    ids = frozenset(node.id for node in found)
    applied = [
        AppliedRule(Rule(id=RuleId(f"r-{name}"), name=name, directives=frozenset(one.id for one in used)), ids)
        for name, used in rules.items()
    ]
    return Fleet(
        nodes=found,
        rules=applied,
        directives={one.id: one for used in rules.values() for one in used},
        techniques={technique.key: technique for technique in techniques},
        methods=METHODS,
        **fields,
    )


def documents(source: Fleet) -> dict[str, dict[str, Any]]:
    """Each node's whole document, decoded."""
    generated = policies.generate(source)
    assert not generated.errors
    return {
        policy.node: json.loads(policies.assemble(policy, "ID", generated.fragments)) for policy in generated.policies
    }


def applied(source: Fleet, node: str = N1) -> list[tuple[str, str, str]]:
    return [(item["rule"], item["directive"], item["mode"]) for item in documents(source)[node]["policies"]]


def only(source: Fleet) -> policies.NodePolicy:
    (policy,) = policies.generate(source).policies
    return policy


def error_of(source: Fleet, node: NodeId = N1) -> str:
    return policies.generate(source).errors[node]


def test_a_policy_says_what_the_node_must_do() -> None:
    group = Group(id=GroupId("g-1"), name="Web servers")
    node = FleetNode(id=N1, hostname="host1", groups=(group.id,), properties={"env": "prod"})
    source = fleet({"base": [directive("conf")]}, nodes=[node], groups={group.id: group})

    document = documents(source)[N1]

    assert document == {
        "format": 1,
        "node": "n1",
        "config_id": "ID",
        "conditions": ["group_g_1", "group_web_servers"],
        "heartbeat_runs": 1,
        "reporting": "full-compliance",
        "properties": {"env": "prod"},
        "schedule": {"interval_minutes": 5, "start_hour": 0, "start_minute": 0, "splay_minutes": 4},
        "policies": [
            {
                "rule": "r-base",
                "directive": "d-conf",
                "name": "conf",
                "technique": "file_tech",
                "version": "1.0",
                "mode": "enforce",
                "items": [
                    {
                        "type": "call",
                        "id": "c1",
                        "component": "Content of /etc/x",
                        "method": "file_content",
                        "value": "/etc/x",
                        "params": {"path": "/etc/x", "lines": "hello", "enforce": "true"},
                        "condition": "any",
                        "report": True,
                    }
                ],
            }
        ],
    }


def test_order_follows_rule_name_then_directive_name_whatever_the_case() -> None:
    a, b, c = directive("alpha"), directive("Beta"), directive("gamma")

    found = applied(fleet({"zoo": [a], "Bar": [c, b]}))

    assert [one[:2] for one in found] == [("r-Bar", "d-Beta"), ("r-Bar", "d-gamma"), ("r-zoo", "d-alpha")]


def test_a_directive_brought_by_two_rules_counts_once() -> None:
    shared = directive("shared")
    source = fleet({"second": [shared], "first": [shared]})

    assert applied(source) == [("r-first", "d-shared", "enforce")]
    assert only(source).overridden == (Overridden(RuleId("r-second"), shared.id, RuleId("r-first"), shared.id),)


@pytest.mark.parametrize(
    ("rules", "winner"),
    [
        ({"a": [("one", 5)], "b": [("two", 0)]}, "d-two"),
        ({"b": [("one", 5)], "a": [("two", 5)]}, "d-two"),
        ({"a": [("two", 5), ("One", 5)]}, "d-One"),
        ({"a": [("one", 10), ("two", 9), ("three", 8)]}, "d-three"),
    ],
)
def test_a_unique_technique_keeps_one_directive(rules: dict[str, list[tuple[str, int]]], winner: str) -> None:
    source = fleet(
        {rule: [directive(name, SOLO, priority=priority) for name, priority in used] for rule, used in rules.items()}
    )

    assert [one[1] for one in applied(source)] == [winner]
    losers = only(source).overridden
    assert len(losers) == sum(map(len, rules.values())) - 1
    assert {loser.by_directive for loser in losers} == {winner}


def test_versions_of_a_unique_technique_are_one_technique() -> None:
    newer = replace(SOLO, version="2.0")
    source = fleet(
        {"a": [directive("one", SOLO), directive("two", SOLO, version="2.0", priority=1)]}, techniques=(SOLO, newer)
    )

    assert [one[1] for one in applied(source)] == ["d-two"]


def test_what_is_disabled_is_skipped() -> None:
    off = replace(FILE, id=TechniqueId("off"), enabled=False)
    source = fleet(
        {"a": [directive("on"), directive("gone", enabled=False), directive("never", off)]}, techniques=(FILE, off)
    )
    disabled_rule = replace(source.rules[0].rule, id=RuleId("r-off"), name="0", enabled=False)
    source = replace(source, rules=[*source.rules, AppliedRule(disabled_rule, frozenset({N1}))])

    assert applied(source) == [("r-a", "d-on", "enforce")]


@pytest.mark.parametrize(
    ("own", "node", "settings", "expected"),
    [
        (None, None, Settings(), "enforce"),
        (None, AUDIT, Settings(), "audit"),
        (AUDIT, ENFORCE, Settings(), "audit"),
        (ENFORCE, AUDIT, Settings(), "audit"),
        (ENFORCE, None, Settings(global_policy_mode=AUDIT), "enforce"),
        (ENFORCE, ENFORCE, Settings(global_policy_mode=AUDIT, global_policy_mode_overridable=False), "audit"),
    ],
)
def test_the_mode_of_a_directive_on_a_node(
    own: PolicyMode | None, node: PolicyMode | None, settings: Settings, expected: str
) -> None:
    nodes = [FleetNode(id=N1, hostname="h", mode=node)]

    assert applied(fleet({"a": [directive("d", mode=own)]}, nodes=nodes, settings=settings))[0][2] == expected


def test_nodes_of_different_modes_share_no_fragment_but_those_of_one_mode_do() -> None:
    nodes = [
        FleetNode(id=NodeId("a"), hostname="a", mode=AUDIT),
        FleetNode(id=NodeId("b"), hostname="b"),
        FleetNode(id=NodeId("c"), hostname="c"),
    ]

    generated = policies.generate(fleet({"r": [directive("d")]}, nodes=nodes))

    audit, one, two = (policy.fragments for policy in generated.policies)
    assert one == two != audit
    assert len(generated.fragments) == 2


def test_an_ignored_node_keeps_what_it_has_and_an_emptied_one_loses_everything() -> None:
    nodes = [
        FleetNode(id=N1, hostname="a", state=NodeState.IGNORED),
        FleetNode(id=N2, hostname="b", state=NodeState.EMPTY_POLICIES),
    ]

    found = documents(fleet({"r": [directive("d")]}, nodes=nodes))

    assert list(found) == [N2]
    assert found[N2]["policies"] == []


def test_an_emptied_node_keeps_system_policies_and_always_enforces_them() -> None:
    system = replace(FILE, id=TechniqueId("system"), system=True)
    nodes = [FleetNode(id=N1, hostname="a", state=NodeState.EMPTY_POLICIES, mode=AUDIT)]
    source = fleet({"r": [directive("d"), directive("s", system)]}, nodes=nodes, techniques=(FILE, system))

    assert applied(source) == [("r-r", "d-s", "enforce")]


def test_values_of_a_node_fill_the_holes_of_a_shared_fragment() -> None:
    values = {
        "PATH": ("/srv/${node.properties[env]}",),
        "LINES": ('${rudder.node.hostname} "q"\n${node.properties[o]}',),
    }
    nodes = [
        FleetNode(id=N1, hostname="h1", properties={"env": "prod", "o": "é\u0001\\"}),
        FleetNode(id=N2, hostname="h2", properties={"env": "dev", "o": {"a": 1}}),
    ]
    source = fleet({"r": [directive("d", parameters=values)]}, nodes=nodes)

    generated = policies.generate(source)
    found = documents(source)

    assert len(generated.fragments) == 1
    one, two = (found[node]["policies"][0]["items"][0] for node in (N1, N2))
    assert one["component"] == "Content of /srv/prod"
    assert one["value"] == one["params"]["path"] == "/srv/prod"
    assert one["params"]["lines"] == 'h1 "q"\né\u0001\\'
    assert two["value"] == "/srv/dev"
    assert two["params"]["lines"] == 'h2 "q"\n{"a":1}'


def test_a_document_is_canonical_json() -> None:
    nodes = [FleetNode(id=N1, hostname="é", properties={"z": 1, "a": ["ü", {"y": None, "b": True}]})]
    source = fleet({"r": [directive("d", parameters={"PATH": ("/é/${node.properties[z]}",)})]}, nodes=nodes)
    generated = policies.generate(source)

    data = policies.assemble(generated.policies[0], "20260101-000000-aaaaaaaa", generated.fragments)

    expected = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert data == expected


def test_items_are_those_of_the_document() -> None:
    nodes = [FleetNode(id=N1, hostname="h1")]
    source = fleet({"r": [directive("d", parameters={"PATH": ("/${rudder.node.hostname}",)})]}, nodes=nodes)
    generated = policies.generate(source)

    assert policies.items(generated.policies[0], generated.fragments) == documents(source)[N1]["policies"]


def test_one_nodes_failure_leaves_the_others_alone() -> None:
    nodes = [
        FleetNode(id=N1, hostname="h1"),
        FleetNode(id=N2, hostname="h2", properties={"env": "prod"}),
        FleetNode(id=NodeId("n3"), hostname="h3", problem="Several groups define 'k'."),
    ]
    source = fleet({"r": [directive("d", parameters={"PATH": ("${node.properties[env]}",)})]}, nodes=nodes)

    generated = policies.generate(source)

    assert [policy.node for policy in generated.policies] == [N2]
    prefix = "Error while building target configuration node for node '{}' which is one of the target of rules. Ignoring it for the rest of the process; cause was: "
    assert generated.errors == {
        "n1": prefix.format("n1")
        + "On directive 'd' (d-d): Missing property '${node.properties[env]}' on node 'h1' [n1]",
        "n3": prefix.format("n3") + "Several groups define 'k'.",
    }


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("${rudder.param.absent}", "On directive 'd' (d-d): Missing parameter '${node.parameter[absent]}'"),
        ("evaljs:1+1", "On directive 'd' (d-d): The value of 'path' is a script"),
        ("\udfff0\udfff", "On directive 'd' (d-d): A value contains characters that no text can have"),
        ("\ud800", "On directive 'd' (d-d): A value contains characters that no text can have"),
    ],
)
def test_a_directive_that_cannot_be_expanded_fails_its_nodes(value: str, cause: str) -> None:
    assert f"cause was: {cause}" in error_of(fleet({"r": [directive("d", parameters={"PATH": (value,)})]}))


def test_what_does_not_exist_is_left_out_with_a_warning() -> None:
    source = fleet({"r": [directive("kept"), directive("lost", replace(FILE, id=TechniqueId("unknown")))]})
    ghost = replace(source.rules[0].rule, directives=source.rules[0].rule.directives | {DirectiveId("ghost")})
    source = replace(source, rules=[AppliedRule(ghost, frozenset({N1}))])

    prepared = policies.prepare(source)

    assert prepared.warnings == [
        "Cannot find directive with id 'ghost' when building rule 'r' (r-r)",
        "Technique 'unknown' version '1.0' of directive 'd-lost' does not exist",
    ]
    assert [one[1] for one in applied(source)] == ["d-kept"]


@pytest.mark.parametrize(
    ("schedule", "kind", "expected"),
    [
        (AgentSchedule(interval_minutes=15, splay_minutes=30), NodeKind.NODE, (15, 15)),
        (AgentSchedule(interval_minutes=120, splay_minutes=30), NodeKind.NODE, (120, 30)),
        (AgentSchedule(interval_minutes=120, splay_minutes=30), NodeKind.RELAY, (5, 0)),
        (AgentSchedule(interval_minutes=90), NodeKind.ROOT, (5, 0)),
    ],
)
def test_when_a_node_runs(schedule: AgentSchedule, kind: NodeKind, expected: tuple[int, int]) -> None:
    found = documents(fleet({}, nodes=[FleetNode(id=N1, hostname="h", kind=kind, schedule=schedule)]))[N1]["schedule"]

    assert (found["interval_minutes"], found["splay_minutes"]) == expected


def test_an_interval_of_an_hour_and_a_half_is_refused() -> None:
    node = FleetNode(id=N1, hostname="h", schedule=AgentSchedule(interval_minutes=90))

    assert error_of(fleet({}, nodes=[node])).endswith(
        "Agent execution interval can only be defined as minutes (less than 60) or complete hours,"
        " (1 hours 30 minutes is not supported)"
    )


def test_a_digest_follows_the_document_and_nothing_else() -> None:
    before = fleet({"r": [directive("d")]})
    same = fleet({"r": [directive("d")], "s": []})
    changed = fleet({"r": [directive("d", parameters={"PATH": ("/etc/y",)})]})
    property_changed = fleet({"r": [directive("d")]}, nodes=[FleetNode(id=N1, hostname="host1", properties={"a": 1})])

    assert only(before).digest == only(same).digest
    assert len({only(before).digest, only(changed).digest, only(property_changed).digest}) == 3


def test_a_digest_follows_the_nodes_values() -> None:
    def digest(hostname: str) -> str:
        nodes = [FleetNode(id=N1, hostname=hostname)]
        return only(
            fleet({"r": [directive("d", parameters={"PATH": ("/${rudder.node.hostname}",)})]}, nodes=nodes)
        ).digest

    assert digest("a") == digest("a") != digest("b")


def test_a_configuration_is_named_by_time_and_digest() -> None:
    assert policies.name_configuration("3ad37587ffff", STARTED) == "20261121-090503-3ad37587"


def test_prepared_work_travels_to_another_process() -> None:
    nodes = [FleetNode(id=NodeId(f"n{number}"), hostname=f"h{number}") for number in range(6)]
    source = fleet({"r": [directive("d", parameters={"PATH": ("/${rudder.node.hostname}",)})]}, nodes=nodes)
    whole = policies.generate(source)
    travelled: policies.Prepared = pickle.loads(pickle.dumps(policies.prepare(source)))

    chunks = [pickle.loads(pickle.dumps(policies.generate_nodes(travelled, nodes[at : at + 2]))) for at in (0, 2, 4)]

    assert [policy for chunk in chunks for policy in chunk.policies] == list(whole.policies)
    assert all(chunk.fragments == whole.fragments for chunk in chunks)


REPEATED = Technique(
    id=TechniqueId("many"),
    version="1.0",
    name="Many",
    parameters=(
        TechniqueParameter(id="PATH", name="path", section="Files"),
        TechniqueParameter(id="STATE", name="state", section="Files", default="present"),
        TechniqueParameter(id="TEXT", name="text", default="same"),
    ),
    repeated=frozenset({"Files"}),
    items=(
        Block(
            id="b",
            component="File ${many.path}",
            foreach="Files",
            when="state == present|kept",
            logic="focus:c",
            condition="seen_${many.path}",
            items=(Call(id="c", method="file_content", parameters={"path": "${many.path}", "lines": "${many.text}"}),),
        ),
    ),
)


def blocks(parameters: dict[str, tuple[str, ...]], **node: Any) -> list[dict[str, Any]]:
    source = fleet(
        {"r": [directive("d", REPEATED, parameters=parameters)]},
        techniques=(REPEATED,),
        nodes=[FleetNode(id=N1, hostname="h", **node)],
    )
    found: list[dict[str, Any]] = documents(source)[N1]["policies"][0]["items"]
    return found


def test_a_repeated_section_gives_one_block_per_instance() -> None:
    found = blocks({"PATH": ("/a", "/b"), "STATE": ("present",)})

    assert [(one["id"], one["component"], one["logic"], one["condition"]) for one in found] == [
        ("b-0", "File /a", "focus:c-0", "seen__a"),
        ("b-1", "File /b", "focus:c-1", "seen__b"),
    ]
    assert [one["items"][0]["id"] for one in found] == ["c-0", "c-1"]
    assert [one["items"][0]["params"]["lines"] for one in found] == ["same", "same"]


def test_when_leaves_out_what_does_not_hold() -> None:
    found = blocks(
        {"PATH": ("/a", "/b", "/c"), "STATE": ("absent", "kept", "${node.properties[s]}")}, properties={"s": "present"}
    )

    assert [one["component"] for one in found] == ["File /b", "File /c"]


@pytest.mark.parametrize(
    ("when", "state", "stands"),
    [
        ("state", "x", True),
        ("state", "", False),
        ("state", "false", False),
        ("!state", "", True),
        ("state == a|b c", "b c", True),
        ("state != a", "a", False),
        ("state == a or text == same", "b", True),
        ("state == a and text == same or path == /none", "b", False),
        ("state == a and text == same or path == /none", "a", True),
    ],
)
def test_what_when_asks(when: str, state: str, *, stands: bool) -> None:
    technique = replace(REPEATED, items=tuple(replace(item, when=when) for item in REPEATED.items))
    values = {"PATH": ("/a",), "STATE": (state,)}
    source = fleet({"r": [directive("d", technique, parameters=values)]}, techniques=(technique,))

    assert bool(documents(source)[N1]["policies"][0]["items"]) is stands


def test_a_nodes_value_may_decide_which_calls_stand_there() -> None:
    parameters = {"PATH": ("/a", "/${node.properties[p]}"), "STATE": ("${node.properties[s]}", "present")}
    nodes = [
        FleetNode(id=N1, hostname="h1", properties={"s": "present", "p": "x"}),
        FleetNode(id=N2, hostname="h2", properties={"s": "absent", "p": "y"}),
        FleetNode(id=NodeId("n3"), hostname="h3", properties={"s": "absent"}),
    ]
    source = fleet({"r": [directive("d", REPEATED, parameters=parameters)]}, techniques=(REPEATED,), nodes=nodes)

    generated = policies.generate(source)

    one, two = (policies.items(policy, generated.fragments)[0]["items"] for policy in generated.policies)
    assert [block["component"] for block in one] == ["File /a", "File /x"]
    assert [block["condition"] for block in one] == ["seen__a", "seen__x"]
    assert [block["component"] for block in two] == ["File /y"]
    assert "Missing property '${node.properties[p]}'" in generated.errors[NodeId("n3")]


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("", "", "any"),
        ("true", "", "any"),
        ("false", "", "!any"),
        ("debian.!ubuntu", "", "debian.!ubuntu"),
        ("${file_tech.lines}", "debian|redhat", "debian|redhat"),
        ("${file_tech.lines}", "", "any"),
        ("service_${file_tech.lines}_ok", "ssh@a.service", "service_ssh_a_service_ok"),
        ("on_${rudder.node.hostname}.debian", "", "on_host1_example_com.debian"),
        ("service_${file_tech.lines}_ok", "${node.properties[unit]}", "service_a_b_ok"),
        ("${file_tech.lines}", "${node.properties[expression]}", "debian.!x"),
        ("${node.properties[unit]}_${agent.variable}", "", "${node.properties[unit]}_${agent.variable}"),
    ],
)
def test_a_condition(condition: str, value: str, expected: str) -> None:
    technique = replace(FILE, items=(replace(FILE.items[0], condition=condition),))
    node = FleetNode(id=N1, hostname="host1.example.com", properties={"unit": "a.b", "expression": "debian.!x"})
    values = {"PATH": ("/a",), "LINES": (value,)}
    source = fleet({"r": [directive("d", parameters=values)]}, techniques=(technique,), nodes=[node])

    assert documents(source)[N1]["policies"][0]["items"][0]["condition"] == expected


def test_a_condition_named_after_a_nodes_value_needs_no_fragment_of_its_own() -> None:
    technique = replace(FILE, items=(replace(FILE.items[0], condition="seen_${file_tech.path}"),))
    nodes = [FleetNode(id=NodeId(f"n{number}"), hostname=f"h{number}") for number in range(5)]
    values = {"PATH": ("/${rudder.node.hostname}",)}

    generated = policies.generate(
        fleet({"r": [directive("d", parameters=values)]}, techniques=(technique,), nodes=nodes)
    )

    assert len(generated.fragments) == 1
    assert policies.items(generated.policies[3], generated.fragments)[0]["items"][0]["condition"] == "seen__h3"


WORDS = st.sampled_from(
    [
        "plain",
        'quote" \\ \n é',
        "${node.properties[env]}",
        "${rudder.node.hostname}",
        '${node.properties[absent] | default = "d"}',
        "${rudder.param.p}",
        "${other.variable}",
    ]
)


@given(st.lists(WORDS, max_size=4).map("".join), st.lists(WORDS, max_size=4).map("".join), st.text(max_size=8))
def test_a_filled_fragment_says_what_the_values_say(path: str, lines: str, env: str) -> None:
    node = FleetNode(id=N1, hostname='h"1', properties={"env": env})
    values = {"PATH": (path,), "LINES": (lines,)}
    source = fleet({"r": [directive("d", parameters=values)]}, nodes=[node], parameters={"p": "${rudder.node.id}\t"})
    prepared = policies.prepare(source)

    call = documents(source)[N1]["policies"][0]["items"][0]

    for name, text in (("path", path), ("lines", lines)):
        template = prepared.scope.bind(variables.parse(text))
        assert call["params"][name] == variables.render(template, prepared.subject(node))


def test_a_password_travels_without_the_name_of_its_hash() -> None:
    technique = replace(FILE, parameters=(*FILE.parameters[:1], replace(FILE.parameters[1], type="password")))
    values = {"PATH": ("/a",), "LINES": ("sha512-crypt:$6$salt$hash",)}

    document = documents(fleet({"r": [directive("d", parameters=values)]}, techniques=(technique,)))[N1]

    assert document["policies"][0]["items"][0]["params"]["lines"] == "$6$salt$hash"
