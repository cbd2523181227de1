# SPDX-License-Identifier: Apache-2.0
"""The step that applies policies in job documents: a node step plugin of RunDeck's grammar, in XML and YAML."""

from __future__ import annotations

from types import ModuleType

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import ApplyPolicies, Exec, Job, Sequence
from quarterdeck.formats import job_xml, job_yaml

FULL = ApplyPolicies(audit="${option.look}", conditions="a,b", compliance="97.5", wait_seconds="30")
BOTH = pytest.mark.parametrize("document", [job_xml, job_yaml], ids=["xml", "yaml"])


def job(*steps: Exec | ApplyPolicies) -> Job:
    return Job("rollout", "ops", sequence=Sequence(steps=steps))


def in_xml(command: str) -> bytes:
    return (
        "<joblist><job><name>j</name><description/><context><project>p</project></context>"
        f"<sequence><command>{command}</command></sequence></job></joblist>"
    ).encode()


def in_yaml(command: str) -> bytes:
    return f"- {{name: j, project: p, sequence: {{commands: [{command}]}}}}".encode()


def problems(data: bytes) -> list[str]:
    [draft] = (job_xml if data.startswith(b"<") else job_yaml).read(data)
    return list(draft.problems)


def test_in_xml_it_is_a_node_step_plugin() -> None:
    root = etree.fromstring(job_xml.write([job(FULL)]))

    (plugin,) = root.findall("job/sequence/command/node-step-plugin")
    assert plugin.items() == [("type", "quarterdeck-apply-policies")]
    assert [entry.items() for entry in plugin.findall("configuration/entry")] == [
        [("key", "audit"), ("value", "${option.look}")],
        [("key", "compliance"), ("value", "97.5")],
        [("key", "conditions"), ("value", "a,b")],
        [("key", "wait-seconds"), ("value", "30")],
    ]


def test_in_yaml_it_is_a_node_step_of_a_type() -> None:
    (document,) = yaml.safe_load(job_yaml.write([job(FULL)]))

    assert document["sequence"]["commands"] == [
        {
            "nodeStep": True,
            "type": "quarterdeck-apply-policies",
            "configuration": {
                "audit": "${option.look}",
                "compliance": "97.5",
                "conditions": "a,b",
                "wait-seconds": "30",
            },
        }
    ]


@BOTH
@given(
    st.builds(
        ApplyPolicies,
        audit=st.sampled_from(["", "true", "false", "${option.a}"]),
        conditions=st.sampled_from(["", "a", "a,b", "${option.c},x"]),
        compliance=st.sampled_from(["", "100", "97.50", "007", "${option.c}"]),
        wait_seconds=st.sampled_from(["", "0", "30"]),
    )
)
def test_it_comes_back_as_it_was(document: ModuleType, step: ApplyPolicies) -> None:
    [draft] = document.read(document.write([job(Exec("before"), step)]))

    assert (draft.problems, draft.job.sequence.steps) == ((), (Exec("before"), step))


def test_flags_and_numbers_of_yaml_are_taken_too() -> None:
    configuration = "configuration: {audit: no, compliance: 99.5, wait-seconds: 10}"
    [draft] = job_yaml.read(in_yaml(f"{{nodeStep: true, type: quarterdeck-apply-policies, {configuration}}}"))

    assert draft.job.sequence.steps == (ApplyPolicies(audit="false", compliance="99.5", wait_seconds="10"),)


@pytest.mark.parametrize("configuration", ["", "<configuration/>"])
def test_in_xml_an_empty_configuration_may_be_there_or_not(configuration: str) -> None:
    plugin = f"<node-step-plugin type='quarterdeck-apply-policies'>{configuration}</node-step-plugin>"
    [draft] = job_xml.read(in_xml(plugin))

    assert (draft.problems, draft.job.sequence.steps) == ((), (ApplyPolicies(),))


KEYS = "its configuration has audit, compliance, conditions, wait-seconds"
OURS = "nodeStep: true, type: quarterdeck-apply-policies"
OURS_XML = "<node-step-plugin type='quarterdeck-apply-policies'>{}</node-step-plugin>"
ENTRY = "<configuration><entry key='audit' value='true'/><entry key='{}' value='false'/></configuration>"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (in_xml("<node-step-plugin type='localexec'/>"), "node-step-plugin is not supported"),
        (in_xml("<step-plugin type='quarterdeck-apply-policies'/>"), "step-plugin is not supported"),
        (in_yaml("{nodeStep: true, type: localexec}"), "nodeStep is not supported"),
        (in_yaml("{type: localexec}"), "type is not supported"),
        (
            in_yaml("{nodeStep: false, type: quarterdeck-apply-policies}"),
            "quarterdeck-apply-policies is a step on nodes (nodeStep: true)",
        ),
        (
            in_yaml(f"{{{OURS}, configuration: {{auditt: true}}}}"),
            f"quarterdeck-apply-policies knows no 'auditt': {KEYS}",
        ),
        (
            in_xml(OURS_XML.format(ENTRY.format("force"))),
            f"quarterdeck-apply-policies knows no 'force': {KEYS}",
        ),
        (in_yaml(f"{{{OURS}, configuration: {{conditions: [a, b]}}}}"), "A single value was expected"),
        (in_yaml(f"{{{OURS}, configuration: [a]}}"), "A map was expected"),
        (in_yaml(f"{{{OURS}, errorhandler: {{exec: a}}}}"), "errorhandler is not supported"),
        (
            in_yaml(f"{{{OURS}, exec: a}}"),
            "Please specify only one of Local script or Remote command or Script file",
        ),
        (
            in_xml("<exec>a</exec>" + OURS_XML.format("")),
            "Please specify only one of Local script or Remote command or Script file",
        ),
    ],
)
def test_other_plugins_and_what_it_does_not_know_are_refused(data: bytes, problem: str) -> None:
    assert problems(data) == ["Workflow has one or more invalid steps: [1]", f"1: {problem}"]


def test_an_entry_comes_once() -> None:
    with pytest.raises(Invalid, match="configuration entry 'audit' comes more than once"):
        job_xml.read(in_xml(OURS_XML.format(ENTRY.format("audit"))))
