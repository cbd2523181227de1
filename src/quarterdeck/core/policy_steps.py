# SPDX-License-Identifier: Apache-2.0
"""A job's step that applies policies: what its configuration may say, and how a node's compliance is told.

How documents spell the step: `formats/job_xml.py`, `formats/job_yaml.py`. Who carries it out: `engine/policy_runs.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quarterdeck.core import compliance, job_context, remote_runs
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_context import Context
from quarterdeck.core.jobs import ApplyPolicies, Step

#: What documents call the step, a plugin's in their grammar.
TYPE = "quarterdeck-apply-policies"
#: What whoever runs such a step needs besides: the same as to have agents run by themselves.
RIGHT = "node.write"
WAIT_SECONDS = 60
MOST_WAIT_SECONDS = 3600

#: Keys of the configuration -> fields of `ApplyPolicies`.
_FIELDS = {"audit": "audit", "compliance": "compliance", "conditions": "conditions", "wait-seconds": "wait_seconds"}
_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,5})?")
_SECONDS = re.compile(r"[0-9]{1,4}")
#: As job documents have flags.
_WORDS = {"": False, "false": False, "no": False, "off": False, "true": True, "yes": True, "on": True}
#: Worst first.
_NAMES = {
    Status.BAD_POLICY_MODE: "wrong policy mode",
    Status.UNEXPECTED: "unexpected",
    Status.ERROR: "error",
    Status.AUDIT_ERROR: "audit error",
    Status.AUDIT_NON_COMPLIANT: "not compliant",
    Status.MISSING: "missing",
    Status.NO_REPORT: "no report",
    Status.REPORTS_DISABLED: "reports disabled",
    Status.APPLYING: "applying",
    Status.SUCCESS_REPAIRED: "repaired",
    Status.SUCCESS_ALREADY_OK: "already ok",
    Status.AUDIT_COMPLIANT: "compliant",
    Status.SUCCESS_NOT_APPLICABLE: "not applicable",
    Status.AUDIT_NOT_APPLICABLE: "not applicable in audit",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a step asks for on one node. `compliance`: the least percentage that will do, None for any."""

    audit: bool = False
    conditions: tuple[str, ...] = ()
    compliance: float | None = None
    wait_seconds: int = WAIT_SECONDS


def step(configuration: Mapping[str, str]) -> ApplyPolicies:
    """The step of a configuration. Raises Invalid for a key that it does not know."""
    for key in configuration:
        if key not in _FIELDS:
            raise Invalid(f"{TYPE} knows no '{key[:40]}': its configuration has {', '.join(_FIELDS)}")
    given = {_FIELDS[key]: value for key, value in configuration.items()}
    audit = given.get("audit", "")
    if audit and audit.lower() in _WORDS:
        given["audit"] = "true" if _WORDS[audit.lower()] else "false"
    return ApplyPolicies(**given)


def configuration(given: ApplyPolicies) -> dict[str, str]:
    """What of the configuration is set; the inverse of `step`."""
    return {key: value for key, field in _FIELDS.items() if (value := getattr(given, field))}


def problem(given: ApplyPolicies) -> str:
    """What is wrong with a step, as far as that does not depend on a run's values; "" for nothing."""
    known = {key: value for key, value in configuration(given).items() if "${" not in value}
    try:
        _read(known)
    except Invalid as error:
        return error.message
    return ""


def wanted(given: ApplyPolicies, values: Context) -> Wanted:
    """What a step asks for on the node of these values. Raises Invalid."""
    return _read({key: job_context.replaced(value, values).strip() for key, value in configuration(given).items()})


def _read(texts: Mapping[str, str]) -> Wanted:
    audit = texts.get("audit", "").lower()
    if audit not in _WORDS:
        raise Invalid(f"audit is true or false, not '{audit[:40]}'")
    minimum, seconds = texts.get("compliance", ""), texts.get("wait-seconds", "") or str(WAIT_SECONDS)
    if minimum and not (_PERCENT.fullmatch(minimum) and float(minimum) <= 100):
        raise Invalid(f"compliance is a percentage from 0 to 100, not '{minimum[:40]}'")
    if not (_SECONDS.fullmatch(seconds) and int(seconds) <= MOST_WAIT_SECONDS):
        raise Invalid(f"wait-seconds is a whole number from 0 to {MOST_WAIT_SECONDS}, not '{seconds[:40]}'")
    if minimum and _WORDS[audit]:
        raise Invalid("A run that only looks sends no report: audit and compliance do not go together")
    return Wanted(
        audit=_WORDS[audit],
        conditions=remote_runs.check_conditions(
            part.strip() for part in texts.get("conditions", "").split(",") if part.strip()
        ),
        compliance=float(minimum) if minimum else None,
        wait_seconds=int(seconds),
    )


def applies_policies(steps: Sequence[Step]) -> bool:
    """Whether one of the steps does."""
    return any(isinstance(one, ApplyPolicies) for one in steps)


def needs_no_shell(steps: Sequence[Step]) -> bool:
    """Whether all that the steps ask of a node is its agent, so that it need not be reached in any other way."""
    return bool(steps) and all(isinstance(one, ApplyPolicies) for one in steps)


def described(node: str, counts: Counts) -> str:
    """The compliance of a node in a line, what is worst first."""
    if not any(counts):
        return f"Compliance of {node}: nothing is expected of it"
    parts = [f"{name} {counts[status]}" for status, name in _NAMES.items() if counts[status]]
    return f"Compliance of {node}: {percentage(compliance.percent(counts))} ({', '.join(parts)})"


def percentage(value: float) -> str:
    """A percentage for people, without digits that say nothing."""
    return f"{value:g} %"


def shortfall(counts: Counts, least: float) -> str:
    """What keeps a node from being as compliant as it should be; "" for nothing."""
    if not any(counts):
        return f"Nothing is expected of the node, so that it is not {percentage(least)} compliant"
    found = compliance.percent(counts)
    return "" if found >= least else f"Compliance is {percentage(found)}, and should be at least {percentage(least)}"
