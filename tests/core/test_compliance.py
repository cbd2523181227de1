# SPDX-License-Identifier: Apache-2.0
"""Percentages, their rounding, and what counts as compliant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quarterdeck.core import compliance
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.errors import Invalid

COUNTS = some.lists(some.integers(0, 3) | some.integers(0, 10**7), min_size=len(Status), max_size=len(Status)).map(
    tuple
)


def counts(**given: int) -> Counts:
    return compliance.total(compliance.units(Status[name.upper()], count) for name, count in given.items())


@given(COUNTS, some.integers(0, 5))
def test_percentages_sum_to_exactly_one_hundred(levels: Counts, precision: int) -> None:
    shown = compliance.details(levels, precision)

    whole = sum(round(share * 10**precision) for share in shown.values())
    assert whole == (100 * 10**precision if any(levels) else 0)


@given(COUNTS, some.integers(0, 5))
def test_every_status_that_occurs_is_visible_and_no_other(levels: Counts, precision: int) -> None:
    shown = compliance.details(levels, precision)

    assert shown.keys() == {compliance.NAMES[status] for status in Status if levels[status]}
    assert all(share >= 10**-precision for share in shown.values())


@given(COUNTS, some.integers(0, 5))
def test_a_rarer_status_never_shows_a_larger_share(levels: Counts, precision: int) -> None:
    shown = compliance.details(levels, precision)

    ordered = sorted((levels[status], shown[name]) for status, name in compliance.NAMES.items() if levels[status])
    assert [share for _, share in ordered] == sorted(share for _, share in ordered)


@given(COUNTS, some.integers(0, 5))
def test_compliance_stays_between_zero_and_one_hundred(levels: Counts, precision: int) -> None:
    assert 0 <= compliance.percent(levels, precision) <= 100


@given(COUNTS)
def test_pending_values_change_the_details_only(levels: Counts) -> None:
    pending = compliance.total([levels, compliance.units(Status.APPLYING, 7)])

    assert compliance.percent(pending) == compliance.percent(levels)
    assert "applying" in compliance.details(pending)


@pytest.mark.parametrize(
    ("levels", "precision", "shown"),
    [
        (
            {"success_already_ok": 1, "error": 1, "missing": 1},
            2,
            {"successAlreadyOK": 33.33, "error": 33.34, "unexpectedMissingComponent": 33.33},
        ),
        ({"success_already_ok": 2, "error": 1}, 2, {"successAlreadyOK": 66.67, "error": 33.33}),
        ({"success_already_ok": 2, "error": 1}, 0, {"successAlreadyOK": 67.0, "error": 33.0}),
        ({"success_already_ok": 9_999_999, "error": 1}, 2, {"successAlreadyOK": 99.99, "error": 0.01}),
        ({"success_already_ok": 9_999_999, "error": 1}, 0, {"successAlreadyOK": 99.0, "error": 1.0}),
        ({"audit_compliant": 5}, 2, {"auditCompliant": 100.0}),
        # One rare status makes all later ones a hundredth smaller: 49.5 / 1.01 = 49.0099
        (
            {"unexpected": 1, "audit_error": 5000, "error": 5000},
            0,
            {"unexpectedUnknownComponent": 1.0, "auditError": 49.0, "error": 50.0},
        ),
        ({}, 2, {}),
    ],
)
def test_details_of_known_counts(levels: dict[str, int], precision: int, shown: dict[str, float]) -> None:
    assert compliance.details(counts(**levels), precision) == shown


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ({}, 0.0),
        ({"success_already_ok": 1, "success_repaired": 1, "success_not_applicable": 1}, 100.0),
        ({"audit_compliant": 1, "audit_not_applicable": 1}, 100.0),
        ({"success_already_ok": 1, "no_report": 1}, 50.0),
        ({"success_already_ok": 1, "reports_disabled": 1}, 50.0),
        ({"success_already_ok": 1, "missing": 1, "unexpected": 1, "bad_policy_mode": 1}, 25.0),
        ({"success_already_ok": 1, "audit_non_compliant": 1, "audit_error": 1, "error": 1}, 25.0),
        ({"applying": 10}, 0.0),
        ({"applying": 10, "audit_compliant": 1}, 100.0),
        ({"success_already_ok": 1, "success_repaired": 1, "error": 1}, 66.66),
    ],
)
def test_what_counts_as_compliant(levels: dict[str, int], shown: float) -> None:
    assert compliance.percent(counts(**levels)) == pytest.approx(shown)


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ({}, -1),
        ({"success_already_ok": 57, "error": 43}, 57),
        ({"success_already_ok": 565, "error": 435}, 57),
        ({"success_already_ok": 564, "error": 436}, 56),
        ({"success_already_ok": 1, "reports_disabled": 9, "applying": 9}, 100),
        ({"no_report": 9}, 0),
        ({"applying": 9}, 0),
    ],
)
def test_the_global_figure_is_a_whole_number(levels: dict[str, int], shown: int) -> None:
    assert compliance.global_percent(counts(**levels)) == shown


def test_details_are_listed_in_the_order_clients_know() -> None:
    assert list(compliance.details((1,) * len(Status))) == [
        "applying",
        "successNotApplicable",
        "successAlreadyOK",
        "successRepaired",
        "error",
        "auditCompliant",
        "auditNotApplicable",
        "auditNonCompliant",
        "auditError",
        "unexpectedUnknownComponent",
        "unexpectedMissingComponent",
        "noReport",
        "reportsDisabled",
        "badPolicyMode",
    ]


def test_counting_and_adding() -> None:
    tallied = compliance.tally([Status.ERROR, Status.MISSING, Status.ERROR])

    assert tallied == counts(error=2, missing=1)
    assert compliance.total([tallied, tallied]) == counts(error=4, missing=2)
    assert compliance.total([]) == compliance.EMPTY


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("x", "percent precison must be an integer, was: 'x'"),
        ("6", "Invalid level for compliance precision 6, valid values are 0 to 5"),
        ("-1", "Invalid level for compliance precision -1, valid values are 0 to 5"),
    ],
)
def test_a_bad_precision_is_refused(text: str, refusal: str) -> None:
    with pytest.raises(Invalid) as caught:
        compliance.parse_precision(text)

    assert caught.value.message == refusal


def test_a_bad_level_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        compliance.parse_level("deep")

    assert caught.value.message == "level (displayed level of compliance details) must be an integer, was: 'deep'"
    assert compliance.parse_level("3") == 3


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("worst-case-weighted-one", "worst-case-weighted-sum", "worst-case-weighted-one"),
        ("weighted", "worst-case-weighted-sum", "worst-case-weighted-sum"),
        ("focus:x", "weighted", "weighted"),
        ("focus:x", "focus:x", "focus:x"),
    ],
)
def test_the_stricter_logic_is_kept(first: str, second: str, kept: str) -> None:
    assert compliance.stricter(first, second) == kept
    assert compliance.stricter(second, first) == kept
