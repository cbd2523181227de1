# SPDX-License-Identifier: Apache-2.0
"""Reports matched to what was expected, blocks and their logic, and trees stored, read back and gathered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quarterdeck.core import compliance, compliance_trees, expected_reports
from quarterdeck.core.compliance import Status
from quarterdeck.core.compliance_trees import BlockStatus, ComponentStatus, DirectiveStatus, ValueStatus
from quarterdeck.core.errors import Invalid
from quarterdeck.core.expected_reports import (
    ExpectedBlock,
    ExpectedComponent,
    ExpectedDirective,
    ExpectedItem,
    Matching,
    Outcome,
    ReceivedReport,
    Reporting,
)
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.modes import PolicyMode


def promise(*items: ExpectedItem, mode: PolicyMode = PolicyMode.ENFORCE, directive: str = "d") -> ExpectedDirective:
    return ExpectedDirective(RuleId("r"), DirectiveId(directive), mode, items)


def report(
    component: str, value: str, kind: str = "result_success", message: str = "", *, id_: str = "0", directive: str = "d"
) -> ReceivedReport:
    return ReceivedReport("r", directive, id_, component, value, kind, message)


def flat(status: DirectiveStatus) -> list[tuple[str, str, str, str]]:
    """(path, value, status, message) of every outcome."""
    return [
        ("/".join(row.path), row.value, row.status.name.lower(), row.message) for row in compliance_trees.rows(status)
    ]


def shown(status: DirectiveStatus) -> dict[str, int]:
    return {one.name.lower(): status.counts[one] for one in Status if status.counts[one]}


# -- with report ids ------------------------------------------------------------------


def test_a_report_id_decides_whatever_component_and_value_say() -> None:
    status = compliance_trees.match(
        promise(ExpectedComponent("File", "/etc/x", "i1")),
        [report("Renamed", "/other", "result_repaired", "done", id_="i1")],
    )

    assert status == DirectiveStatus(
        RuleId("r"),
        DirectiveId("d"),
        (
            ComponentStatus(
                "Renamed",
                (ValueStatus("/other", (Outcome(Status.SUCCESS_REPAIRED, "done", "i1"),)),),
                compliance.units(Status.SUCCESS_REPAIRED),
            ),
        ),
        compliance.units(Status.SUCCESS_REPAIRED),
    )


def test_an_id_that_did_not_come_is_missing() -> None:
    status = compliance_trees.match(
        promise(ExpectedComponent("File", "/etc/x", "i1")), [report("File", "/etc/x", id_="i2")]
    )

    assert flat(status) == [("File", "/etc/x", "missing", "Missing report")]


def test_several_reports_of_one_id_are_listed_in_arrival_order() -> None:
    reports = [report("C", "v", "result_error", text, id_="i") for text in ("first", "second")]

    status = compliance_trees.match(promise(ExpectedComponent("C", "v", "i")), reports)

    assert [row[3] for row in flat(status)] == ["first", "second"]
    assert shown(status) == {"error": 2}


def test_components_of_one_name_stand_together() -> None:
    expected = promise(
        ExpectedComponent("C", "a", "1"), ExpectedComponent("D", "x", "2"), ExpectedComponent("C", "b", "3")
    )
    reports = [report("C", "a", id_="1"), report("D", "x", id_="2"), report("C", "b", id_="3")]

    status = compliance_trees.match(expected, reports)

    assert [item.name for item in status.items] == ["C", "D"]
    assert [row[:2] for row in flat(status)] == [("C", "a"), ("C", "b"), ("D", "x")]


# -- without report ids ------------------------------------------------------------------

MATCHES: list[tuple[str, list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str, str, str]]]] = [
    (
        "the value that is equal",
        [("C", "a"), ("C", "b")],
        [("C", "b")],
        [("C", "a", "missing", "[Missing report #1]"), ("C", "b", "success_already_ok", "C b")],
    ),
    (
        "nothing for the whole component",
        [("C", "a"), ("C", "b")],
        [("D", "a")],
        [("C", "a", "missing", ""), ("C", "b", "missing", "")],
    ),
    (
        "more than expected is unexpected altogether",
        [("C", "a")],
        [("C", "a"), ("C", "a")],
        [("C", "a", "unexpected", "C a"), ("C", "a", "unexpected", "C a")],
    ),
    (
        "a repeated value takes as many reports as it stands there",
        [("C", "a"), ("C", "a"), ("C", "a")],
        [("C", "a"), ("C", "a")],
        [
            ("C", "a", "success_already_ok", "C a"),
            ("C", "a", "success_already_ok", "C a"),
            ("C", "a", "missing", "[Missing report #1]"),
        ],
    ),
    (
        "a variable takes what is left, the more specific value comes first",
        [("C", "${sys.x}"), ("C", "/etc/${sys.x}/y")],
        [("C", "/etc/a/y"), ("C", "other")],
        [
            ("C", "${sys.x}", "success_already_ok", "C other"),
            ("C", "/etc/${sys.x}/y", "success_already_ok", "C /etc/a/y"),
        ],
    ),
    (
        "a variable may be several lines",
        [("C", "$(x)")],
        [("C", "a\nb")],
        [("C", "$(x)", "success_already_ok", "C a\nb")],
    ),
    (
        "a variable's value may come more than once",
        [("C", "@{list}")],
        [("C", "a"), ("C", "b")],
        [("C", "@{list}", "success_already_ok", "C a"), ("C", "@{list}", "success_already_ok", "C b")],
    ),
    (
        "what is not a variable is not a pattern",
        [("C", "a.c")],
        [("C", "abc")],
        [("C", "a.c", "missing", "[Missing report #1]")],
    ),
    (
        "what matches nothing is dropped",
        [("C", "a")],
        [("C", "a"), ("C", "z")],
        [("C", "a", "success_already_ok", "C a")],
    ),
]


@pytest.mark.parametrize(
    ("expected", "came", "rows"), [case[1:] for case in MATCHES], ids=[case[0] for case in MATCHES]
)
def test_reports_without_id_find_their_value(
    expected: list[tuple[str, str]], came: list[tuple[str, str]], rows: list[tuple[str, str, str, str]]
) -> None:
    reports = [report(component, value, message=f"{component} {value}") for component, value in came]

    status = compliance_trees.match(promise(*(ExpectedComponent(*one) for one in expected)), reports)

    assert flat(status) == rows


def test_several_values_of_a_variable_are_unexpected_where_the_setting_says_so() -> None:
    reports = [report("C", "a"), report("C", "b")]

    status = compliance_trees.match(promise(ExpectedComponent("C", "${x}")), reports, Matching(unbound_values=False))

    assert shown(status) == {"unexpected": 2}


# -- modes and reporting ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind", "status"),
    [
        ("enforce", "result_na", "success_not_applicable"),
        ("enforce", "result_success", "success_already_ok"),
        ("enforce", "result_repaired", "success_repaired"),
        ("enforce", "result_error", "error"),
        ("audit", "audit_na", "audit_not_applicable"),
        ("audit", "audit_compliant", "audit_compliant"),
        ("audit", "audit_noncompliant", "audit_non_compliant"),
        ("audit", "audit_error", "audit_error"),
        ("audit", "result_success", "bad_policy_mode"),
        ("audit", "result_na", "bad_policy_mode"),
        ("enforce", "audit_compliant", "bad_policy_mode"),
        ("enforce", "audit_na", "bad_policy_mode"),
    ],
)
def test_what_an_agent_says_becomes_a_status(mode: str, kind: str, status: str) -> None:
    expected = promise(ExpectedComponent("C", "v", "i"), mode=PolicyMode(mode))

    found = compliance_trees.match(expected, [report("C", "v", kind, "text", id_="i")])

    message = (
        f"PolicyMode is configured to {mode} but we get: '{kind}': text" if status == "bad_policy_mode" else "text"
    )
    assert flat(found) == [("C", "v", status, message)]


@pytest.mark.parametrize(
    ("reporting", "mode", "status", "message"),
    [
        ("full-compliance", "enforce", "missing", "[Missing report #1]"),
        ("changes-only", "enforce", "success_already_ok", "[Success report not sent in change only #1]"),
        ("changes-only", "audit", "audit_compliant", "[Compliant report not sent in change only #1]"),
        ("reports-disabled", "audit", "reports_disabled", "[Missing report #1]"),
    ],
)
def test_silence_means_what_the_reporting_mode_says(reporting: str, mode: str, status: str, message: str) -> None:
    expected = promise(ExpectedComponent("C", "a"), ExpectedComponent("C", "b"), mode=PolicyMode(mode))
    other = "result_success" if mode == "enforce" else "audit_compliant"

    found = compliance_trees.match(expected, [report("C", "b", other)], Matching(reporting=Reporting(reporting)))

    assert flat(found)[0] == ("C", "a", status, message)


def test_reports_of_a_directive_nobody_expects_are_unexpected() -> None:
    expected = promise(ExpectedComponent("C", "v", "i"))
    reports = [report("C", "v", id_="i"), report("X", "y", "result_error", "odd", directive="gone")]

    found = compliance_trees.match_run([expected], reports)

    assert [(one.directive, shown(one)) for one in found] == [
        ("d", {"success_already_ok": 1}),
        ("gone", {"unexpected": 1}),
    ]
    assert flat(found[1]) == [("X", "y", "unexpected", "odd")]


def test_after_a_run_for_another_configuration_all_is_missing_and_all_is_unexpected() -> None:
    found = compliance_trees.replaced(
        [promise(ExpectedComponent("C", "v", "i"))],
        [report("C", "v", id_="i"), report("X", "y", directive="gone")],
    )

    assert [(one.directive, shown(one)) for one in found] == [
        ("d", {"missing": 1, "unexpected": 1}),
        ("gone", {"unexpected": 1}),
    ]


# -- blocks ----------------------------------------------------------------------------


def tree(logic: str) -> ExpectedDirective:
    inner = ExpectedBlock(
        "inner", "worst-case-weighted-sum", (ExpectedComponent("C", "c", "3"), ExpectedComponent("D", "d", "4")), "b2"
    )
    return promise(
        ExpectedBlock("outer", logic, (ExpectedComponent("A", "a", "1"), ExpectedComponent("B", "b", "2"), inner), "b1")
    )


BLOCK_REPORTS = [
    report("A", "a", "result_success", id_="1"),
    report("B", "b", "result_repaired", id_="2"),
    report("C", "c", "result_success", id_="3"),
    report("D", "d", "result_error", id_="4"),
]


@pytest.mark.parametrize(
    ("logic", "counts"),
    [
        ("weighted", {"success_already_ok": 1, "success_repaired": 1, "error": 2}),
        ("worst-case-weighted-one", {"error": 1}),
        ("worst-case-weighted-sum", {"error": 4}),
        ("focus:A", {"success_already_ok": 1}),
        ("focus:2", {"success_repaired": 1}),
        ("focus:inner", {"error": 2}),
        ("focus:b2", {"error": 2}),
        ("focus:nobody", {}),
    ],
)
def test_a_block_counts_as_its_logic_says(logic: str, counts: dict[str, int]) -> None:
    status = compliance_trees.match(tree(logic), BLOCK_REPORTS)

    assert shown(status) == counts
    block = status.items[0]
    assert isinstance(block, BlockStatus)
    assert [child.name for child in block.children] == ["A", "B", "inner"]


def test_a_focus_hides_worse_siblings_from_the_block_around() -> None:
    focused = ExpectedBlock("f", "focus:A", (ExpectedComponent("A", "a", "1"), ExpectedComponent("D", "d", "4")))
    expected = promise(ExpectedBlock("o", "worst-case-weighted-one", (focused, ExpectedComponent("C", "c", "3"))))

    assert shown(compliance_trees.match(expected, BLOCK_REPORTS)) == {"success_already_ok": 1}


def test_uniform_gives_every_value_one_status_through_block_logic() -> None:
    assert shown(compliance_trees.uniform(tree("weighted"), Status.NO_REPORT)) == {"no_report": 4}
    assert shown(compliance_trees.uniform(tree("worst-case-weighted-one"), Status.APPLYING)) == {"applying": 1}


# -- documents ------------------------------------------------------------------------


def call(id_: str, component: str, value: str, **more: Any) -> dict[str, Any]:
    return {"type": "call", "id": id_, "component": component, "value": value, **more}


def test_expectations_are_read_from_a_policy_item() -> None:
    document = {
        "rule": "r",
        "directive": "d",
        "mode": "audit",
        "items": [
            call("1", "A", ""),
            call("2", "silent", "x", report=False),
            {
                "type": "block",
                "id": "b",
                "component": "B",
                "logic": "weighted",
                "items": [call("3", "C", "c", report=True)],
            },
            {
                "type": "block",
                "id": "e",
                "component": "E",
                "logic": "weighted",
                "items": [call("4", "C", "c", report=False)],
            },
        ],
    }

    assert expected_reports.expected(document) == ExpectedDirective(
        RuleId("r"),
        DirectiveId("d"),
        PolicyMode.AUDIT,
        (
            ExpectedComponent("A", "None", "1"),
            ExpectedBlock("B", "weighted", (ExpectedComponent("C", "c", "3"),), "b"),
        ),
    )


def test_reports_are_read_from_a_run() -> None:
    document = {
        "rule": "r",
        "directive": "d",
        "id": "1",
        "component": "A",
        "value": "",
        "status": "audit_na",
        "message": "m",
    }

    assert expected_reports.received(document) == ReceivedReport("r", "d", "1", "A", "None", "audit_na", "m")
    with pytest.raises(Invalid, match="'log_info' is not a status of reports"):
        expected_reports.received({**document, "status": "log_info"})


# -- stored and gathered ----------------------------------------------------------------

LOGICS = some.sampled_from(["weighted", "worst-case-weighted-one", "worst-case-weighted-sum", "focus:A", "focus:1"])
KINDS = some.sampled_from(["result_success", "result_repaired", "result_error", "result_na", "audit_compliant"])


@given(LOGICS, some.lists(some.tuples(some.sampled_from("123459"), some.sampled_from("ABX"), KINDS), max_size=12))
def test_a_tree_is_the_same_after_storing_and_reading(logic: str, came: list[tuple[str, str, str]]) -> None:
    expected = tree(logic)
    plain = ExpectedComponent("P", "${x}")
    expected = ExpectedDirective(expected.rule, expected.directive, expected.mode, (*expected.items, plain))
    reports = [report(name, "v", kind, str(number), id_=id_) for number, (id_, name, kind) in enumerate(came)]
    status = compliance_trees.match(expected, reports)

    stored = list(compliance_trees.rows(status))

    keys = [(row.path, row.value, row.report_id, row.ordinal) for row in stored]
    assert len(set(keys)) == len(keys)
    restored = compliance_trees.restore(expected, reversed(stored))
    assert restored.counts == status.counts
    assert sorted(flat(restored)) == sorted(flat(status))


@given(some.lists(some.tuples(some.sampled_from("1234"), KINDS), max_size=8))
def test_every_expected_value_is_accounted_for(came: list[tuple[str, str]]) -> None:
    status = compliance_trees.match(tree("weighted"), [report("C", "v", kind, id_=id_) for id_, kind in came])

    ids = {row.report_id for row in compliance_trees.rows(status)}
    assert ids == {"1", "2", "3", "4"}
    assert sum(1 for _ in compliance_trees.rows(status)) == sum(
        max(1, [i for i, _ in came].count(one)) for one in "1234"
    )


def test_rows_that_nothing_expects_any_more_stand_at_the_end() -> None:
    gone = compliance_trees.unexpected([report("Old", "v", message="m", id_="9")])

    restored = compliance_trees.restore(promise(), compliance_trees.rows(gone))

    assert flat(restored) == [("Old", "v", "unexpected", "m")]
    assert shown(restored) == {"unexpected": 1}


def test_trees_of_several_nodes_are_gathered_by_component() -> None:
    first = compliance_trees.match(tree("weighted"), BLOCK_REPORTS)
    second = compliance_trees.uniform(tree("worst-case-weighted-one"), Status.NO_REPORT)

    (block,) = compliance_trees.gather([(NodeId("n1"), first.items), (NodeId("n2"), second.items)])

    assert isinstance(block, compliance_trees.GatheredBlock)
    assert block.logic == "worst-case-weighted-one"
    assert block.counts == compliance.total([first.counts, second.counts])
    component = block.children[0]
    assert isinstance(component, compliance_trees.GatheredComponent)
    assert [(one.node, one.values[0].outcomes[0].status.name) for one in component.nodes] == [
        ("n1", "SUCCESS_ALREADY_OK"),
        ("n2", "NO_REPORT"),
    ]
