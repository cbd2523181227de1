# SPDX-License-Identifier: Apache-2.0
"""What a step that applies policies may say, and how compliance is told and judged."""

from __future__ import annotations

import pytest

from quarterdeck.core import compliance, job_checks, jobs, policy_steps
from quarterdeck.core.compliance import Status
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import ApplyPolicies, Exec, Sequence
from quarterdeck.core.policy_steps import Wanted

VALUES = {"option": {"look": "true", "least": "97.5", "several": "a, b", "none": ""}}


def counts(**statuses: int) -> compliance.Counts:
    return compliance.total(compliance.units(Status[name], count) for name, count in statuses.items())


def test_nothing_need_be_said() -> None:
    assert policy_steps.wanted(policy_steps.step({}), VALUES) == Wanted(wait_seconds=60)


def test_values_may_come_from_options() -> None:
    step = policy_steps.step({"audit": "${option.look}", "conditions": "x,${option.several},${option.none}"})
    other = policy_steps.step({"compliance": "${option.least}", "wait-seconds": "5"})

    assert (policy_steps.problem(step), policy_steps.problem(other)) == ("", "")
    assert policy_steps.wanted(step, VALUES) == Wanted(audit=True, conditions=("x", "a", "b"))
    assert policy_steps.wanted(other, VALUES) == Wanted(compliance=97.5, wait_seconds=5)


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({"audit": "perhaps"}, "audit is true or false, not 'perhaps'"),
        ({"compliance": "101"}, "compliance is a percentage from 0 to 100, not '101'"),
        ({"compliance": "-1"}, "compliance is a percentage from 0 to 100, not '-1'"),
        ({"compliance": "nan"}, "compliance is a percentage from 0 to 100, not 'nan'"),
        ({"wait-seconds": "3601"}, "wait-seconds is a whole number from 0 to 3600, not '3601'"),
        ({"wait-seconds": "1.5"}, "wait-seconds is a whole number from 0 to 3600, not '1.5'"),
        ({"conditions": "a;reboot"}, "invalid condition: a;reboot, should match ^[a-zA-Z0-9][a-zA-Z0-9_]*$"),
        (
            {"audit": "true", "compliance": "50"},
            "A run that only looks sends no report: audit and compliance do not go together",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_when_a_job_is_kept_and_when_it_runs(
    configuration: dict[str, str], problem: str
) -> None:
    step = policy_steps.step(configuration)

    assert job_checks.of_step(step) == problem
    with pytest.raises(Invalid) as caught:
        policy_steps.wanted(step, {})
    assert caught.value.message == problem


def test_an_option_that_is_not_there_is_no_value() -> None:
    with pytest.raises(Invalid, match="compliance is a percentage"):
        policy_steps.wanted(policy_steps.step({"compliance": "${option.unknown}"}), VALUES)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(Invalid, match="knows no 'complience': its configuration has audit, compliance, conditions"):
        policy_steps.step({"complience": "100"})


def test_only_steps_on_agents_need_no_other_way_to_a_node() -> None:
    assert policy_steps.needs_no_shell((ApplyPolicies(), ApplyPolicies(audit="true")))
    assert not policy_steps.needs_no_shell((ApplyPolicies(), Exec("true")))
    assert not policy_steps.needs_no_shell(())
    assert policy_steps.applies_policies((Exec("true"), ApplyPolicies()))
    assert not policy_steps.applies_policies((Exec("true"),))


def test_compliance_is_told_with_what_is_worst_first() -> None:
    some = counts(ERROR=1, SUCCESS_REPAIRED=2, SUCCESS_ALREADY_OK=37)

    assert policy_steps.described("web1", some) == "Compliance of web1: 97.5 % (error 1, repaired 2, already ok 37)"
    assert policy_steps.described("web1", compliance.EMPTY) == "Compliance of web1: nothing is expected of it"


@pytest.mark.parametrize(
    ("some", "least", "expected"),
    [
        (counts(ERROR=1, SUCCESS_ALREADY_OK=39), 97.5, ""),
        (counts(ERROR=1, SUCCESS_ALREADY_OK=39), 97.51, "Compliance is 97.5 %, and should be at least 97.51 %"),
        (counts(ERROR=1, SUCCESS_ALREADY_OK=1_000_000), 100, "Compliance is 99.99 %, and should be at least 100 %"),
        (counts(ERROR=1), 0, ""),
        (compliance.EMPTY, 0, "Nothing is expected of the node, so that it is not 0 % compliant"),
    ],
)
def test_a_node_is_compliant_enough_or_is_told_not_to_be(some: compliance.Counts, least: float, expected: str) -> None:
    assert policy_steps.shortfall(some, least) == expected


def test_every_status_has_a_name() -> None:
    for status in Status:
        assert policy_steps.described("n", compliance.units(status)).count("(") == 1
        assert not policy_steps.described("n", compliance.units(status)).endswith("()")


def test_the_step_is_what_a_run_is_called_by() -> None:
    assert jobs.summary_of(Sequence(steps=(ApplyPolicies(audit="true"),))) == "apply policies (audit only)"
    assert jobs.summary_of(Sequence(steps=(ApplyPolicies(), Exec("a")))) == "apply policies [... 2 steps]"
