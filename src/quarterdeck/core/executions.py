# SPDX-License-Identifier: Apache-2.0
"""Executions: one run of a job or of an ad-hoc command, its states, and which step begins where and when.

The plan is pure: it is told what came of the steps that it handed out, and says what to begin next. Who owns an
execution and how steps really run is the engine's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["job", "adhoc"]


class State(enum.StrEnum):
    """What clients see of an execution."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


class StepState(enum.StrEnum):
    """What became of one step on one node."""

    WAITING = "waiting"
    BEGUN = "begun"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"  #: begun by a worker that is gone, or left behind by an abort; never run again
    SKIPPED = "skipped"  #: never begun: an earlier step or node failed, or the run was aborted

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the step."""
        return self not in (StepState.WAITING, StepState.BEGUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A run. Times are aware; `ended` is None while it runs. `description` is the summary of its steps."""

    id: int
    project: str
    user: str
    started: datetime
    kind: Kind = "job"
    job_id: int | None = None  #: None for ad-hoc runs and when the job was deleted
    ended: datetime | None = None
    succeeded: bool = False
    cancelled: bool = False
    aborted_by: str = ""
    description: str = ""
    argstring: str = ""
    loglevel: str = "INFO"
    owner: str = ""  #: the worker that runs it; "" while it waits for one
    epoch: int = 0  #: raised by every takeover

    @property
    def state(self) -> State:
        """A cancelled run that nevertheless succeeded reads succeeded."""
        if self.ended is None:
            return State.RUNNING
        if self.succeeded:
            return State.SUCCEEDED
        return State.ABORTED if self.cancelled else State.FAILED
