# SPDX-License-Identifier: Apache-2.0
"""What a policy promises to report, and which of a run's reports keep which promise.

A directive's expectation is a tree: blocks around components with a value each. An expected value carries a
report id where the policy gave one, which then decides alone; those without are matched by component and value.
The tree of statuses that comes of it is made in `compliance_trees.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from quarterdeck.core.compliance import Status
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import DirectiveId, RuleId
from quarterdeck.core.modes import PolicyMode

#: The value of a component that has none of its own.
NO_VALUE = "None"
#: Report ids that identify nothing.
NO_IDS = ("", "0")

_STATUSES = {
    "result_na": (PolicyMode.ENFORCE, Status.SUCCESS_NOT_APPLICABLE),
    "result_success": (PolicyMode.ENFORCE, Status.SUCCESS_ALREADY_OK),
    "result_repaired": (PolicyMode.ENFORCE, Status.SUCCESS_REPAIRED),
    "result_error": (PolicyMode.ENFORCE, Status.ERROR),
    "audit_na": (PolicyMode.AUDIT, Status.AUDIT_NOT_APPLICABLE),
    "audit_compliant": (PolicyMode.AUDIT, Status.AUDIT_COMPLIANT),
    "audit_noncompliant": (PolicyMode.AUDIT, Status.AUDIT_NON_COMPLIANT),
    "audit_error": (PolicyMode.AUDIT, Status.AUDIT_ERROR),
}
_VARIABLE = re.compile(r"\$\{[^}]*\}|\$\([^)]*\)|@\{[^}]*\}|@\([^)]*\)")


class Reporting(enum.StrEnum):
    FULL = "full-compliance"
    #: Only repairs, errors and non-compliance are sent, and everything once per heartbeat.
    CHANGES_ONLY = "changes-only"
    DISABLED = "reports-disabled"


@dataclass(frozen=True, slots=True)
class ExpectedComponent:
    """One component with one value. `report_id` is empty when component and value identify its reports."""

    name: str
    value: str = NO_VALUE
    report_id: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedBlock:
    """Components that count together as `logic` says."""

    name: str
    logic: str
    children: tuple[ExpectedItem, ...]
    id: str = ""


ExpectedItem = ExpectedComponent | ExpectedBlock


@dataclass(frozen=True, slots=True)
class ExpectedDirective:
    """A directive, as one rule brings it to a node."""

    rule: RuleId
    directive: DirectiveId
    mode: PolicyMode
    items: tuple[ExpectedItem, ...]


class ReceivedReport(NamedTuple):
    """One line of a run. `kind` is what the agent said, such as `audit_compliant`."""

    rule: str
    directive: str
    report_id: str
    component: str
    value: str
    kind: str
    message: str


class Outcome(NamedTuple):
    """One report of a value, or what stands for it when none came."""

    status: Status
    message: str = ""
    report_id: str = ""


#: One expected component's (component as received or expected, value, outcomes)
Found = tuple[str, str, list[Outcome]]


# -- reading expectations and reports ------------------------------------------------


def expected(document: Mapping[str, Any]) -> ExpectedDirective:
    """What one item of a policy document promises. Calls that do not report are left out, so are empty blocks."""
    return ExpectedDirective(
        rule=RuleId(document["rule"]),
        directive=DirectiveId(document["directive"]),
        mode=PolicyMode(document["mode"]),
        items=tuple(_expected_items(document["items"])),
    )


def _expected_items(documents: Iterable[Mapping[str, Any]]) -> Iterator[ExpectedItem]:
    for one in documents:
        if one["type"] == "block":
            children = tuple(_expected_items(one["items"]))
            if children:
                yield ExpectedBlock(one["component"], one["logic"], children, one["id"])
        elif one.get("report", True):
            yield ExpectedComponent(one["component"], one["value"] or NO_VALUE, one["id"])


def received(document: Mapping[str, Any]) -> ReceivedReport:
    """One report of a run's document. Raises Invalid when its status is not one that counts."""
    if document["status"] not in _STATUSES:
        raise Invalid(f"'{document['status']}' is not a status of reports.")
    return ReceivedReport(
        document["rule"],
        document["directive"],
        document["id"],
        document["component"],
        document["value"] or NO_VALUE,
        document["status"],
        document["message"],
    )


# -- matching ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How the node reports. `unbound_values`: several reports for a value with an agent variable are fine."""

    reporting: Reporting = Reporting.FULL
    unbound_values: bool = True


USUAL = Matching()


class Matcher:
    """The reports of one directive, ready to be looked up."""

    def __init__(self, mode: PolicyMode, reports: Sequence[ReceivedReport], matching: Matching) -> None:
        self._mode = mode
        self._matching = matching
        self._reports = reports
        self._by_id: dict[str, list[ReceivedReport]] = {}
        for report in reports:
            self._by_id.setdefault(report.report_id, []).append(report)

    def find(self, level: Sequence[ExpectedComponent]) -> list[list[Found]]:
        """What came for each of the components that stand side by side."""
        found: list[list[Found]] = [[] for _ in level]
        unidentified: dict[str, list[int]] = {}
        for position, one in enumerate(level):
            if one.report_id in NO_IDS:
                unidentified.setdefault(one.name, []).append(position)
            else:
                found[position] = self._identified(one)
        for name, positions in unidentified.items():
            named = self._named(name, [level[position].value for position in positions])
            for position in positions:
                entry = named.pop(level[position].value, None)
                found[position] = [entry] if entry is not None else []
        return found

    def _identified(self, one: ExpectedComponent) -> list[Found]:
        reports = self._by_id.get(one.report_id)
        if reports is None:
            status, _ = self._no_answer()
            return [(one.name, one.value, [Outcome(status, "Missing report", one.report_id)])]
        if len(reports) == 1:
            report = reports[0]
            return [(report.component, report.value, [self._outcome(report)])]
        grouped: dict[tuple[str, str], list[Outcome]] = {}
        for report in reports:
            grouped.setdefault((report.component, report.value), []).append(self._outcome(report))
        return [(name, value, outcomes) for (name, value), outcomes in grouped.items()]

    def _named(self, name: str, values: Sequence[str]) -> dict[str, Found]:
        """The reports of one component, shared out among its values; equal values are one."""
        reports = [report for report in self._reports if report.component == name]
        status, text = self._no_answer()
        if not reports:
            return {value: (name, value, [Outcome(status)] * values.count(value)) for value in values}
        taken, bound = self._share_out(values, reports)
        found: dict[str, Found] = {}
        for value in values:
            cardinality = max(values.count(value), bound.get(value, 0))
            outcomes = [self._outcome(reports[position]) for position in sorted(taken[value])]
            if len(outcomes) > cardinality:
                outcomes = [one._replace(status=Status.UNEXPECTED) for one in outcomes]
            absent = range(1, cardinality - len(outcomes) + 1)
            outcomes.extend(Outcome(status, f"[{text} #{number}]") for number in absent)
            found[value] = (name, value, outcomes)
        return found

    def _share_out(
        self, values: Sequence[str], reports: Sequence[ReceivedReport]
    ) -> tuple[dict[str, list[int]], dict[str, int]]:
        """Value -> positions of its reports; and how many are fine for values with a variable."""
        patterns = {value: _pattern(value) for value in values}
        ordered = sorted(values, key=lambda value: -len(_VARIABLE.sub("", value)))
        waiting = sorted(range(len(reports)), key=lambda position: -len(reports[position].value))
        taken: dict[str, list[int]] = {value: [] for value in values}
        for value in ordered:
            mine = next((one for one in waiting if patterns[value](reports[one].value)), None)
            if mine is not None:
                waiting.remove(mine)
                taken[value].append(mine)
        bound: dict[str, int] = {}
        for position in waiting:
            fitting = next((one for one in ordered if patterns[one](reports[position].value)), None)
            if fitting is not None:
                taken[fitting].append(position)
                if self._matching.unbound_values and _VARIABLE.search(fitting):
                    bound[fitting] = len(taken[fitting])
        return taken, bound

    def _outcome(self, report: ReceivedReport) -> Outcome:
        mode, status = _STATUSES[report.kind]
        if mode is self._mode:
            return Outcome(status, report.message, report.report_id)
        message = f"PolicyMode is configured to {self._mode} but we get: '{report.kind}': {report.message}"
        return Outcome(Status.BAD_POLICY_MODE, message, report.report_id)

    def _no_answer(self) -> tuple[Status, str]:
        if self._matching.reporting is Reporting.DISABLED:
            return Status.REPORTS_DISABLED, "Missing report"
        if self._matching.reporting is Reporting.FULL:
            return Status.MISSING, "Missing report"
        if self._mode is PolicyMode.AUDIT:
            return Status.AUDIT_COMPLIANT, "Compliant report not sent in change only"
        return Status.SUCCESS_ALREADY_OK, "Success report not sent in change only"


def _pattern(value: str) -> Callable[[str], bool]:
    if _VARIABLE.search(value) is None:
        return lambda text: text == value
    literals = _VARIABLE.split(value)
    pattern = re.compile(".*".join(re.escape(literal) for literal in literals), re.DOTALL)
    return lambda text: pattern.fullmatch(text) is not None
