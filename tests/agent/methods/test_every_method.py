# SPDX-License-Identifier: Apache-2.0
"""Every registered method has cases; no audit leaves a trace; enforcement reaches what the audit asks for."""

from __future__ import annotations

import os

import pytest
from tests.agent.methods import content_cases, file_cases, permission_cases, run_cases, server_cases, system_cases
from tests.agent.methods.casebook import COMPLIANT, DRIFT, NOT_APPLICABLE, REPAIRED, Case, Scratch

from quarterdeck_agent import methods
from quarterdeck_agent.methods.aliases import ALIASES
from quarterdeck_agent.outcome import METHODS

CASES: list[Case] = [
    *file_cases.CASES,
    *run_cases.CASES,
    *permission_cases.CASES,
    *content_cases.CASES,
    *system_cases.CASES,
    *server_cases.CASES,
]

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def test_each_method_has_a_case() -> None:
    assert methods.__all__
    current = set(METHODS) - set(ALIASES)
    assert sorted(current - {case.method for case in CASES}) == []


@pytest.mark.parametrize(("alias", "name", "prefix"), [(alias, *rest) for alias, rest in ALIASES.items()])
def test_an_older_name_is_the_same_method_with_its_own_result_conditions(alias: str, name: str, prefix: str) -> None:
    older, current = METHODS[alias], METHODS[name]

    assert (older.name, older.prefix) == (alias, prefix or alias)
    assert (older.audit, older.enforce, older.parameters) == (current.audit, current.enforce, current.parameters)


@by_case
def test_audit_finds_what_is_there_and_leaves_no_trace(case: Case, scratch: Scratch) -> None:
    case.prepare(scratch)
    before = scratch.snapshot()

    found = case.known.audit(scratch.call(**case.params))

    assert scratch.snapshot() == before
    assert found.state is (NOT_APPLICABLE if case.known.blind else case.found), found.message
    assert scratch.filled(case.says) in found.message


@by_case
def test_after_enforcement_the_audit_is_compliant(case: Case, scratch: Scratch) -> None:
    if case.root and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    case.prepare(scratch)
    call = scratch.call(**case.params)

    found = case.known.audit(call)
    if case.known.enforce and (case.known.blind or found.state is DRIFT):
        found = case.known.enforce(call)
        assert found.state is case.then, found.message
        if found.state is COMPLIANT and not case.known.blind:
            again = case.known.audit(call)
            assert again.state is COMPLIANT, again.message

    for name, content in case.files.items():
        path = scratch.root / name[1:] if name.startswith("/") else scratch.work / name
        assert (scratch.read(name) if path.exists() else None) == content
    assert case.conditions <= scratch.facts.conditions
    assert {name: scratch.facts.variables.get(name) for name in case.variables} == case.variables
    assert found.state is not REPAIRED or case.known.blind
