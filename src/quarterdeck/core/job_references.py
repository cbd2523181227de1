# SPDX-License-Identifier: Apache-2.0
"""Steps that run another job: which job is meant, with which options, and that references come to an end.

A referenced job runs once per node of the calling step, inside the caller's execution.
"""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.core import job_context, options
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_context import Context
from quarterdeck.core.jobs import Job, JobRef

MOST_NESTED = 16


def find(reference: JobRef, project: str, jobs: Iterable[Job]) -> Job:
    """The one job of the project with the name and group. Raises Invalid when there is none, or several."""
    found = [job for job in jobs if (job.project, job.group, job.name) == (project, reference.group, reference.name)]
    if len(found) != 1:
        raise Invalid(
            f"Job ref [{reference.full_name}] invalid: No Unique Job found for name: {reference.name}, "
            f"group: {reference.group}, project: {project}",
        )
    return found[0]


def arguments(reference: JobRef, job: Job, values: Context) -> dict[str, str]:
    """The options of the referenced job: the reference's in the caller's context, and defaults. Raises Invalid."""
    given = options.parse(reference.args, lambda word: job_context.replaced(word, values))
    found = options.with_defaults(job.options, given)
    options.check(job.options, found)
    return found


def entered(chain: tuple[int, ...], job: Job) -> tuple[int, ...]:
    """The ids of the jobs that are being run, the inmost last, with this one. Raises Invalid for a loop."""
    assert job.id is not None
    if job.id in chain:
        raise Invalid(f"Job ref [{job.full_name}] invalid: The job refers to itself")
    if len(chain) >= MOST_NESTED:
        raise Invalid(f"Job ref [{job.full_name}] invalid: Jobs refer to jobs more than {MOST_NESTED} deep")
    return (*chain, job.id)
