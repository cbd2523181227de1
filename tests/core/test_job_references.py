# SPDX-License-Identifier: Apache-2.0
"""Steps that run another job."""

from __future__ import annotations

import re

import pytest

from quarterdeck.core import job_references
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import Job, JobRef, Option

JOBS = [
    Job("a", "p", id=1, group="g"),
    Job("a", "p", id=2),
    Job("b", "p", id=3),
    Job("b", "p", id=4),
    Job("a", "q", id=5),
]


def test_a_reference_means_the_one_job_of_its_project_name_and_group() -> None:
    assert job_references.find(JobRef("a", "g"), "p", JOBS).id == 1
    assert job_references.find(JobRef("a"), "p", JOBS).id == 2
    assert job_references.find(JobRef("a"), "q", JOBS).id == 5


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (JobRef("b"), "Job ref [b] invalid: No Unique Job found for name: b, group: , project: p"),
        (JobRef("c", "g/h"), "Job ref [g/h/c] invalid: No Unique Job found for name: c, group: g/h, project: p"),
    ],
)
def test_a_reference_to_none_or_several_is_told(reference: JobRef, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        job_references.find(reference, "p", JOBS)


def test_options_come_from_the_callers_context_with_defaults() -> None:
    job = Job("a", "p", options=(Option(name="d", value="1", required=True), Option(name="x")))
    values = {"option": {"y": "two -words"}, "node": {"name": "n1"}}

    found = job_references.arguments(JobRef("a", args="-x ${option.y} -n '${node.name} !' -u ${option.u}"), job, values)

    assert found == {"d": "1", "x": "two -words", "n": "n1 !", "u": "${option.u}"}


def test_options_of_a_referenced_job_are_checked() -> None:
    job = Job("a", "p", options=(Option(name="x", required=True),))

    with pytest.raises(Invalid, match="Option 'x' is required"):
        job_references.arguments(JobRef("a", args="-y 1"), job, {})


def test_references_come_to_an_end() -> None:
    chain = job_references.entered((), JOBS[0])
    chain = job_references.entered(chain, JOBS[1])

    assert chain == (1, 2)
    with pytest.raises(Invalid, match=re.escape("Job ref [g/a] invalid: The job refers to itself")):
        job_references.entered(chain, JOBS[0])
    with pytest.raises(Invalid, match="more than 16 deep"):
        job_references.entered(tuple(range(10, 26)), JOBS[0])
