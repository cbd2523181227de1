# SPDX-License-Identifier: Apache-2.0
"""Jobs: what a definition holds, and the short text that stands for its steps.

What makes a definition wrong is in `core/job_checks.py`; how documents spell it is in `formats/job_xml.py` and
`formats/job_yaml.py`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Literal

from quarterdeck.core.ids import AccountId
from quarterdeck.core.node_filters import NodeFilter

Strategy = Literal["node-first", "step-first"]

LOG_LEVELS = ("DEBUG", "VERBOSE", "INFO", "WARN", "ERR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A named value that a run takes; "" for a text means that the document does not set it."""

    name: str
    value: str = ""  #: the default
    description: str = ""
    values: tuple[str, ...] = ()  #: allowed values, sorted, each once
    values_url: str = ""
    enforced: bool = False
    regex: str = ""
    required: bool = False
    multivalued: bool = False
    delimiter: str = ""
    secure: bool = False
    value_exposed: bool = False


@dataclass(frozen=True, slots=True)
class Exec:
    """A command line for the node's shell."""

    command: str


@dataclass(frozen=True, slots=True)
class Script:
    """Script text that is brought to the node and run there."""

    script: str
    args: str = ""


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A script file on the server that is brought to the node and run there."""

    path: str
    args: str = ""


@dataclass(frozen=True, slots=True)
class ScriptUrl:
    """A script that the server fetches, brings to the node and runs there."""

    url: str
    args: str = ""


@dataclass(frozen=True, slots=True)
class JobRef:
    """Another job of the same project, found by name and group when the step runs."""

    name: str
    group: str = ""
    args: str = ""

    @property
    def full_name(self) -> str:
        """GROUP/NAME, or NAME without a group."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPolicies:
    """The node's agent fetches its policies and applies them, or only looks.

    The texts are as documents have them, with `${option.x}`, "" for what is not set; `core/policy_steps.py` reads them.
    """

    audit: str = ""
    conditions: str = ""
    compliance: str = ""
    wait_seconds: str = ""


Step = Exec | Script | ScriptFile | ScriptUrl | JobRef | ApplyPolicies


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """The steps of a run. `keepgoing`: a failing step does not end the sequence."""

    keepgoing: bool = False
    strategy: Strategy = "node-first"
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """How a run goes over its nodes. `keepgoing`: a failing node does not keep further nodes from starting."""

    threadcount: int = 1
    keepgoing: bool = False
    rank_attribute: str = ""
    rank_order: Literal["ascending", "descending"] = "ascending"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job runs by itself: a Quartz expression of seven fields, and a time zone if the document names one."""

    crontab: str
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Who hears of an end; failure covers aborted."""

    on_success_emails: tuple[str, ...] = ()
    on_success_urls: tuple[str, ...] = ()
    on_failure_emails: tuple[str, ...] = ()
    on_failure_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A definition. `id` is None until it is stored; `node_filter` None means: on the server's node only."""

    name: str
    project: str
    _: KW_ONLY
    id: int | None = None
    uuid: str = ""
    group: str = ""
    description: str = ""
    loglevel: str = "INFO"
    options: tuple[Option, ...] = ()  #: sorted by name
    node_filter: NodeFilter | None = None
    dispatch: Dispatch = field(default_factory=Dispatch)
    sequence: Sequence = field(default_factory=Sequence)
    schedule: Schedule | None = None
    notification: Notification = field(default_factory=Notification)
    multiple_executions: bool = False
    timeout: str = ""  #: seconds, or like "1h 30m"; may hold ${option.x}

    @property
    def full_name(self) -> str:
        """GROUP/NAME, or NAME without a group."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedJob:
    """A job as it is kept; it has an id and a uuid. Times are aware; `next_run` is None without a schedule."""

    job: Job
    account_id: AccountId  #: who saved it last: a scheduled run is theirs
    account_name: str
    next_run: datetime | None = None
    average_ms: int | None = None  #: over the last successful runs

    @property
    def id(self) -> int:
        """The number by which clients know the job."""
        assert self.job.id is not None
        return self.job.id


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHead:
    """What lists of jobs show."""

    id: int
    uuid: str
    name: str
    group: str
    project: str
    description: str

    @property
    def full_name(self) -> str:
        """GROUP/NAME, or NAME without a group."""
        return f"{self.group}/{self.name}" if self.group else self.name


def head(job: Job) -> JobHead:
    """The head of a job that is kept."""
    assert job.id is not None
    return JobHead(
        id=job.id, uuid=job.uuid, name=job.name, group=job.group, project=job.project, description=job.description
    )


def summary(step: Step) -> str:
    """One step in words: its command, script or path with its arguments, the job it refers to, or what it does."""
    match step:
        case ApplyPolicies(audit=audit):
            return "apply policies (audit only)" if audit == "true" else "apply policies"
        case Exec(command):
            return command
        case Script(what, args) | ScriptFile(what, args) | ScriptUrl(what, args):
            pass
        case JobRef(args=args):
            what = f"job: {step.full_name}"
    return f"{what} -- {args}" if args else what


def summary_of(sequence: Sequence) -> str:
    """The description of a run: its first step, and how many steps there are if there are more."""
    if not sequence.steps:
        return "[Empty workflow]"
    count = len(sequence.steps)
    return summary(sequence.steps[0]) + (f" [... {count} steps]" if count > 1 else "")
