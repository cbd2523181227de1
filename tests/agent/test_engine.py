# SPDX-License-Identifier: Apache-2.0
"""Modes, statuses, conditions and result conditions, without network and without state."""

from __future__ import annotations

from typing import Any

import pytest
from tests.agent.server import call, policy

from quarterdeck_agent import outcome
from quarterdeck_agent.documents import Report
from quarterdeck_agent.engine import MAX_MESSAGE_CHARACTERS, Engine
from quarterdeck_agent.outcome import Facts, Finding, Method, MethodCall

NODE = "9a2c2f4e-0000-4000-8000-000000000123"


class World:
    """A machine of named things, with methods that look at it and change it, and a list of what they did."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.did: list[str] = []
        self.methods = {
            method.name: method
            for method in (
                Method("present", ("path",), "present", "path", self.look, self.make),
                Method("check", ("path",), "check", "path", self.look, None),
                Method("stubborn", ("path",), "stubborn", "path", self.look, self.pretend),
                Method("broken", ("path",), "broken", "path", self.look, self.fail),
                Method("raises", ("path",), "raises", "path", self.explode, self.make),
                Method("nowhere", ("path",), "nowhere", "path", self.na, self.make),
                Method("command", ("path",), "command", "path", self.would, self.make_blind, blind=True),
                Method("kept", ("path",), "kept", "path", self.would, self.keep_blind, blind=True),
            )
        }
        self.facts = Facts(conditions={"any", "linux"}, variables={"app.name": "web"})

    def look(self, asked: MethodCall) -> Finding:
        self.did.append("look")
        return outcome.compliant("there") if asked["path"] in self.present else outcome.drift("absent")

    def make(self, asked: MethodCall) -> Finding:
        self.did.append("make")
        self.present.add(asked["path"])
        return outcome.compliant("made")

    def pretend(self, asked: MethodCall) -> Finding:
        return outcome.compliant("made")

    def fail(self, asked: MethodCall) -> Finding:
        return outcome.error("no space left")

    def explode(self, asked: MethodCall) -> Finding:
        raise PermissionError("not yours")

    def na(self, asked: MethodCall) -> Finding:
        return outcome.not_applicable("no such system")

    def would(self, asked: MethodCall) -> Finding:
        return outcome.not_applicable("would run")

    def make_blind(self, asked: MethodCall) -> Finding:
        self.did.append("run")
        return outcome.repaired("ran")

    def keep_blind(self, asked: MethodCall) -> Finding:
        return outcome.compliant("nothing to do")

    def apply(self, *items: Any, mode: str = "enforce", audit_only: bool = False) -> list[Report]:
        engine = Engine(self.methods, self.facts, audit_only=audit_only)
        self.problems = engine.problems
        return list(engine.apply(policy(NODE, *items, mode=mode)))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("method", "there", "enforce", "audit", "message"),
    [
        ("present", True, "result_success", "audit_compliant", "there"),
        ("present", False, "result_repaired", "audit_noncompliant", "absent"),
        ("check", False, "result_error", "audit_noncompliant", "absent"),
        ("stubborn", False, "result_error", "audit_noncompliant", "absent"),
        ("broken", False, "result_error", "audit_noncompliant", "absent"),
        ("raises", False, "result_error", "audit_error", "PermissionError: not yours"),
        ("nowhere", False, "result_na", "audit_na", "no such system"),
        ("command", False, "result_repaired", "audit_na", "would run"),
        ("kept", False, "result_success", "audit_na", "would run"),
        ("unknown", False, "result_error", "audit_error", "does not know the method unknown"),
    ],
)
def test_statuses_by_mode(method: str, enforce: str, audit: str, message: str, *, there: bool) -> None:
    for mode, expected in (("audit", audit), ("enforce", enforce)):
        world = World()
        world.present = {"x"} if there else set()
        (report,) = world.apply(call(method, "x"), mode=mode)
        assert report["status"] == expected
        if mode == "audit":
            assert message in report["message"]
            assert world.did in ([], ["look"])


def test_enforcing_looks_repairs_and_looks_again(world: World) -> None:
    (report,) = world.apply(call("present", "x"))
    assert world.did == ["look", "make", "look"]
    assert report["message"] == "made\nabsent"


def test_a_blind_method_is_not_looked_at_around_its_enforcement(world: World) -> None:
    world.apply(call("command", "x"))
    assert world.did == ["run"]


def test_audit_only_overrules_an_enforcing_policy(world: World) -> None:
    reports = world.apply(call("present", "x"), call("command", "y"), mode="enforce", audit_only=True)
    assert [report["status"] for report in reports] == ["audit_noncompliant", "audit_na"]
    assert world.present == set()


@pytest.mark.parametrize(
    ("method", "mode", "defined", "absent"),
    [
        ("present", "enforce", {"repaired", "ok", "reached", "not_kept"}, {"kept", "error", "not_ok"}),
        ("present", "audit", {"error", "not_ok", "not_kept", "noncompliant"}, {"ok", "repaired", "kept"}),
        ("broken", "enforce", {"error", "not_ok", "not_kept", "reached"}, {"ok", "noncompliant"}),
        ("kept", "enforce", {"kept", "ok", "reached"}, {"repaired", "error"}),
        ("nowhere", "enforce", {"noop", "reached"}, {"ok", "error", "kept", "not_ok"}),
    ],
)
def test_result_conditions(world: World, method: str, mode: str, defined: set[str], absent: set[str]) -> None:
    world.apply(call(method, "/a b"), mode=mode)
    prefix = f"{method}__a_b_"
    found = {name[len(prefix) :] for name in world.facts.conditions if name.startswith(prefix)}
    assert defined <= found
    assert not absent & found


def test_result_conditions_use_the_prefix_of_the_method(world: World) -> None:
    world.methods["force"] = Method("force", ("path",), "present", "path", world.look, world.make)
    world.apply(call("force", "x"))
    assert "present_x_repaired" in world.facts.conditions


def test_a_call_can_depend_on_the_result_of_an_earlier_one(world: World) -> None:
    first = call("present", "x")
    after_repair = call("command", "restart", condition="present_x_repaired")
    assert [report["status"] for report in world.apply(first, after_repair)] == ["result_repaired"] * 2
    world.facts.conditions = {"any"}
    statuses = [report["status"] for report in world.apply(first, after_repair)]
    assert statuses == ["result_success", "result_na"]


@pytest.mark.parametrize(("mode", "status"), [("enforce", "result_na"), ("audit", "audit_na")])
def test_a_condition_that_is_not_met_is_not_applicable_and_nothing_runs(world: World, mode: str, status: str) -> None:
    (report,) = world.apply(call("present", "x", condition="windows"), mode=mode)
    assert report["status"] == status
    assert report["message"] == "The condition windows is not met."
    assert world.did == []
    assert not [name for name in world.facts.conditions if name.startswith("present_x")]


def test_conditions_of_groups_hold(world: World) -> None:
    (report,) = world.apply(call("present", "x", condition="group_web.linux"))
    assert report["status"] == "result_repaired"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"condition": "a b"}, "cannot be read"),
        ({"condition": "has_${no.such}"}, "undefined variable ${no.such}"),
        ({"params": {"path": "${no.such}"}}, "undefined variable ${no.such}"),
    ],
)
def test_what_cannot_be_expanded_or_read_is_an_error(world: World, change: dict[str, Any], sentence: str) -> None:
    reports = world.apply(call("present", "x", **change), call("present", "y"))
    assert [report["status"] for report in reports] == ["result_error", "result_repaired"]
    assert sentence in reports[0]["message"]
    assert "present_x_error" in world.facts.conditions


def test_variables_and_properties_are_expanded_in_parameters_and_value(world: World) -> None:
    text = "/${app.name}/${node.properties[site][city]}"
    (report,) = world.apply(call("present", text))
    assert report["value"] == "/web/Lyon"
    assert world.present == {"/web/Lyon"}


def test_a_variable_defined_by_one_call_is_known_to_the_next(world: World) -> None:
    def define(asked: MethodCall) -> Finding:
        asked.facts.variables["made.up"] = "later"
        return outcome.compliant("defined")

    world.methods["define"] = Method("define", ("path",), "define", "path", define)
    world.apply(call("define", "x"), call("present", "${made.up}"))
    assert world.present == {"later"}


def _block(*items: Any, condition: str = "any") -> dict[str, Any]:
    return {
        "type": "block",
        "id": "block",
        "component": "Block",
        "condition": condition,
        "logic": "weighted",
        "items": list(items),
    }


def test_a_blocks_condition_counts_for_all_its_calls(world: World) -> None:
    inner = _block(call("present", "a"), call("present", "b", condition="nothing"))
    reports = world.apply(_block(inner, condition="windows"), _block(inner), call("present", "c"))
    assert [report["status"] for report in reports] == [
        *("result_na", "result_na"),
        *("result_repaired", "result_na", "result_repaired"),
    ]
    assert reports[0]["message"] == "The condition windows is not met."


def test_a_call_without_report_runs_and_its_error_is_logged(world: World) -> None:
    reports = world.apply(call("present", "x", report=False), call("raises", "y", report=False))
    assert reports == []
    assert world.present == {"x"}
    assert world.problems == ["A directive, raises: PermissionError: not yours"]


def test_a_report_says_which_rule_directive_and_component_it_is_about(world: World) -> None:
    (report,) = world.apply(call("present", "x", id="report-7", component="Motd"))
    assert {name: report[name] for name in ("rule", "directive", "id", "component", "value")} == {
        "rule": "rule-1",
        "directive": "directive-1",
        "id": "report-7",
        "component": "Motd",
        "value": "x",
    }


def test_an_endless_message_is_cut(world: World) -> None:
    world.methods["talks"] = Method(
        "talks", ("path",), "talks", "path", lambda _: outcome.drift("x" * (MAX_MESSAGE_CHARACTERS + 5))
    )
    (report,) = world.apply(call("talks", "x"), mode="audit")
    assert report["message"].endswith("[5 more characters]")
