# SPDX-License-Identifier: Apache-2.0
"""Runbook automation: sessions, secrets, projects, jobs, executions and what they leave.

Written out, so that later changes of `storage/tables.py` cannot change what this revision did.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_STATEMENTS = (
    """
    CREATE SEQUENCE job_ids
    """,
    """
    CREATE TABLE sessions (
        digest BYTEA NOT NULL,
        account_id TEXT COLLATE "C" NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT sessions_pkey PRIMARY KEY (digest),
        CONSTRAINT sessions_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX sessions_account_id_idx ON sessions (account_id)
    """,
    """
    CREATE INDEX sessions_expires_at_idx ON sessions (expires_at)
    """,
    """
    CREATE TABLE secrets (
        name TEXT COLLATE "C" NOT NULL,
        description TEXT NOT NULL,
        value BYTEA NOT NULL,
        CONSTRAINT secrets_pkey PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE projects (
        name TEXT COLLATE "C" NOT NULL,
        description TEXT NOT NULL,
        properties JSONB NOT NULL,
        CONSTRAINT projects_pkey PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE resources (
        project TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        hostname TEXT NOT NULL,
        username TEXT NOT NULL,
        description TEXT NOT NULL,
        tags TEXT[] NOT NULL,
        os_arch TEXT NOT NULL,
        os_family TEXT NOT NULL,
        os_name TEXT NOT NULL,
        os_version TEXT NOT NULL,
        attributes JSONB NOT NULL,
        CONSTRAINT resources_pkey PRIMARY KEY (project, name),
        CONSTRAINT resources_project_fkey FOREIGN KEY(project) REFERENCES projects (name) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE host_keys (
        host TEXT COLLATE "C" NOT NULL,
        port INTEGER NOT NULL,
        key TEXT COLLATE "C" NOT NULL,
        trusted BOOLEAN NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
        approved_by TEXT NOT NULL,
        CONSTRAINT host_keys_pkey PRIMARY KEY (host, port, key)
    )
    """,
    """
    CREATE TABLE jobs (
        id BIGINT NOT NULL,
        uuid TEXT COLLATE "C" NOT NULL,
        project TEXT COLLATE "C" NOT NULL,
        folder TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        description TEXT NOT NULL,
        definition JSONB NOT NULL,
        secrets BYTEA,
        account_id TEXT COLLATE "C" NOT NULL,
        account_name TEXT NOT NULL,
        next_run TIMESTAMP WITH TIME ZONE,
        average_ms BIGINT,
        CONSTRAINT jobs_pkey PRIMARY KEY (id),
        CONSTRAINT jobs_uuid_key UNIQUE (uuid),
        CONSTRAINT jobs_project_fkey FOREIGN KEY(project) REFERENCES projects (name) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX jobs_next_run_idx ON jobs (next_run) WHERE next_run IS NOT NULL
    """,
    """
    CREATE INDEX jobs_place_idx ON jobs (project, folder, name)
    """,
    """
    CREATE TABLE workers (
        id INTEGER GENERATED ALWAYS AS IDENTITY,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        draining BOOLEAN NOT NULL,
        CONSTRAINT workers_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE executions (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        project TEXT COLLATE "C" NOT NULL,
        kind TEXT COLLATE "C" NOT NULL,
        job_id BIGINT,
        account_id TEXT COLLATE "C" NOT NULL,
        account_name TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        succeeded BOOLEAN NOT NULL,
        cancelled BOOLEAN NOT NULL,
        aborted_by TEXT NOT NULL,
        abort_at TIMESTAMP WITH TIME ZONE,
        description TEXT NOT NULL,
        argstring TEXT NOT NULL,
        loglevel TEXT NOT NULL,
        definition JSONB NOT NULL,
        options BYTEA NOT NULL,
        nodes JSONB,
        nodes_succeeded INTEGER NOT NULL,
        nodes_failed INTEGER NOT NULL,
        owner INTEGER,
        epoch INTEGER NOT NULL,
        CONSTRAINT executions_pkey PRIMARY KEY (id),
        CONSTRAINT executions_job_id_fkey FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE SET NULL
    )
    """,
    """
    CREATE INDEX executions_job_id_idx ON executions (job_id)
    """,
    """
    CREATE INDEX executions_project_idx ON executions (project, id)
    """,
    """
    CREATE INDEX executions_running_idx ON executions (id) WHERE ended_at IS NULL
    """,
    """
    CREATE TABLE execution_steps (
        execution_id BIGINT NOT NULL,
        step TEXT COLLATE "C" NOT NULL,
        node TEXT COLLATE "C" NOT NULL,
        state TEXT COLLATE "C" NOT NULL,
        begun_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        exit_status INTEGER,
        reason TEXT NOT NULL,
        CONSTRAINT execution_steps_pkey PRIMARY KEY (execution_id, step, node),
        CONSTRAINT execution_steps_execution_id_fkey FOREIGN KEY(execution_id)
            REFERENCES executions (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE execution_logs (
        execution_id BIGINT NOT NULL,
        number INTEGER NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        "offset" BIGINT NOT NULL,
        size INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        data BYTEA NOT NULL,
        CONSTRAINT execution_logs_pkey PRIMARY KEY (execution_id, number, at)
    )
     PARTITION BY RANGE (at)
    """,
    """
    CREATE TABLE activities (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        project TEXT COLLATE "C" NOT NULL,
        title TEXT NOT NULL,
        status TEXT COLLATE "C" NOT NULL,
        summary TEXT NOT NULL,
        script TEXT NOT NULL,
        tags TEXT NOT NULL,
        nodes_succeeded INTEGER NOT NULL,
        nodes_failed INTEGER NOT NULL,
        nodes_total INTEGER NOT NULL,
        node_names TEXT[] NOT NULL,
        account_name TEXT NOT NULL,
        aborted_by TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
        job_id TEXT NOT NULL,
        execution_id BIGINT,
        CONSTRAINT activities_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE INDEX activities_ended_at_idx ON activities (ended_at)
    """,
    """
    CREATE INDEX activities_project_idx ON activities (project, ended_at, id)
    """,
    """
    CREATE TABLE notifications (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        execution_id BIGINT NOT NULL,
        trigger TEXT COLLATE "C" NOT NULL,
        kind TEXT COLLATE "C" NOT NULL,
        target TEXT NOT NULL,
        state TEXT COLLATE "C" NOT NULL,
        attempts INTEGER NOT NULL,
        message TEXT NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT notifications_pkey PRIMARY KEY (id),
        CONSTRAINT notifications_execution_id_fkey FOREIGN KEY(execution_id)
            REFERENCES executions (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX notifications_execution_id_idx ON notifications (execution_id)
    """,
    """
    CREATE TABLE execution_logs_default PARTITION OF execution_logs DEFAULT
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
