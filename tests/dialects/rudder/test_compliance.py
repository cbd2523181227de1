# SPDX-License-Identifier: Apache-2.0
"""What clients read about compliance once nodes have run: real signed runs, real answers.

Moments are relative to the present, which is what the server goes by.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.agents import Agent, call, item, report
from tests.common.fleets import World
from tests.dialects.rudder.running_fleet import OLD_CONFIG, Fleet
from tests.served import Served

from quarterdeck.core.ids import DirectiveId, RuleId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.policies import Overridden
from quarterdeck.core.rules import Rule
from quarterdeck.formats import agent
from quarterdeck.services import compliance

GLOBAL_RULE_NAME = "Global configuration for all nodes"


@pytest.fixture
def fleet(served: Served) -> Fleet:
    return Fleet(served)


def block(name: str, logic: str, *children: agent.Call | agent.Block) -> agent.Block:
    return {
        "type": "block",
        "id": f"block-{name}",
        "component": name,
        "logic": logic,
        "condition": "any",
        "items": list(children),
    }


def numbers(compliance: float, **details: float) -> dict[str, Any]:
    return {"compliance": compliance, "complianceDetails": details}


GOOD = {"compliance": 100.0, "complianceDetails": {"successAlreadyOK": 100.0}}
HALF = numbers(50.0, successAlreadyOK=50.0, error=50.0)
FAILED = numbers(0.0, error=100.0)
TWO_CALLS = item(call(1), call(2, component="Package", value="nginx"), rule="rule-1", directive="directive-1")
MIXED_RUN = (
    report(),
    report("Package", "nginx", "result_error", message='said "no"', id="call-2"),
)


@pytest.fixture
def half_good(fleet: Fleet) -> Fleet:
    """One rule with one directive on one node, one of whose two components fails."""
    fleet.configure(("rule-1", ["directive-1"]))
    fleet.run(fleet.node(1, TWO_CALLS), *MIXED_RUN)
    return fleet


NODE = "00000001-0000-4000-8000-000000000000"
MOTD = {"value": "/etc/motd", "reports": [{"status": "successAlreadyOK", "message": "as it should be"}]}
NGINX = {"value": "nginx", "reports": [{"status": "error", "message": 'said "no"'}]}


def named(kind: str, **more: Any) -> dict[str, Any]:
    names = {"rule-1": "The rule-1", "directive-1": "The directive-1", NODE: "web1.example.com"}
    return {"id": kind, "name": names[kind], "policyMode": "enforce", **more}


COMPONENTS = [
    {"name": "File content", **GOOD, "values": [MOTD]},
    {"name": "Package", **FAILED, "values": [NGINX]},
]
GATHERED = [
    {"name": "File content", **GOOD, "nodes": [named(NODE, **GOOD, values=[MOTD])]},
    {"name": "Package", **FAILED, "nodes": [named(NODE, **FAILED, values=[NGINX])]},
]
FULL = {"mode": "full-compliance"}


def test_a_rule_is_shown_by_directives_and_by_nodes(half_good: Fleet) -> None:
    assert half_good.rule("rule-1") == named(
        "rule-1",
        **HALF,
        **FULL,
        directives=[named("directive-1", **HALF, components=GATHERED)],
        nodes=[named(NODE, **HALF, directives=[named("directive-1", **HALF, components=COMPONENTS)])],
    )


def test_a_node_is_shown_by_rules_then_directives(half_good: Fleet) -> None:
    [shown] = half_good.ask(f"/nodes/{NODE}")["nodes"]

    directive = named("directive-1", **HALF, components=COMPONENTS)
    assert shown == named(NODE, **HALF, **FULL, rules=[named("rule-1", **HALF, directives=[directive])])


def test_a_directive_is_an_object_shown_by_rules_and_by_nodes(half_good: Fleet) -> None:
    shown = half_good.ask("/directives/directive-1")["directiveCompliance"]

    assert shown == named(
        "directive-1",
        **HALF,
        **FULL,
        rules=[named("rule-1", **HALF, components=GATHERED)],
        nodes=[named(NODE, **HALF, rules=[named("rule-1", **HALF, components=COMPONENTS)])],
    )
    assert half_good.ask("/directives")["directivesCompliance"] == [shown]


def test_lists_say_what_single_objects_say(half_good: Fleet) -> None:
    by_name = {one["name"]: one for one in half_good.ask("/rules")["rules"]}
    assert by_name["The rule-1"] == half_good.rule("rule-1")
    assert set(by_name) == {"The rule-1", GLOBAL_RULE_NAME}
    shown = {one["id"]: one for one in half_good.ask("/nodes")["nodes"]}
    assert [shown[NODE]] == half_good.ask(f"/nodes/{NODE}")["nodes"]


def depth(shown: Any) -> int:
    """How many kinds of things are nested."""
    below = [shown[key] for key in ("rules", "directives", "nodes", "components", "values") if key in shown]
    return 1 + max((depth(one) for some in below for one in some), default=0)


@pytest.mark.parametrize(
    ("level", "wanted"), [(-3, 1), (0, 1), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 5), (10, 5)]
)
def test_the_level_says_how_deep_an_answer_goes(level: int, wanted: int, half_good: Fleet) -> None:
    query = f"?level={level}"
    views = [
        half_good.rule("rule-1", query),
        half_good.ask(f"/nodes/{NODE}{query}")["nodes"][0],
        half_good.ask(f"/directives/directive-1{query}")["directiveCompliance"],
        next(one for one in half_good.ask(f"/rules{query}")["rules"] if one["id"] == "rule-1"),
        next(one for one in half_good.ask(f"/nodes{query}")["nodes"] if one["id"] == NODE),
        half_good.ask(f"/directives{query}")["directivesCompliance"][0],
    ]

    assert [depth(view) for view in views] == [wanted] * len(views)
    assert all(
        {"compliance": view["compliance"], "complianceDetails": view["complianceDetails"]} == HALF for view in views
    )


@pytest.mark.parametrize(
    ("precision", "good", "bad"),
    [(0, 67.0, 33.0), (1, 66.7, 33.3), (2, 66.67, 33.33), (3, 66.667, 33.333), (5, 66.66667, 33.33333)],
)
def test_percentages_have_the_asked_precision_and_sum_to_a_hundred(
    precision: int, good: float, bad: float, fleet: Fleet
) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    one = fleet.node(1, item(call(1), call(2), call(3)))
    fleet.run(one, report(), report(id="call-2"), report(id="call-3", status="result_error"))

    for shown in (
        fleet.rule("rule-1", f"?level=1&precision={precision}"),
        fleet.on_node(one, f"?precision={precision}")["rules"][0]["directives"][0],
    ):
        assert shown["complianceDetails"] == {"successAlreadyOK": good, "error": bad}
        assert shown["compliance"] == good


# -- the fleet as one number ---------------------------------------------------------------


def test_the_fleet_is_a_whole_number_with_exact_details(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    fleet.run(fleet.node(1, TWO_CALLS), report(), report("Package", "nginx", id="call-2"))
    fleet.run(fleet.node(2, item(call(1))), report(status="result_error"))

    shown = fleet.ask("")["globalCompliance"]

    assert shown == {"compliance": 67, "complianceDetails": {"successAlreadyOK": 66.67, "error": 33.33}}
    assert isinstance(shown["compliance"], int)
    assert fleet.ask("?precision=0")["globalCompliance"]["complianceDetails"] == {"successAlreadyOK": 67, "error": 33}


def test_what_is_pending_stands_in_the_details_only(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    fleet.run(fleet.node(1, TWO_CALLS), report(), report("Package", "nginx", id="call-2"))
    fleet.node(2, TWO_CALLS)

    half_pending = numbers(100.0, applying=50.0, successAlreadyOK=50.0)
    assert fleet.ask("")["globalCompliance"] == {**half_pending, "compliance": 100}
    shown = fleet.rule("rule-1", "?level=2")
    assert {key: shown[key] for key in half_pending} == half_pending
    assert [one["complianceDetails"] for one in shown["nodes"]] == [{"successAlreadyOK": 100.0}, {"applying": 100.0}]
    assert [one["compliance"] for one in shown["nodes"]] == [100.0, 0.0]


# -- runs that say other things than expected -------------------------------------------------


def test_a_report_that_did_not_come_is_missing(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    one = fleet.node(1, TWO_CALLS)
    fleet.run(one, report())

    shown = fleet.on_node(one)

    assert shown["complianceDetails"] == {"successAlreadyOK": 50.0, "unexpectedMissingComponent": 50.0}
    [directive] = shown["rules"][0]["directives"]
    [missing] = [part for part in directive["components"] if part["name"] == "Package"]
    assert missing["values"] == [
        {"value": "nginx", "reports": [{"status": "unexpectedMissingComponent", "message": "Missing report"}]}
    ]


def test_a_report_that_nobody_expected_is_unexpected_under_its_own_rule(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    one = fleet.node(1, item(call(1)))
    fleet.run(one, report(), report(rule="gone", directive="gone-too"))

    shown = fleet.on_node(one)

    assert shown["complianceDetails"] == {"successAlreadyOK": 50.0, "unexpectedUnknownComponent": 50.0}
    [odd] = [rule for rule in shown["rules"] if rule["id"] == "gone"]
    assert (odd["name"], odd["compliance"]) == ("gone", 0.0)
    assert odd["directives"][0]["components"][0]["values"][0]["reports"] == [
        {"status": "unexpectedUnknownComponent", "message": "as it should be"}
    ]
    assert "gone" not in {rule["id"] for rule in fleet.ask("/rules")["rules"]}


def test_enforcing_where_an_audit_was_asked_for_is_a_bad_policy_mode(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]), modes={"directive-1": PolicyMode.AUDIT})
    one = fleet.node(1, item(call(1), mode="audit"))
    fleet.run(one, report(status="result_repaired", message="did it"))

    shown = fleet.rule("rule-1")

    assert (shown["policyMode"], shown["complianceDetails"]) == ("audit", {"badPolicyMode": 100.0})
    said = shown["directives"][0]["components"][0]["nodes"][0]["values"][0]["reports"]
    assert said == [
        {
            "status": "badPolicyMode",
            "message": "PolicyMode is configured to audit but we get: 'result_repaired': did it",
        }
    ]


def test_a_silent_node_has_no_report_although_nobody_swept(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    hour = timedelta(hours=1)
    one = fleet.node(1, TWO_CALLS, since=2 * hour)
    fleet.run(one, *MIXED_RUN, ago=hour)
    with fleet.unit_of_work() as ctx:
        [judged] = ctx.store.compliance.judged([one.node]).values()
        assert judged.state == "compute", "what is kept is still what the run said"

    silent = numbers(0.0, noReport=100.0)
    for shown in (
        fleet.on_node(one),
        fleet.on_node(one, "?level=1"),
        fleet.rule("rule-1"),
        fleet.rule("rule-1", "?level=2"),
        next(rule for rule in fleet.ask("/rules?level=1")["rules"] if rule["id"] == "rule-1"),
        fleet.ask("/directives/directive-1")["directiveCompliance"],
        fleet.ask("/directives?level=1")["directivesCompliance"][0],
    ):
        assert {key: shown[key] for key in silent} == silent
    assert fleet.ask("")["globalCompliance"] == {**silent, "compliance": 0}
    [component, _] = fleet.on_node(one)["rules"][0]["directives"][0]["components"]
    assert component["values"] == [{"value": "/etc/motd", "reports": [{"status": "noReport"}]}]


def test_a_run_for_another_configuration_leaves_everything_missing(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    one = fleet.node(1, item(call(1)), since=timedelta(hours=2))
    fleet.run(one, report(), config_id=OLD_CONFIG)

    assert fleet.on_node(one)["complianceDetails"] == {
        "unexpectedMissingComponent": 50.0,
        "unexpectedUnknownComponent": 50.0,
    }


# -- blocks ----------------------------------------------------------------------------------


NESTED = item(
    block(
        "Web server",
        "worst-case-weighted-one",
        call(1),
        block("Vhosts, all", "weighted", call(2, value="/etc/a"), call(3, value="/etc/b")),
    ),
    call(4, component="Package", value="nginx"),
)
NESTED_RUN = (
    report(),
    report(value="/etc/a", id="call-2", status="result_repaired", message="line\nbreak"),
    report(value="/etc/b", id="call-3", status="result_error", message="", component="File content"),
    report("Package", "nginx", id="call-4"),
)


def test_blocks_hold_their_components_and_count_as_their_logic_says(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    one = fleet.node(1, NESTED)
    fleet.run(one, *NESTED_RUN)

    [directive] = fleet.on_node(one)["rules"][0]["directives"]

    assert directive["complianceDetails"] == {"successAlreadyOK": 50.0, "error": 50.0}
    by_name = {part["name"]: part for part in directive["components"]}
    assert set(by_name) == {"Web server", "Package"}
    outer = by_name["Web server"]
    assert (outer["complianceDetails"], "values" in outer) == ({"error": 100.0}, False)
    inner = {part["name"]: part for part in outer["components"]}
    assert inner["Vhosts, all"]["complianceDetails"] == {"successRepaired": 50.0, "error": 50.0}
    [files] = inner["Vhosts, all"]["components"]
    assert [value["value"] for value in files["values"]] == ["/etc/a", "/etc/b"]
    assert files["values"][1]["reports"] == [{"status": "error"}], "an empty message is left out"


def test_blocks_are_gathered_over_nodes(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    for number in (1, 2):
        fleet.run(fleet.node(number, NESTED), *NESTED_RUN)

    [directive] = fleet.rule("rule-1")["directives"]

    [outer] = [part for part in directive["components"] if part["name"] == "Web server"]
    assert "nodes" not in outer
    [inner] = [part for part in outer["components"] if part["name"] == "Vhosts, all"]
    [files] = inner["components"]
    assert [(node["name"], node["compliance"]) for node in files["nodes"]] == [
        ("web1.example.com", 50.0),
        ("web2.example.com", 50.0),
    ]


def test_a_table_has_a_line_per_report_with_the_blocks_around_it(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    fleet.run(fleet.node(1, NESTED), *NESTED_RUN)

    answer = fleet.text("/directives/directive-1?format=csv")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith('"Rule","Block","Component","Node","Value","Status","Message"\n')
    assert answer.text.endswith('"\n')
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))[1:]
    rule, node = "The rule-1", "web1.example.com"
    inside = "Web server,Vhosts, all"
    assert sorted(rows) == sorted(
        [
            [rule, "Web server", "File content", node, "/etc/motd", "successAlreadyOK", "as it should be"],
            [rule, inside, "File content", node, "/etc/a", "successRepaired", "line\nbreak"],
            [rule, inside, "File content", node, "/etc/b", "error", ""],
            [rule, "", "Package", node, "nginx", "successAlreadyOK", "as it should be"],
        ]
    )
    assert fleet.text("/directives?format=csv&level=1").text == answer.text


def test_quotes_in_a_table_are_doubled(half_good: Fleet) -> None:
    assert '"nginx","error","said ""no"""\n' in half_good.text("/directives/directive-1?format=csv").text


# -- what gives way, and what is left out --------------------------------------------------------


def test_an_overridden_directive_is_shown_as_skipped_with_nothing(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]), ("rule-2", ["directive-1"]))
    gone = Overridden(RuleId("rule-2"), DirectiveId("directive-1"), RuleId("rule-1"), DirectiveId("directive-1"))
    one = fleet.node(1, item(call(1)), overridden=[gone])
    fleet.run(one, report())
    skipped = {
        "id": "directive-1",
        "name": "The directive-1",
        "policyMode": "enforce",
        "compliance": 0.0,
        "complianceDetails": {},
        "skippedDetails": {"overridingRuleId": "rule-1", "overridingRuleName": "The rule-1"},
        "components": [],
    }

    by_rule = {one["id"]: one for one in fleet.ask("/rules")["rules"]}
    assert by_rule["rule-2"]["directives"] == [skipped] == fleet.rule("rule-2")["directives"]
    assert (by_rule["rule-2"]["complianceDetails"], by_rule["rule-2"]["nodes"]) == ({}, [])
    assert "skippedDetails" not in by_rule["rule-1"]["directives"][0]
    rules = {rule["id"]: rule for rule in fleet.on_node(one)["rules"]}
    assert rules["rule-2"]["directives"] == [skipped]
    assert rules["rule-1"]["compliance"] == 100.0
    assert fleet.on_node(one)["complianceDetails"] == {"successAlreadyOK": 100.0}
    shown = fleet.ask("/directives/directive-1")["directiveCompliance"]["rules"]
    assert [("skippedDetails" in rule) for rule in shown] == [False, True]
    for query in ("?level=1", "?level=2", ""):
        listed = {one["id"]: one["complianceDetails"] for one in fleet.ask(f"/rules{query}")["rules"]}
        assert listed["rule-2"] == {}, query


def test_a_directive_that_gives_way_on_some_nodes_only_is_not_skipped(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]), ("rule-2", ["directive-1"]))
    gone = Overridden(RuleId("rule-2"), DirectiveId("directive-1"), RuleId("rule-1"), DirectiveId("directive-1"))
    fleet.run(fleet.node(1, item(call(1)), overridden=[gone]), report())
    fleet.run(fleet.node(2, item(call(1), rule="rule-2")), report(rule="rule-2"))

    [directive] = fleet.rule("rule-2")["directives"]

    assert (directive["compliance"], "skippedDetails" in directive) == (100.0, False)


def test_system_rules_are_nowhere(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1"]))
    with fleet.unit_of_work() as ctx:
        ctx.store.rules.add(Rule(id=RuleId("hidden"), name="Hidden", system=True))
    one = fleet.node(1, item(call(1)), item(call(2), rule="hidden", directive="hidden-too"))
    fleet.run(one, report(), report(id="call-2", rule="hidden", directive="hidden-too", status="result_error"))

    for query in ("?level=1", ""):
        assert "hidden" not in {rule["id"] for rule in fleet.ask(f"/rules{query}")["rules"]}
    assert [rule["id"] for rule in fleet.on_node(one)["rules"]] == ["rule-1"]
    assert fleet.on_node(one)["compliance"] == 100.0
    assert fleet.ask("")["globalCompliance"]["compliance"] == 100


def test_modes_are_those_in_force_on_the_node(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1", "directive-2"]), modes={"directive-2": PolicyMode.AUDIT})
    items = [item(call(1)), item(call(2), directive="directive-2", mode="audit")]
    one = fleet.node(1, *items)
    other = fleet.node(2, *items, mode=PolicyMode.AUDIT)

    shown = fleet.rule("rule-1", "?level=3")

    assert shown["policyMode"] == "mixed"
    assert [directive["policyMode"] for directive in shown["directives"]] == ["enforce", "audit"]
    assert [node["policyMode"] for node in shown["nodes"]] == ["enforce", "audit"]
    assert fleet.on_node(one)["rules"][0]["policyMode"] == "mixed"
    assert fleet.on_node(other)["rules"][0]["policyMode"] == "audit"
    assert [one["policyMode"] for one in fleet.on_node(other)["rules"][0]["directives"]] == ["audit", "audit"]


# -- cheap answers agree with dear ones -----------------------------------------------------------


def test_summaries_say_what_whole_trees_add_up_to(fleet: Fleet) -> None:
    fleet.configure(("rule-1", ["directive-1", "directive-2"]), ("rule-2", ["directive-2"]))
    both = [item(call(1), call(2)), item(call(3), rule="rule-2", directive="directive-2")]
    good = [report(), report(id="call-2"), report(id="call-3", rule="rule-2", directive="directive-2")]
    fleet.run(fleet.node(1, *both), *good)
    fleet.run(fleet.node(2, *both), *good)
    fleet.run(fleet.node(3, *both), *good[:1], report(id="call-2", status="result_repaired"))
    fleet.run(fleet.node(4, *both, since=timedelta(hours=2)), *good, ago=timedelta(hours=1))
    fleet.node(5, *both)

    for path, container in (("/rules", "rules"), ("/directives", "directivesCompliance"), ("/nodes", "nodes")):
        summaries = fleet.ask(f"{path}?level=1")[container]
        for level in (2, 3, 4, 5):
            deeper = fleet.ask(f"{path}?level={level}")[container]
            assert [{key: one[key] for key in summaries[0]} for one in deeper] == summaries, (path, level)


# -- the whole way ----------------------------------------------------------------------------------


def test_a_rule_made_through_the_api_is_generated_run_and_shown(served: Served) -> None:
    world, fleet = World(served.database), Fleet(served)
    one = Agent()
    with world.unit() as ctx:
        ctx.store.nodes.add(one.as_node())
    world.group("web", [one.node])
    headers = {"X-API-Token": served.tokens["write"]}
    text = {"section": {"name": "Message", "vars": [{"var": {"name": "MOTD_TEXT", "value": "Hello"}}]}}
    for path, body in (
        (
            "directives",
            {
                "id": "motd",
                "displayName": "Greeting",
                "techniqueName": "motdConfiguration",
                "parameters": {"section": {"name": "sections", "sections": [text]}},
            },
        ),
        ("rules", {"id": "greet", "displayName": "Greet", "directives": ["motd"], "targets": ["group:web"]}),
    ):
        answer = served.client.put(f"/rudder/api/latest/{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
    generated = world.generate()
    assert generated is not None
    world.do(lambda ctx: compliance.configuration_changed(ctx, [one.node]))
    stored = world.policy(one.node)
    assert stored is not None

    assert fleet.rule("greet", "?level=1")["complianceDetails"] == {"applying": 100.0}
    calls = _calls(stored.policy.fragments, stored.fragments)
    assert calls
    fleet.run(one, *calls, ago=timedelta(seconds=1), config_id=stored.config_id)

    assert fleet.rule("greet", "?level=1")["complianceDetails"] == {"successAlreadyOK": 100.0}
    assert fleet.ask("")["globalCompliance"]["compliance"] == 100


def _calls(names: Sequence[str], bodies: Any) -> list[agent.Report]:
    """A good report for every call of a policy."""

    def walk(rule: str, directive: str, items: Sequence[Any]) -> Iterator[agent.Report]:
        for one in items:
            if one["type"] == "block":
                yield from walk(rule, directive, one["items"])
            elif one["report"]:
                yield report(one["component"], one["value"], id=one["id"], rule=rule, directive=directive)

    documents = [json.loads(bodies[name]) for name in names]
    return [made for one in documents for made in walk(one["rule"], one["directive"], one["items"])]
