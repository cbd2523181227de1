# SPDX-License-Identifier: Apache-2.0
"""Compliance of nodes over simulated time: what a run, a new configuration and silence make of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from tests.agents import START, Agent, call, give_policy, item, report

from quarterdeck.core import compliance as arithmetic
from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.compliance import Status
from quarterdeck.core.compliance_trees import GatheredComponent
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId, TechniqueId
from quarterdeck.core.nodes import NodeState
from quarterdeck.core.rules import Rule
from quarterdeck.engine.intake import Intake
from quarterdeck.formats import agent
from quarterdeck.services import compliance, compliance_views, reports
from quarterdeck.services.context import Context
from quarterdeck.services.reports import Slip
from quarterdeck.storage.database import Database, Provenance

FIRST = "20261121-115900-00000001"
SECOND = "20261121-120300-00000002"
CALLS = (call(1), call(2, value="/etc/issue"))
GOOD = [report(), report(id="call-2", value="/etc/issue")]
BAD = [report(), report(id="call-2", value="/etc/issue", status="result_error", message="no such directory")]


class Fleet:
    """Nodes whose clock the test turns."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = START
        self.intake = Intake(database, clock=lambda: self.now)

    @contextmanager
    def unit_of_work(self) -> Iterator[Context]:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            store.now = self.now
            yield Context(account=SYSTEM, store=store)
            store.commit()

    def at(self, minutes: float) -> None:
        """So many minutes after the beginning."""
        self.now = START + timedelta(minutes=minutes)

    def node(self, number: int = 1) -> Agent:
        one = Agent(hostname=f"web{number}.example.com")
        with self.unit_of_work() as ctx:
            ctx.store.nodes.add(one.as_node())
        return one

    def configure(
        self,
        one: Agent,
        *items: agent.PolicyItem,
        config_id: str = FIRST,
        begin: datetime | None = None,
        reporting: str = "full-compliance",
        heartbeat: int = 1,
    ) -> None:
        with self.unit_of_work() as ctx:
            give_policy(
                ctx,
                [one.node],
                items or [item(*CALLS)],
                config_id=config_id,
                begin=begin or self.now,
                reporting=reporting,
                heartbeat=heartbeat,
            )
            compliance.configuration_changed(ctx, [one.node])

    def run(self, one: Agent, some: Sequence[agent.Report], config_id: str = FIRST) -> None:
        """A run that begins and arrives now."""
        slip = Slip(
            node=one.node,
            nonce=os.urandom(16).hex(),
            at=self.now.timestamp(),
            key=reports.key_digest(one.certificate),
        )
        parcel = one.parcel("report", one.run(some, start=self.now, config_id=config_id))
        assert self.intake.take([reports.pack(slip, parcel)]) == []

    def state(self, one: Agent) -> str:
        with self.unit_of_work() as ctx:
            return ctx.store.compliance.judged([one.node])[NodeId(one.node)].state

    def counted(self, one: Agent) -> dict[Status, int]:
        """The node's values by status, as a shallow and as a deep look must agree."""
        with self.unit_of_work() as ctx:
            shallow = compliance_views.of_node(ctx, one.node, deep=False).counts
            deep = compliance_views.of_node(ctx, one.node).counts
        assert shallow == deep
        return {status: deep[status] for status in Status if deep[status]}

    def everything(self) -> dict[Status, int]:
        with self.unit_of_work() as ctx:
            counts = compliance.global_(ctx)
        return {status: counts[status] for status in Status if counts[status]}

    def expire(self) -> int:
        with self.unit_of_work() as ctx:
            return compliance.expire(ctx)


@pytest.fixture
def fleet(fresh_postgres_url: str) -> Iterator[Fleet]:
    database = Database(fresh_postgres_url, pool_size=2)
    yield Fleet(database)
    database.close()


def test_a_new_configuration_is_pending_until_the_node_had_time_to_run(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)

    assert fleet.counted(one) == {Status.APPLYING: 2}
    fleet.at(9.9)
    assert fleet.counted(one) == {Status.APPLYING: 2}
    fleet.at(10)
    fleet.expire()
    assert fleet.counted(one) == {Status.NO_REPORT: 2}


def test_a_run_counts_until_its_time_is_up(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)
    fleet.at(2)
    fleet.run(one, BAD)

    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.ERROR: 1}
    fleet.at(11.9)
    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.ERROR: 1}
    fleet.at(12)
    assert fleet.counted(one) == {Status.NO_REPORT: 2}, "before any sweep"
    assert fleet.expire() == 1
    assert fleet.counted(one) == {Status.NO_REPORT: 2}
    assert fleet.expire() == 0, "nothing is swept twice"


def test_a_silent_node_that_reports_again_is_what_it_was(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)
    fleet.at(1)
    fleet.run(one, GOOD)
    fleet.at(60)
    fleet.expire()

    fleet.at(61)
    fleet.run(one, GOOD)

    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 2}


def test_while_pending_what_did_not_change_keeps_its_result(fleet: Fleet) -> None:
    one = fleet.node()
    same, former, latter = (
        item(call(1)),
        item(call(1, value="/etc/issue"), directive="directive-2"),
        item(call(1, value="/etc/hosts"), directive="directive-2"),
    )
    fleet.configure(one, same, former)
    fleet.at(1)
    fleet.run(one, [report(), report(directive="directive-2", value="/etc/issue", status="result_repaired")])
    fleet.at(3)

    fleet.configure(one, same, latter, config_id=SECOND)

    assert fleet.state(one) == "pending"
    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.APPLYING: 1}


def test_a_second_change_before_any_run_still_remembers_what_the_run_was_about(fleet: Fleet) -> None:
    one = fleet.node()
    same = item(call(1))
    fleet.configure(one, same, item(call(1, value="/a"), directive="directive-2"))
    fleet.at(1)
    fleet.run(one, [report(), report(directive="directive-2", value="/a")])
    fleet.at(2)
    fleet.configure(one, same, item(call(1, value="/b"), directive="directive-2"), config_id=SECOND)
    fleet.at(3)

    fleet.configure(one, same, item(call(1, value="/b"), directive="directive-2"), config_id="20261121-120300-00000003")

    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.APPLYING: 1}


def test_a_node_that_goes_on_with_the_old_configuration_is_missing_and_unexpected(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one, item(call(1)))
    fleet.at(1)
    fleet.run(one, [report()])
    fleet.at(2)
    fleet.configure(one, item(call(1), directive="directive-2"), config_id=SECOND)
    fleet.at(12)

    fleet.run(one, [report()])

    assert fleet.state(one) == "unexpected-version"
    assert fleet.counted(one) == {Status.MISSING: 1, Status.UNEXPECTED: 1}


def test_a_report_that_does_not_come_with_the_others_is_missing(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)

    fleet.run(one, GOOD[:1])

    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.MISSING: 1}


def test_in_changes_only_silence_about_a_value_is_success_and_a_run_counts_for_the_heartbeat(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one, reporting="changes-only", heartbeat=3)
    fleet.run(one, [BAD[1]])

    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.ERROR: 1}
    fleet.at(19.9)
    assert fleet.counted(one) == {Status.SUCCESS_ALREADY_OK: 1, Status.ERROR: 1}
    fleet.at(20)
    assert fleet.counted(one) == {Status.NO_REPORT: 2}


def test_disabled_reports_are_neither_good_nor_late(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one, reporting="reports-disabled")
    fleet.at(600)
    fleet.expire()

    assert fleet.counted(one) == {Status.REPORTS_DISABLED: 2}


def test_enforcing_where_audit_was_asked_for_is_its_own_status(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one, item(call(1), mode="audit"))

    fleet.run(one, [report()])

    assert fleet.counted(one) == {Status.BAD_POLICY_MODE: 1}


def test_a_node_without_rules_has_nothing_to_count(fleet: Fleet) -> None:
    one = fleet.node()
    with fleet.unit_of_work() as ctx:
        give_policy(ctx, [one.node], [])
        compliance.configuration_changed(ctx, [one.node])

    assert fleet.state(one) == "no-user-rules"
    assert fleet.counted(one) == {}
    assert arithmetic.global_percent(arithmetic.EMPTY) == -1


def test_an_ignored_node_is_left_out(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)
    with fleet.unit_of_work() as ctx:
        node = ctx.store.nodes.get(one.node)
        ctx.store.nodes.set_by_administrator(replace(node, state=NodeState.IGNORED))
        compliance.recompute(ctx, [one.node])

    assert fleet.everything() == {}


def test_a_deleted_node_takes_its_compliance_with_it(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)
    fleet.run(one, GOOD)
    with fleet.unit_of_work() as ctx:
        ctx.store.nodes.remove(one.node)

    assert fleet.everything() == {}


def test_the_fleet_is_the_sum_of_its_nodes_the_silent_ones_included(fleet: Fleet) -> None:
    nodes = [fleet.node(number) for number in range(4)]
    for one in nodes:
        fleet.configure(one)
    fleet.at(1)
    fleet.run(nodes[0], GOOD)
    fleet.at(9)
    fleet.run(nodes[1], GOOD)
    fleet.run(nodes[2], BAD)
    fleet.at(11)

    assert fleet.everything() == {Status.SUCCESS_ALREADY_OK: 3, Status.ERROR: 1, Status.NO_REPORT: 4}
    fleet.expire()
    assert fleet.everything() == {Status.SUCCESS_ALREADY_OK: 3, Status.ERROR: 1, Status.NO_REPORT: 4}


def test_status_since_is_when_the_outcome_last_changed(fleet: Fleet) -> None:
    one = fleet.node()
    fleet.configure(one)
    for minutes, found in ((1, GOOD), (6, GOOD), (11, BAD), (16, BAD)):
        fleet.at(minutes)
        fleet.run(one, found)

    with fleet.unit_of_work() as ctx:
        judged = ctx.store.compliance.judged([one.node])[NodeId(one.node)]
    assert judged.status_since == START + timedelta(minutes=11)


def test_equal_counters_are_kept_once_and_swept_when_nobody_has_them(fleet: Fleet) -> None:
    nodes = [fleet.node(number) for number in range(5)]
    for one in nodes:
        fleet.configure(one)
    for one in nodes:
        fleet.run(one, GOOD)
    with fleet.unit_of_work() as ctx:
        ctx.store.compliance.sweep()
        kept = ctx.store.connection.exec_driver_sql("SELECT count(*) FROM compliance_counters").scalar_one()

    assert kept == 1


# -- views --------------------------------------------------------------------------------


@pytest.fixture
def viewed(fleet: Fleet) -> Fleet:
    """Two rules over two directives; rule-1 applies nowhere else than the nodes of the test, rule-2 nowhere."""
    with fleet.unit_of_work() as ctx:
        for number in (1, 2):
            ctx.store.directives.add(
                Directive(
                    id=DirectiveId(f"directive-{number}"),
                    name=f"Directive {number}",
                    technique=TechniqueId("technique"),
                    version="1.0",
                )
            )
            chosen = frozenset({DirectiveId("directive-1"), DirectiveId("directive-2")})
            ctx.store.rules.add(Rule(id=RuleId(f"rule-{number}"), name=f"Rule {number}", directives=chosen))
    return fleet


def test_by_rule_and_by_directive_sum_the_same_values(viewed: Fleet) -> None:
    nodes = [viewed.node(number) for number in (1, 2)]
    for one in nodes:
        viewed.configure(one, item(call(1)), item(call(1, value="/etc/issue"), directive="directive-2"))
    viewed.run(nodes[0], [report(), report(directive="directive-2", value="/etc/issue")])
    viewed.run(nodes[1], [report(status="result_repaired"), report(directive="directive-2", value="/etc/issue")])

    with viewed.unit_of_work() as ctx:
        rules = compliance_views.by_rules(ctx)
        directives = compliance_views.by_directives(ctx)
        flat = compliance_views.by_rules(ctx, deep=False)

    assert [(one.rule.name, sum(one.counts), len(one.nodes)) for one in rules] == [("Rule 1", 4, 2), ("Rule 2", 0, 0)]
    assert [one.counts for one in flat] == [one.counts for one in rules]
    assert rules[0].counts[Status.SUCCESS_REPAIRED] == 1
    [first, second] = rules[0].directives
    assert (first.directive, second.directive) == ("directive-1", "directive-2")
    [component] = first.components
    assert isinstance(component, GatheredComponent)
    assert {one.node for one in component.nodes} == {one.node for one in nodes}
    assert [sum(one.counts) for one in directives] == [2, 2]
    assert [pair.rule for pair in directives[0].rules] == ["rule-1"]
    assert rules[0].mode == "enforce"


def test_one_rule_one_directive_and_one_node_are_found_by_id(viewed: Fleet) -> None:
    one = viewed.node()
    viewed.configure(one)
    viewed.run(one, BAD)

    with viewed.unit_of_work() as ctx:
        rule = compliance_views.of_rule(ctx, "rule-1")
        directive = compliance_views.of_directive(ctx, "directive-1")
        node = compliance_views.of_node(ctx, one.node)

    assert rule.counts == directive.counts == node.counts
    assert node.hostname == one.hostname
    [outcome] = node.directives[0].items[0].values[1].outcomes  # type: ignore[union-attr]
    assert (outcome.status, outcome.message) == (Status.ERROR, "no such directory")


@pytest.mark.parametrize("look", [compliance_views.of_rule, compliance_views.of_directive, compliance_views.of_node])
def test_what_does_not_exist_has_no_compliance(viewed: Fleet, look: object) -> None:
    assert callable(look)
    with viewed.unit_of_work() as ctx, pytest.raises(NotFound):
        look(ctx, "nothing")


def test_who_waits_for_a_run_is_told_of_the_newest_and_of_what_it_came_to(fleet: Fleet) -> None:
    one, silent = fleet.node(1), fleet.node(2)
    fleet.configure(one)
    fleet.configure(silent, reporting="reports-disabled")
    fleet.at(3)
    fleet.run(one, BAD)

    with fleet.unit_of_work() as ctx:
        latest = compliance.latest_run(ctx, NodeId(one.node))
        found = compliance.of_node(ctx, NodeId(one.node))
        others = [compliance.of_node(ctx, NodeId(node)) for node in (silent.node, "nothing")]
        none = compliance.latest_run(ctx, NodeId("nothing"))

    assert (latest.at, latest.now) == (fleet.now, fleet.now)
    assert (found.reports, arithmetic.percent(found.counts)) == (True, 50.0)
    assert [other.reports for other in others] == [False, False]
    assert none.at is None
