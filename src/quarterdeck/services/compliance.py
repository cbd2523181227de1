# SPDX-License-Identifier: Apache-2.0
"""Compliance, decided when a run arrives, when a configuration changes and when time runs out; kept per node.

How reports keep promises is `core`'s; who reads the outcome looks into `compliance_views.py`. Nothing here looks at
a policy twice that many nodes share.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from quarterdeck.core import compliance, compliance_trees, expected_reports, policy_items, run_states
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.compliance_trees import DirectiveStatus
from quarterdeck.core.expected_reports import ExpectedDirective, Matching, ReceivedReport, Reporting
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.run_states import Configuration, LastRun, Rhythm, RunState, Standing
from quarterdeck.formats import agent
from quarterdeck.services.context import Context
from quarterdeck.storage.compliance import Counter, Judged, Subject
from quarterdeck.storage.policies import StoredPolicy
from quarterdeck.storage.reports import StateRow

_BATCH = 500
_CONFIG_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


class Promise(NamedTuple):
    """What one item of a policy promises. `digest` covers all that it does, not only what it reports."""

    expected: ExpectedDirective
    digest: str
    #: How many values there are to miss when the node is silent.
    silent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a node's present configuration expects, and how the node reports."""

    configuration: Configuration
    rhythm: Rhythm
    promises: tuple[Promise, ...]
    #: Rules whose reports nobody is to see.
    system: frozenset[RuleId] = frozenset()


#: Digests of the promises that a node's last run was about.
Kept = Mapping[tuple[RuleId, DirectiveId], str]


class Verdict(NamedTuple):
    """What was decided about a node, and when it has to be decided again."""

    judged: Judged
    valid_until: datetime | None


class _Schedule(msgspec.Struct, frozen=True):
    interval_minutes: int


class _Head(msgspec.Struct, frozen=True):
    schedule: _Schedule
    reporting: Reporting
    heartbeat_runs: int


_heads = msgspec.json.Decoder(_Head)


# -- when something happens ---------------------------------------------------------


def configuration_changed(ctx: Context, nodes: Sequence[str]) -> None:
    """These nodes have other policies than before, or none any more."""
    for start in range(0, len(nodes), _BATCH):
        recompute(ctx, nodes[start : start + _BATCH])


def expire(ctx: Context) -> int:
    """Decide again about nodes whose time is up; how many they were."""
    expired = sorted(ctx.store.compliance.expired_nodes())
    for start in range(0, len(expired), _BATCH):
        recompute(ctx, expired[start : start + _BATCH])
    return len(expired)


def recompute(ctx: Context, nodes: Collection[str]) -> None:
    """Decide again about these nodes, from their policies and what their last runs reported."""
    ctx.store.reports.lock(nodes)
    subjects = ctx.store.compliance.subjects(nodes)
    ctx.store.compliance.forget(set(nodes) - {subject.node for subject in subjects})
    present = [subject.node for subject in subjects]
    rows = ctx.store.reports.states(present)
    reports = {node: received(found.values()) for node, found in rows.items()}
    verdicts = judge_all(ctx, subjects, reports)
    ctx.store.compliance.put([verdict.judged for verdict in verdicts])
    ctx.store.compliance.set_valid_until((verdict.judged.node, verdict.valid_until) for verdict in verdicts)


def judge_all(
    ctx: Context, subjects: Sequence[Subject], reports: Mapping[NodeId, Sequence[ReceivedReport]]
) -> list[Verdict]:
    """What is to be thought of these nodes, given what their last runs reported. Keeps nothing."""
    nodes = [subject.node for subject in subjects]
    plans_ = plans(ctx, nodes)
    before = ctx.store.compliance.judged(nodes)
    unbound = ctx.store.settings.get().unexpected_unbound_var_values
    return [
        _judge(
            ctx.now,
            subject,
            plans_.get(subject.node),
            reports.get(subject.node, ()),
            before.get(subject.node),
            unbound_values=unbound,
        )
        for subject in subjects
    ]


def _judge(
    now: datetime,
    subject: Subject,
    plan: Plan | None,
    reports: Sequence[ReceivedReport],
    before: Judged | None,
    *,
    unbound_values: bool,
) -> Verdict:
    kept = {(one.rule, one.directive): one.promise for one in before.counters} if before is not None else {}
    standing = standing_of(now, subject, plan)
    statuses = statuses_of(standing, plan, reports, kept, unbound_values=unbound_values)
    counters = _counters(standing, plan, statuses, kept)
    totals = compliance.total(one.counts for one in counters)
    unchanged = before is not None and (before.state, before.totals) == (standing.state.value, totals)
    judged = Judged(
        node=subject.node,
        config_id=plan.configuration.id if plan is not None else "",
        state=standing.state.value,
        status_since=before.status_since if before is not None and unchanged else now,
        totals=totals,
        silent=sum(one.silent for one in counters),
        counters=counters,
    )
    return Verdict(judged, standing.valid_until)


def standing_of(now: datetime, subject: Subject, plan: Plan | None) -> Standing:
    """What the node's last run is worth now."""
    run = None
    if subject.last_run is not None:
        known = _CONFIG_ID.fullmatch(subject.run_config_id) is not None
        run = LastRun(at=subject.last_run, config_id=subject.run_config_id, known=known)
    if plan is None:
        return run_states.decide(now, None, run, Rhythm())
    return run_states.decide(now, plan.configuration, run, plan.rhythm)


def statuses_of(
    standing: Standing,
    plan: Plan | None,
    reports: Sequence[ReceivedReport],
    kept: Kept,
    *,
    unbound_values: bool,
) -> tuple[DirectiveStatus, ...]:
    """The trees of a node's directives. `kept` has the digests of the promises that its last run was about."""
    promises = plan.promises if plan is not None else ()
    if plan is not None and plan.system:
        reports = [one for one in reports if one.rule not in plan.system]
    matching = Matching(reporting=plan.rhythm.reporting if plan else Reporting.FULL, unbound_values=unbound_values)
    before = [one.expected for one in promises if kept.get((one.expected.rule, one.expected.directive)) == one.digest]
    expected = [one.expected for one in promises]
    return run_states.statuses(standing, expected, reports, matching=matching, before=before)


def _counters(
    standing: Standing,
    plan: Plan | None,
    statuses: Iterable[DirectiveStatus],
    kept: Kept,
) -> tuple[Counter, ...]:
    promises = {(one.expected.rule, one.expected.directive): one for one in (plan.promises if plan else ())}
    counters = []
    for status in statuses:
        key = (status.rule, status.directive)
        promise = promises.get(key)
        digest = kept.get(key, "")
        if standing.state is RunState.COMPUTE:
            digest = promise.digest if promise is not None else ""
        silent = promise.silent if promise is not None else 0
        counters.append(Counter(status.rule, status.directive, status.counts, silent, digest))
    return tuple(sorted(counters))


# -- what is expected ---------------------------------------------------------------


def plans(ctx: Context, nodes: Sequence[str]) -> dict[NodeId, Plan]:
    """What the present configuration of each of these nodes that has one expects, without system rules."""
    system = frozenset(rule.id for rule in ctx.store.rules.having(system=True))
    return {stored.policy.node: _plan(stored, system) for stored in ctx.store.policies.load(nodes)}


def _plan(stored: StoredPolicy, system: frozenset[RuleId]) -> Plan:
    head = _heads.decode(stored.policy.head)
    filled = (policy_items.fill(stored.fragments[one], stored.policy.values) for one in stored.policy.fragments)
    promises = tuple(one for one in map(_promise, filled) if one.expected.rule not in system)
    return Plan(
        configuration=Configuration(id=stored.config_id, begin=stored.begin_at, has_rules=bool(promises)),
        rhythm=Rhythm(
            interval_minutes=head.schedule.interval_minutes, heartbeat=head.heartbeat_runs, reporting=head.reporting
        ),
        promises=promises,
        system=system,
    )


@functools.lru_cache(maxsize=5_000)
def _promise(filled: bytes) -> Promise:
    expected = expected_reports.expected(msgspec.json.decode(filled))
    silent = compliance_trees.uniform(expected, Status.NO_REPORT).counts[Status.NO_REPORT]
    return Promise(expected, hashlib.sha256(filled).hexdigest()[:16], silent)


def received(rows: Iterable[StateRow]) -> list[ReceivedReport]:
    """Stored reports as they came."""
    return [
        ReceivedReport(
            row.key.rule,
            row.key.directive,
            row.key.report_id,
            row.key.component,
            row.key.value,
            agent.REPORT_STATUSES[row.status],
            row.message,
        )
        for row in sorted(rows, key=lambda row: row.key.ordinal)
    ]


# -- one node, around a run that somebody waits for -----------------------------------


class LatestRun(NamedTuple):
    """When a node's newest run that was heard of began, if any was; and the present moment."""

    at: datetime | None
    now: datetime


class NodeCompliance(NamedTuple):
    """What was decided about a node last. `reports`: it is to report on its runs."""

    reports: bool
    counts: Counts


def latest_run(ctx: Context, node: NodeId) -> LatestRun:
    """The newest run of a node; of one that is not accepted, or ignored, there is none."""
    found = ctx.store.compliance.subjects([node])
    return LatestRun(found[0].last_run if found else None, ctx.now)


def of_node(ctx: Context, node: NodeId) -> NodeCompliance:
    """The compliance of one node, right after a run of it."""
    plan, judged = plans(ctx, [node]).get(node), ctx.store.compliance.judged([node]).get(node)
    reports = plan is not None and plan.rhythm.reporting is not Reporting.DISABLED
    return NodeCompliance(reports, judged.totals if judged is not None else compliance.EMPTY)


# -- the fleet as one number -----------------------------------------------------------


def global_(ctx: Context) -> Counts:
    """All values of all user rules on all nodes; all zero when there is no data."""
    return ctx.store.compliance.total()
