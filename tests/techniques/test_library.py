# SPDX-License-Identifier: Apache-2.0
"""The shipped techniques, from a directive's values through generation and the agent's engine to real files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agent.methods.casebook import Scratch
from tests.techniques.tours import TOURS, Tour

from quarterdeck.core import policies, technique_parameters
from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode
from quarterdeck.core.rules import Rule
from quarterdeck.core.techniques import Technique
from quarterdeck.formats import agent, method_catalogue, technique_library, technique_yaml
from quarterdeck_agent.engine import Engine
from quarterdeck_agent.methods import system
from quarterdeck_agent.outcome import METHODS, Facts

LIBRARY: dict[str, Technique] = {technique.id: technique for technique in technique_library.load()}
NODE = FleetNode(id=NodeId("node-1"), hostname="scratch.example.com")
ids = [f"{tour.technique}-{number}" for number, tour in enumerate(TOURS)]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scratch]:
    machine = Scratch(tmp_path / "machine")
    machine.real_tool("/bin/sh", "/usr/bin/grep", "/usr/bin/test")
    monkeypatch.setenv(system.SYSROOT, str(machine.root))
    monkeypatch.setenv("PATH", str(machine.home / "bin"))
    with machine.closing:
        yield machine


def policy_of(tour: Tour, scratch: Scratch, mode: PolicyMode) -> Any:
    """The document that a node gets for one directive of the tour's technique."""
    technique = LIBRARY[tour.technique]
    given = {name: tuple(scratch.filled(value) for value in values) for name, values in tour.values.items()}
    directive = Directive(
        id=DirectiveId("d"),
        name="Directive",
        technique=technique.id,
        version=technique.version,
        parameters=technique_parameters.check(technique, given),
        mode=mode,
    )
    rule = Rule(id=RuleId("r"), name="Rule", directives=frozenset({directive.id}))
    fleet = Fleet(
        nodes=[NODE],
        rules=[AppliedRule(rule, frozenset({NODE.id}))],
        directives={directive.id: directive},
        techniques={technique.key: technique},
        methods=method_catalogue.load(),
    )
    generated = policies.generate(fleet)
    assert not generated.errors
    return json.loads(policies.assemble(generated.policies[0], "id", generated.fragments))


def run(tour: Tour, scratch: Scratch, mode: PolicyMode) -> list[Any]:
    """The reports of one run."""
    agent.methods()
    engine = Engine(METHODS, Facts(), backups=str(scratch.state / "backups"), persistent=str(scratch.state))
    reports = list(engine.apply(policy_of(tour, scratch, mode)))
    assert not engine.problems
    return reports


def statuses(reports: list[Any]) -> set[str]:
    return {report["status"] for report in reports}


def told(reports: list[Any], status: str) -> list[tuple[str, str]]:
    return [(report["component"], report["message"]) for report in reports if report["status"] == status]


@pytest.mark.parametrize("tour", TOURS, ids=ids)
def test_an_audit_finds_the_difference_and_changes_nothing(tour: Tour, scratch: Scratch) -> None:
    tour.prepare(scratch)
    before = scratch.snapshot()

    reports = run(tour, scratch, PolicyMode.AUDIT)

    assert "audit_noncompliant" in statuses(reports)
    assert told(reports, "audit_error") == []
    assert scratch.snapshot() == before


@pytest.mark.parametrize("tour", [tour for tour in TOURS if not tour.only_looks], ids=lambda tour: tour.technique)
def test_enforcement_repairs_once_and_then_keeps(tour: Tour, scratch: Scratch) -> None:
    tour.prepare(scratch)

    first = run(tour, scratch, PolicyMode.ENFORCE)
    second = run(tour, scratch, PolicyMode.ENFORCE)
    audit = run(tour, scratch, PolicyMode.AUDIT)

    assert told(first, "result_error") == []
    assert Counter(component for component, _ in told(first, "result_repaired")) == Counter(tour.repaired)
    assert statuses(second) <= {"result_success", "result_na"}
    assert statuses(audit) <= {"audit_compliant", "audit_na"}
    for name, content in tour.files.items():
        if content is None:
            assert not (scratch.work / name).exists()
        else:
            assert scratch.read(name) == content
    for name, mode in tour.modes.items():
        assert (scratch.work / name).stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize("tour", [tour for tour in TOURS if tour.only_looks], ids=lambda tour: tour.technique)
def test_what_only_looks_finds_the_same_when_enforced(tour: Tour, scratch: Scratch) -> None:
    tour.prepare(scratch)
    before = scratch.snapshot()

    reports = run(tour, scratch, PolicyMode.ENFORCE)

    assert [report["status"] for report in reports] == ["result_success", "result_success", "result_error"]
    assert scratch.snapshot() == before


def test_an_unacceptable_ssh_configuration_is_not_loaded(scratch: Scratch) -> None:
    tour = next(tour for tour in TOURS if tour.technique == "sshConfiguration")
    tour.prepare(scratch)
    refusing = Tour(tour.technique, {**tour.values, "SSH_CHECK_COMMAND": ("false",)}, tour.prepare)

    reports = run(refusing, scratch, PolicyMode.ENFORCE)

    assert [component for component, _ in told(reports, "result_error")] == ["Valid configuration"]
    assert not (scratch.root / "systemctl.log").exists()


def test_a_password_hash_stands_in_no_report(scratch: Scratch) -> None:
    tour = next(tour for tour in TOURS if tour.technique == "userManagement")
    tour.prepare(scratch)

    reports = run(tour, scratch, PolicyMode.ENFORCE)

    assert "$6$salt$hash" not in json.dumps(reports)
    assert "bob:$6$salt$hash:" in scratch.read("/etc/shadow")


@pytest.mark.parametrize(
    ("commands", "fine"),
    [
        ("ALL", True),
        ("/usr/bin/id", True),
        ("/usr/bin/systemctl restart x, !/bin/su, sudoedit /etc/hosts, WEB_TOOLS", True),
        ("id", False),
        ("/usr/bin/id\nbob ALL=(ALL) ALL", False),
        ("/usr/bin/id,", False),
    ],
)
def test_sudo_rights_name_whole_paths_on_one_line(commands: str, *, fine: bool) -> None:
    (parameter,) = (one for one in LIBRARY["sudoParameters"].parameters if one.name == "commands")

    assert (technique_parameters.problem(parameter, commands) == "") is fine


def test_every_technique_has_a_tour() -> None:
    assert {tour.technique for tour in TOURS} == set(LIBRARY)
    assert len(LIBRARY) >= 12


@pytest.mark.parametrize("technique", LIBRARY.values(), ids=lambda technique: technique.id)
def test_a_technique_is_documented_and_written_without_loss(technique: Technique) -> None:
    assert technique.description
    assert technique.documentation
    assert all(parameter.description for parameter in technique.parameters)
    assert technique.category in technique_library.CATEGORIES
    assert technique.source == "built-in"
    again = technique_yaml.read(technique_yaml.write(technique))
    assert (again.items, again.parameters) == (technique.items, technique.parameters)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("packageManagement", "1.3"),
        ("checkGenericFileContent", "8.0"),
        ("userManagement", "9.0"),
        ("sudoParameters", "3.2"),
    ],
)
def test_techniques_have_the_versions_that_directives_elsewhere_name(name: str, version: str) -> None:
    assert LIBRARY[name].version == version
