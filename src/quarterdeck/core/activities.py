# SPDX-License-Identifier: Apache-2.0
"""Activities: what a project's history lists, the end of every execution and what external programs report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

#: `missed`: a scheduled run that was due while nobody could begin it.
ActivityStatus = Literal["succeeded", "failed", "aborted", "missed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One entry. Times are aware; `id` is 0 until it is kept. "" where something is not known."""

    id: int = 0
    project: str
    title: str  #: GROUP/NAME of a job, `adhoc`, or what a report calls itself
    status: ActivityStatus
    summary: str
    user: str
    started: datetime
    ended: datetime
    nodes_succeeded: int = 0
    nodes_failed: int = 0
    nodes_total: int = 0
    node_names: tuple[str, ...] = ()
    script: str = ""
    tags: str = ""
    aborted_by: str = ""
    job_id: str = ""
    execution_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityQuery:
    """What to list; "" and None ask for nothing. Filters by text find a part of it, whatever its case."""

    project: str
    job_id: str = ""
    title: str = ""  #: the whole title
    user: str = ""
    statuses: frozenset[str] | None = None
    begin: datetime | None = None  #: ended at this time or later
    end: datetime | None = None  #: ended at this time or earlier
    job: str = ""
    node: str = ""
    message: str = ""
    tags: str = ""
    aborted_by: str = ""
    most: int = 20
    offset: int = 0
