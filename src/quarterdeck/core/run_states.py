# SPDX-License-Identifier: Apache-2.0
"""Whether a node's last run still says something about its present configuration, and until when.

Times are aware; the caller brings the clock. What each state means for the statuses of values is `statuses`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from quarterdeck.core import compliance_trees
from quarterdeck.core.compliance import Status
from quarterdeck.core.compliance_trees import DirectiveStatus
from quarterdeck.core.expected_reports import ExpectedDirective, Matching, ReceivedReport, Reporting

#: How long after its time a run may still arrive.
GRACE = timedelta(minutes=5)


class RunState(enum.StrEnum):
    #: Neither a configuration nor a run.
    NEW = "new"
    #: A run, but no configuration to compare it with.
    NO_EXPECTED_REPORT = "no-expected-report"
    #: The configuration is so young that the node had no time to report on it.
    PENDING = "pending"
    NO_REPORT = "no-report"
    REPORTS_DISABLED = "reports-disabled"
    #: The last run is about the present configuration: its reports count.
    COMPUTE = "compute"
    #: The last run is about an older configuration, and should not be any more.
    UNEXPECTED_VERSION = "unexpected-version"
    #: The last run names no configuration, or one that never was.
    UNKNOWN_VERSION = "unknown-version"
    #: The configuration has nothing that an administrator asked for.
    NO_USER_RULES = "no-user-rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the node should have at this moment. `has_rules`: it holds something besides what the system needs."""

    id: str
    begin: datetime
    has_rules: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """`config_id` is empty when the run named none; `known`: it is, or was, a configuration of this node."""

    at: datetime
    config_id: str
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often a node runs, and how it reports. `heartbeat` counts runs."""

    interval_minutes: int = 5
    heartbeat: int = 1
    reporting: Reporting = Reporting.FULL

    @property
    def run_is_due(self) -> timedelta:
        """How long after a new configuration the first run about it is due."""
        return timedelta(minutes=self.interval_minutes) + GRACE

    @property
    def run_expires(self) -> timedelta:
        """How long a run counts."""
        runs = self.heartbeat if self.reporting is Reporting.CHANGES_ONLY else 1
        return timedelta(minutes=self.interval_minutes * runs) + GRACE


@dataclass(frozen=True, slots=True)
class Standing:
    """A state, and the moment at which it is to be decided again; None when only an event can change it."""

    state: RunState
    valid_until: datetime | None = None
    #: The last run is too old to say anything, even about what did not change since.
    run_expired: bool = False


def decide(now: datetime, configuration: Configuration | None, run: LastRun | None, rhythm: Rhythm) -> Standing:
    """What a node's last run is worth at this moment."""
    if configuration is None:
        return Standing(RunState.NEW if run is None else RunState.NO_EXPECTED_REPORT)
    if not configuration.has_rules:
        return Standing(RunState.NO_USER_RULES)
    if rhythm.reporting is Reporting.DISABLED:
        return Standing(RunState.REPORTS_DISABLED)
    expiry = run.at + rhythm.run_expires if run is not None else now
    due = configuration.begin + rhythm.run_is_due
    about_present = run is not None and run.config_id == configuration.id
    if now < due and not about_present:
        return Standing(RunState.PENDING, due, run_expired=now >= expiry)
    if run is None or now >= expiry:
        return Standing(RunState.NO_REPORT)
    return Standing(_version_state(run, about_present=about_present), expiry)


def _version_state(run: LastRun, *, about_present: bool) -> RunState:
    if about_present:
        return RunState.COMPUTE
    return RunState.UNEXPECTED_VERSION if run.known and run.config_id else RunState.UNKNOWN_VERSION


def statuses(
    standing: Standing,
    promises: Sequence[ExpectedDirective],
    reports: Sequence[ReceivedReport],
    *,
    matching: Matching,
    before: Iterable[ExpectedDirective] = (),
) -> tuple[DirectiveStatus, ...]:
    """The statuses of everything a node should report, from its last run's reports.

    `before` is what the configuration of that run expected; it matters while the present one is pending:
    what did not change keeps its result.
    """
    match standing.state:
        case RunState.NEW | RunState.NO_USER_RULES:
            return ()
        case RunState.COMPUTE:
            return compliance_trees.match_run(promises, reports, matching)
        case RunState.PENDING:
            unchanged = {(one.rule, one.directive): one for one in before}
            kept = [one for one in promises if unchanged.get((one.rule, one.directive)) == one]
            last = _uniform(kept, Status.NO_REPORT) if standing.run_expired else _matched(kept, reports, matching)
            results = {(one.rule, one.directive): one for one in (*_uniform(promises, Status.APPLYING), *last)}
            return tuple(results.values())
        case RunState.NO_REPORT:
            return _uniform(promises, Status.NO_REPORT)
        case RunState.REPORTS_DISABLED:
            return _uniform(promises, Status.REPORTS_DISABLED)
        case RunState.UNEXPECTED_VERSION | RunState.UNKNOWN_VERSION | RunState.NO_EXPECTED_REPORT:
            return compliance_trees.replaced(promises, reports)


def _uniform(promises: Iterable[ExpectedDirective], status: Status) -> tuple[DirectiveStatus, ...]:
    return tuple(compliance_trees.uniform(one, status) for one in promises)


def _matched(
    promises: Sequence[ExpectedDirective], reports: Iterable[ReceivedReport], matching: Matching
) -> tuple[DirectiveStatus, ...]:
    keys = {(one.rule, one.directive) for one in promises}
    concerned = (one for one in reports if (one.rule, one.directive) in keys)
    return compliance_trees.match_run(promises, concerned, matching)
