# SPDX-License-Identifier: Apache-2.0
"""Applying one policy: each call in order is audited, repaired where allowed and needed, and reported.

Knows no network and no state file. A call that goes wrong in any way is an error report; it never
ends the run.

After each call, conditions `<prefix>_<canonified value>_<suffix>` tell the calls that follow how it
went. In audit mode a call that found drift counts as not fulfilled: it defines the suffixes of an
error and `noncompliant`, so that whatever depends on its success does not run.
"""

from __future__ import annotations

import enum
from collections import ChainMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Tuple

from quarterdeck_agent import conditions, variables
from quarterdeck_agent.documents import Call, Policy, PolicyItem, Report
from quarterdeck_agent.outcome import Facts, Finding, Method, MethodCall, State

if TYPE_CHECKING:
    from quarterdeck_agent.exchange import Exchange
    from quarterdeck_agent.resources import Place

MAX_MESSAGE_CHARACTERS = 16384


class Outcome(enum.Enum):
    """How one call ended, whatever the mode."""

    KEPT = "kept"
    REPAIRED = "repaired"
    DRIFTED = "drifted"
    NOT_APPLICABLE = "not applicable"
    ERROR = "error"


_SUFFIXES: Dict[Outcome, Tuple[str, ...]] = {
    Outcome.KEPT: ("kept", "ok", "not_repaired", "reached"),
    Outcome.REPAIRED: ("repaired", "ok", "not_kept", "reached"),
    Outcome.DRIFTED: ("noncompliant", "error", "failed", "not_ok", "not_kept", "not_repaired", "reached"),
    Outcome.ERROR: ("error", "failed", "not_ok", "not_kept", "not_repaired", "reached"),
    Outcome.NOT_APPLICABLE: ("noop", "reached"),
}

_ENFORCE_STATUS = {
    Outcome.KEPT: "result_success",
    Outcome.REPAIRED: "result_repaired",
    Outcome.DRIFTED: "result_error",
    Outcome.NOT_APPLICABLE: "result_na",
    Outcome.ERROR: "result_error",
}
_AUDIT_STATUS = {
    Outcome.KEPT: "audit_compliant",
    Outcome.REPAIRED: "audit_error",
    Outcome.DRIFTED: "audit_noncompliant",
    Outcome.NOT_APPLICABLE: "audit_na",
    Outcome.ERROR: "audit_error",
}


@dataclass
class Engine:
    """What all calls of one run share."""

    methods: Mapping[str, Method]
    facts: Facts
    #: True: nothing is repaired, whatever the policy's mode says.
    audit_only: bool = False
    backups: Optional[str] = None
    persistent: Optional[str] = None
    #: The node's own server, for files.
    server: Optional[Exchange] = None
    #: The files of techniques, by id and version.
    resources: Mapping[Tuple[str, str], Place] = field(default_factory=dict)
    #: Problems of calls that send no report.
    problems: List[str] = field(default_factory=list)

    def apply(self, policy: Policy) -> Iterator[Report]:
        """Carry out the policy, yielding the report of each call that has one."""
        self.facts.conditions.update(policy["conditions"])
        self.facts.variables["node.properties"] = policy["properties"]
        for item in policy["policies"]:
            for call, required in _calls(item["items"], ()):
                report = self._carry_out(item, call, required)
                if call["report"]:
                    yield report
                elif report["status"] in ("result_error", "audit_error"):
                    self.problems.append(f"{item['name']}, {call['component']}: {report['message']}")

    def _carry_out(self, item: PolicyItem, call: Call, required: Tuple[str, ...]) -> Report:
        """One call, from its conditions to its report."""
        enforce = item["mode"] == "enforce" and not self.audit_only
        value = call["value"]
        try:
            value = self._expand(value, item)
            unmet = self._unmet(required)
            if unmet is None:
                outcome, message = self._judge(item, call, enforce=enforce)
                self._define_results(call, value, outcome)
            else:
                outcome, message = Outcome.NOT_APPLICABLE, f"The condition {unmet} is not met."
        except (variables.UndefinedVariable, conditions.BadExpression) as error:
            outcome, message = Outcome.ERROR, str(error)
            self._define_results(call, value, outcome)
        return {
            "rule": item["rule"],
            "directive": item["directive"],
            "id": call["id"],
            "component": call["component"],
            "value": value,
            "status": (_ENFORCE_STATUS if enforce else _AUDIT_STATUS)[outcome],
            "message": _shortened(message),
        }

    def _unmet(self, required: Tuple[str, ...]) -> Optional[str]:
        """The first of the conditions that does not hold. Raises BadExpression, UndefinedVariable."""
        for expression in required:
            expanded = variables.expand(expression, self.facts.variables, conditions.canonify)
            if not conditions.holds(expanded, self.facts.conditions):
                return expanded
        return None

    def _judge(self, item: PolicyItem, call: Call, *, enforce: bool) -> Tuple[Outcome, str]:
        """Audit, and where allowed repair, one call whose conditions hold. Raises UndefinedVariable."""
        method = self.methods.get(call["method"])
        if method is None:
            return Outcome.ERROR, f"This agent does not know the method {call['method']}; update the agent."
        params = {name: self._expand(value, item) for name, value in call["params"].items()}
        prepared = MethodCall(
            params=params, facts=self.facts, backups=self.backups, state=self.persistent, server=self.server
        )
        try:
            if method.blind:
                return _judge_blind(method, prepared, enforce=enforce)
            return _judge_seeing(method, prepared, enforce=enforce)
        except Exception as error:  # a method's defect is one component's error, not the run's
            return Outcome.ERROR, f"{type(error).__name__}: {error}"

    def _define_results(self, call: Call, value: str, outcome: Outcome) -> None:
        method = self.methods.get(call["method"])
        stem = f"{method.prefix if method else call['method']}_{conditions.canonify(value)}"
        self.facts.conditions.update(f"{stem}_{suffix}" for suffix in _SUFFIXES[outcome])

    def _expand(self, text: str, item: PolicyItem) -> str:
        known: Mapping[str, object] = self.facts.variables
        if variables.RESOURCES in text and item.get("resources"):
            place = self.resources.get((item["technique"], item["version"]))
            known = ChainMap({variables.RESOURCES: _directory(place)}, self.facts.variables)
        return variables.expand(text, known)


def _directory(place: Optional[Place]) -> object:
    """Where the files of a technique are, or why they cannot be used."""
    if place is None:
        return variables.UndefinedVariable("The resources of this technique are not here.")
    return variables.UndefinedVariable(place.problem) if place.problem else place.directory


def _judge_seeing(method: Method, call: MethodCall, *, enforce: bool) -> Tuple[Outcome, str]:
    """Audit; repair and audit again if there is drift and the mode allows it."""
    found = method.audit(call)
    if found.state is not State.DRIFT or not enforce:
        return _outcome_of(found), found.message
    if method.enforce is None:
        return Outcome.ERROR, found.message
    done = method.enforce(call)
    if done.state in (State.ERROR, State.NOT_APPLICABLE):
        return _outcome_of(done), done.message
    after = method.audit(call)
    if after.state is State.COMPLIANT:
        return Outcome.REPAIRED, _joined(done.message, found.message)
    return Outcome.ERROR, _joined("Still not as wanted after the repair.", after.message)


def _judge_blind(method: Method, call: MethodCall, *, enforce: bool) -> Tuple[Outcome, str]:
    """A method that can only be done, not looked at: left alone in audit mode."""
    if enforce and method.enforce is not None:
        done = method.enforce(call)
        return _outcome_of(done), done.message
    return Outcome.NOT_APPLICABLE, method.audit(call).message or f"{method.name} would run; it cannot be audited."


def _outcome_of(finding: Finding) -> Outcome:
    return {
        State.COMPLIANT: Outcome.KEPT,
        State.REPAIRED: Outcome.REPAIRED,
        State.DRIFT: Outcome.DRIFTED,
        State.NOT_APPLICABLE: Outcome.NOT_APPLICABLE,
        State.ERROR: Outcome.ERROR,
    }[finding.state]


def _calls(items: Any, required: Tuple[str, ...]) -> Iterator[Tuple[Call, Tuple[str, ...]]]:
    """The calls in order, each with the conditions of its blocks, outermost first, and its own."""
    for item in items:
        conditions_here = (*required, item["condition"])
        if item["type"] == "block":
            yield from _calls(item["items"], conditions_here)
        else:
            yield item, conditions_here


def _joined(first: str, second: str) -> str:
    return "\n".join(part for part in (first, second if second != first else "") if part)


def _shortened(message: str) -> str:
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return f"{message[:MAX_MESSAGE_CHARACTERS]}\n[{len(message) - MAX_MESSAGE_CHARACTERS} more characters]"
