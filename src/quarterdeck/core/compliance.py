# SPDX-License-Identifier: Apache-2.0
"""Compliance arithmetic: statuses and their order, counters, block logic, percentages.

A counter is a tuple of one number per status, in the order of `Status`; levels of rules, nodes and directives
are sums of counters, never means of percentages. How reports become statuses: `expected_reports.py`;
whether a node's last run still counts: `run_states.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from quarterdeck.core.errors import Invalid


class Status(enum.IntEnum):
    """Best first; the number is stored and decides which of several is worst."""

    SUCCESS_NOT_APPLICABLE = 0
    AUDIT_NOT_APPLICABLE = 1
    AUDIT_COMPLIANT = 2
    SUCCESS_ALREADY_OK = 3
    #: The node has a new policy and has not had the time to report on it.
    APPLYING = 4
    REPORTS_DISABLED = 5
    NO_REPORT = 6
    #: An expected report did not come with an otherwise complete run.
    MISSING = 7
    SUCCESS_REPAIRED = 8
    AUDIT_NON_COMPLIANT = 9
    AUDIT_ERROR = 10
    ERROR = 11
    UNEXPECTED = 12
    #: Enforced where an audit was asked for, or the reverse.
    BAD_POLICY_MODE = 13


#: What clients read, in the order in which `complianceDetails` lists them.
NAMES = {
    Status.APPLYING: "applying",
    Status.SUCCESS_NOT_APPLICABLE: "successNotApplicable",
    Status.SUCCESS_ALREADY_OK: "successAlreadyOK",
    Status.SUCCESS_REPAIRED: "successRepaired",
    Status.ERROR: "error",
    Status.AUDIT_COMPLIANT: "auditCompliant",
    Status.AUDIT_NOT_APPLICABLE: "auditNotApplicable",
    Status.AUDIT_NON_COMPLIANT: "auditNonCompliant",
    Status.AUDIT_ERROR: "auditError",
    Status.UNEXPECTED: "unexpectedUnknownComponent",
    Status.MISSING: "unexpectedMissingComponent",
    Status.NO_REPORT: "noReport",
    Status.REPORTS_DISABLED: "reportsDisabled",
    Status.BAD_POLICY_MODE: "badPolicyMode",
}

COMPLIANT = (
    Status.SUCCESS_ALREADY_OK,
    Status.SUCCESS_REPAIRED,
    Status.SUCCESS_NOT_APPLICABLE,
    Status.AUDIT_COMPLIANT,
    Status.AUDIT_NOT_APPLICABLE,
)

#: One number per status.
Counts = tuple[int, ...]

EMPTY: Counts = (0,) * len(Status)

DEFAULT_PRECISION = 2
MAX_PRECISION = 5

WEIGHTED = "weighted"
WORST_ONE = "worst-case-weighted-one"
WORST_SUM = "worst-case-weighted-sum"
FOCUS = "focus"
_STRICTNESS = (FOCUS, WEIGHTED, WORST_SUM, WORST_ONE)


def units(status: Status, count: int = 1) -> Counts:
    """So many of one status and none of the others."""
    return (*EMPTY[:status], count, *EMPTY[status + 1 :])


def tally(statuses: Iterable[Status]) -> Counts:
    """How often each status occurs."""
    counts = [0] * len(EMPTY)
    for status in statuses:
        counts[status] += 1
    return tuple(counts)


def total(levels: Iterable[Sequence[int]]) -> Counts:
    """The sum of counters."""
    return tuple(map(sum, zip(EMPTY, *levels, strict=True)))


def without(counts: Sequence[int], *statuses: Status) -> Counts:
    """The counters with some statuses left out."""
    return tuple(0 if status in statuses else count for status, count in enumerate(counts))


def details(counts: Sequence[int], precision: int = DEFAULT_PRECISION) -> dict[str, float]:
    """Percentages of the statuses that occur, pending ones included, by the names clients read. They sum to 100."""
    shares = _shares(counts, precision)
    return {name: shares[status] / 10**precision for status, name in NAMES.items() if counts[status]}


def percent(counts: Sequence[int], precision: int = DEFAULT_PRECISION) -> float:
    """How compliant: pending ones do not count at all, everything else not compliant counts against. 0 when empty."""
    scale: int = 10**precision
    return _compliant_share(without(counts, Status.APPLYING), precision) / scale


def global_percent(counts: Sequence[int]) -> int:
    """The whole number for the fleet: pending and disabled reports do not count. -1 when there is no data."""
    if not any(counts):
        return -1
    counted = without(counts, Status.APPLYING, Status.REPORTS_DISABLED)
    share = _compliant_share(counted, DEFAULT_PRECISION)
    return int((share + 50) // 100)


def parse_precision(text: str) -> int:
    """Decimal places of percentages, 0 to 5. Raises Invalid."""
    try:
        precision = int(text)
    except ValueError:
        raise Invalid(f"percent precison must be an integer, was: '{text}'") from None
    if not 0 <= precision <= MAX_PRECISION:
        raise Invalid(f"Invalid level for compliance precision {precision}, valid values are 0 to {MAX_PRECISION}")
    return precision


def parse_level(text: str) -> int:
    """How deep an answer goes. Raises Invalid."""
    try:
        return int(text)
    except ValueError:
        message = f"level (displayed level of compliance details) must be an integer, was: '{text}'"
        raise Invalid(message) from None


def stricter(first: str, second: str) -> str:
    """The logic kept when directives report one block with two: one, then sum, then weighted, then focus."""
    return max(first, second, key=lambda logic: _STRICTNESS.index(logic.partition(":")[0]))


def _compliant_share(counts: Sequence[int], precision: int) -> int:
    shares = _shares(counts, precision)
    return sum(shares[status] for status in COMPLIANT)


def _shares(counts: Sequence[int], precision: int) -> Counts:
    """Percentages in units of 10^-precision percent, whole numbers that sum to 100 %; all zero when empty.

    Every status that occurs gets at least one unit, however rare it is. What these units take is taken from the
    others little by little (`enlarged` hundredths), the largest takes what rounding leaves.
    """
    whole = sum(counts)
    shares = [0] * len(counts)
    if not whole:
        return tuple(shares)
    hundred = 100 * 10**precision
    *smaller, largest = sorted((count, status) for status, count in enumerate(counts) if count)
    enlarged = 100
    for count, status in smaller:
        shares[status] = count * hundred * 100 // (whole * enlarged)
        if not shares[status]:
            shares[status] = 1
            enlarged += 1
    shares[largest[1]] = hundred - sum(shares)
    return tuple(shares)
