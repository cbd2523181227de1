# SPDX-License-Identifier: Apache-2.0
"""The tables of projects, jobs and executions, with the same rules as those of `tables.py`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from quarterdeck.storage.tables import Id, Time, metadata

# -- projects and jobs --------------------------------------------------------------------

projects = Table(
    "projects",
    metadata,
    Column("name", Id, primary_key=True),
    Column("description", Text, nullable=False),
    Column("properties", JSONB, nullable=False),
)

#: The nodes of a project's resource document. Those of the inventory are not copied here.
resources = Table(
    "resources",
    metadata,
    Column("project", Id, ForeignKey("projects.name", ondelete="CASCADE"), primary_key=True),
    Column("name", Id, primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("os_arch", Text, nullable=False),
    Column("os_family", Text, nullable=False),
    Column("os_name", Text, nullable=False),
    Column("os_version", Text, nullable=False),
    Column("attributes", JSONB, nullable=False),
)

#: Keys that hosts showed, as texts of OpenSSH public keys.
host_keys = Table(
    "host_keys",
    metadata,
    Column("host", Id, primary_key=True),
    Column("port", Integer, primary_key=True),
    Column("key", Id, primary_key=True),
    #: False: seen, and refused until somebody approves it
    Column("trusted", Boolean, nullable=False),
    Column("seen_at", Time, nullable=False),
    #: who approved it; "" when it was trusted because it was the first
    Column("approved_by", Text, nullable=False),
)

job_ids = Sequence("job_ids", metadata=metadata)

jobs = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("uuid", Id, nullable=False, unique=True),
    Column("project", Id, ForeignKey("projects.name", ondelete="CASCADE"), nullable=False),
    Column("folder", Id, nullable=False),
    Column("name", Id, nullable=False),
    Column("description", Text, nullable=False),
    #: the whole job as a tree with the keys of the YAML format (formats/job_yaml.py)
    Column("definition", JSONB, nullable=False),
    #: values that the tree may not show, by option: encrypted JSON; null for none
    Column("secrets", LargeBinary),
    #: who saved it last: a scheduled run is theirs
    Column("account_id", Id, nullable=False),
    Column("account_name", Text, nullable=False),
    #: when its schedule is due next; null: never
    Column("next_run", Time),
    #: over the last successful runs; null before the first
    Column("average_ms", BigInteger),
    Index("jobs_place_idx", "project", "folder", "name"),
    Index("jobs_next_run_idx", "next_run", postgresql_where=text("next_run IS NOT NULL")),
)

# -- executions ---------------------------------------------------------------------------

#: Every worker that ever ran executions. It lives as long as it holds the advisory lock of its id.
workers = Table(
    "workers",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Time, nullable=False),
    #: it begins no further executions
    Column("draining", Boolean, nullable=False),
)

executions = Table(
    "executions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("project", Id, nullable=False),
    #: job | adhoc
    Column("kind", Id, nullable=False),
    Column("job_id", BigInteger, ForeignKey("jobs.id", ondelete="SET NULL"), index=True),
    Column("account_id", Id, nullable=False),
    Column("account_name", Text, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("ended_at", Time),
    Column("succeeded", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("aborted_by", Text, nullable=False),
    #: when it was asked to end
    Column("abort_at", Time),
    Column("description", Text, nullable=False),
    #: as it may be shown: secret values hidden
    Column("argstring", Text, nullable=False),
    Column("loglevel", Text, nullable=False),
    #: the job as it was when the execution began, a tree as in `jobs`
    Column("definition", JSONB, nullable=False),
    #: {option: value} of this run, encrypted JSON: secret values are among them
    Column("options", LargeBinary, nullable=False),
    #: names of the nodes in order of dispatch; null until they are known
    Column("nodes", JSONB),
    Column("nodes_succeeded", Integer, nullable=False),
    Column("nodes_failed", Integer, nullable=False),
    #: the worker that runs it; null while it waits for one
    Column("owner", Integer),
    #: raised at every change of owner: what an earlier owner still wants to write is refused
    Column("epoch", Integer, nullable=False),
    Index("executions_project_idx", "project", "id"),
    Index("executions_running_idx", "id", postgresql_where=text("ended_at IS NULL")),
)

#: One step on one node. Steps of referenced jobs are called by their way, as in `2[web1]/1`.
execution_steps = Table(
    "execution_steps",
    metadata,
    Column("execution_id", BigInteger, ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Id, primary_key=True),
    Column("node", Id, primary_key=True),
    #: as in core/executions.py: StepState
    Column("state", Id, nullable=False),
    Column("begun_at", Time, nullable=False),
    Column("ended_at", Time),
    Column("exit_status", Integer),
    #: a sentence where the exit status does not say it all
    Column("reason", Text, nullable=False),
)

#: Output in blocks (formats/log_blocks.py), partitioned by day.
execution_logs = Table(
    "execution_logs",
    metadata,
    Column("execution_id", BigInteger, nullable=False),
    #: from 0
    Column("number", Integer, nullable=False),
    Column("at", Time, nullable=False),
    #: of the text before this block, and of its own, in bytes
    Column("offset", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("execution_id", "number", "at"),
    postgresql_partition_by="RANGE (at)",
)

#: What a project's history lists: every execution that ended, and what external programs reported.
activities = Table(
    "activities",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("project", Id, nullable=False),
    Column("title", Text, nullable=False),
    #: succeeded | failed | aborted | missed
    Column("status", Id, nullable=False),
    Column("summary", Text, nullable=False),
    Column("script", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("nodes_succeeded", Integer, nullable=False),
    Column("nodes_failed", Integer, nullable=False),
    Column("nodes_total", Integer, nullable=False),
    Column("node_names", ARRAY(Text), nullable=False),
    Column("account_name", Text, nullable=False),
    Column("aborted_by", Text, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("ended_at", Time, nullable=False),
    #: as reported; the job may be gone
    Column("job_id", Text, nullable=False),
    Column("execution_id", BigInteger),
    Index("activities_project_idx", "project", "ended_at", "id"),
    Index("activities_ended_at_idx", "ended_at"),
)

#: Who was to hear of an execution's end, and how that went.
notifications = Table(
    "notifications",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("execution_id", BigInteger, ForeignKey("executions.id", ondelete="CASCADE"), nullable=False, index=True),
    #: success | failure
    Column("trigger", Id, nullable=False),
    #: email | webhook
    Column("kind", Id, nullable=False),
    Column("target", Text, nullable=False),
    #: waiting | delivered | failed
    Column("state", Id, nullable=False),
    Column("attempts", Integer, nullable=False),
    #: what the last attempt met
    Column("message", Text, nullable=False),
    Column("updated_at", Time, nullable=False),
)
