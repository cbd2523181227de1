# SPDX-License-Identifier: Apache-2.0
"""The first schema.

Written out, so that later changes of `storage/tables.py` cannot change what this revision did.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = (
    """
    CREATE SEQUENCE node_versions
    """,
    """
    CREATE TABLE accounts (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        kind TEXT NOT NULL,
        access TEXT,
        roles TEXT[] NOT NULL,
        enabled BOOLEAN NOT NULL,
        token_digest BYTEA,
        password_hash TEXT,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT accounts_pkey PRIMARY KEY (id),
        CONSTRAINT accounts_name_key UNIQUE (name),
        CONSTRAINT accounts_token_digest_key UNIQUE (token_digest)
    )
    """,
    """
    CREATE TABLE enrolment_tokens (
        id TEXT COLLATE "C" NOT NULL,
        digest BYTEA NOT NULL,
        name TEXT NOT NULL,
        accept BOOLEAN NOT NULL,
        uses_left INTEGER,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT enrolment_tokens_pkey PRIMARY KEY (id),
        CONSTRAINT enrolment_tokens_digest_key UNIQUE (digest)
    )
    """,
    """
    CREATE UNLOGGED TABLE agent_nonces (
        node_id TEXT COLLATE "C" NOT NULL,
        nonce TEXT COLLATE "C" NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT agent_nonces_pkey PRIMARY KEY (node_id, nonce)
    )
    """,
    """
    CREATE INDEX agent_nonces_seen_at_idx ON agent_nonces (seen_at)
    """,
    """
    CREATE TABLE history (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        actor TEXT NOT NULL,
        reason TEXT NOT NULL,
        request_id TEXT NOT NULL,
        kind TEXT COLLATE "C" NOT NULL,
        object_id TEXT COLLATE "C" NOT NULL,
        change TEXT NOT NULL,
        after JSONB,
        CONSTRAINT history_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE INDEX history_at_idx ON history (at)
    """,
    """
    CREATE INDEX history_object_idx ON history (kind, object_id, id)
    """,
    """
    CREATE TABLE settings (
        key TEXT COLLATE "C" NOT NULL,
        value JSONB NOT NULL,
        CONSTRAINT settings_pkey PRIMARY KEY (key)
    )
    """,
    """
    CREATE TABLE parameters (
        name TEXT COLLATE "C" NOT NULL,
        value JSONB NOT NULL,
        description TEXT NOT NULL,
        inherit_mode TEXT,
        provider TEXT,
        CONSTRAINT parameters_pkey PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE techniques (
        id TEXT COLLATE "C" NOT NULL,
        version TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        source TEXT NOT NULL,
        enabled BOOLEAN NOT NULL,
        system BOOLEAN NOT NULL,
        document TEXT NOT NULL,
        CONSTRAINT techniques_pkey PRIMARY KEY (id, version)
    )
    """,
    """
    CREATE TABLE directives (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        technique TEXT COLLATE "C" NOT NULL,
        version TEXT COLLATE "C" NOT NULL,
        short_description TEXT NOT NULL,
        long_description TEXT NOT NULL,
        parameters JSONB NOT NULL,
        priority INTEGER NOT NULL,
        enabled BOOLEAN NOT NULL,
        system BOOLEAN NOT NULL,
        mode TEXT,
        tags JSONB NOT NULL,
        CONSTRAINT directives_pkey PRIMARY KEY (id),
        CONSTRAINT directives_name_key UNIQUE (name)
    )
    """,
    """
    CREATE INDEX directives_technique_idx ON directives (technique, version)
    """,
    """
    CREATE TABLE rule_categories (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        parent TEXT COLLATE "C" NOT NULL,
        system BOOLEAN NOT NULL,
        CONSTRAINT rule_categories_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE rules (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        category TEXT COLLATE "C" NOT NULL,
        short_description TEXT NOT NULL,
        long_description TEXT NOT NULL,
        directives TEXT[] NOT NULL,
        targets JSONB NOT NULL,
        enabled BOOLEAN NOT NULL,
        system BOOLEAN NOT NULL,
        tags JSONB NOT NULL,
        CONSTRAINT rules_pkey PRIMARY KEY (id),
        CONSTRAINT rules_name_key UNIQUE (name)
    )
    """,
    """
    CREATE TABLE group_categories (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        parent TEXT COLLATE "C" NOT NULL,
        system BOOLEAN NOT NULL,
        CONSTRAINT group_categories_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE groups (
        id TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        description TEXT NOT NULL,
        category TEXT COLLATE "C" NOT NULL,
        query JSONB,
        dynamic BOOLEAN NOT NULL,
        enabled BOOLEAN NOT NULL,
        system BOOLEAN NOT NULL,
        properties JSONB NOT NULL,
        CONSTRAINT groups_pkey PRIMARY KEY (id),
        CONSTRAINT groups_name_key UNIQUE (name)
    )
    """,
    """
    CREATE TABLE nodes (
        id TEXT COLLATE "C" NOT NULL,
        hostname TEXT COLLATE "C" NOT NULL,
        status TEXT COLLATE "C" NOT NULL,
        state TEXT COLLATE "C" NOT NULL,
        kind TEXT COLLATE "C" NOT NULL,
        mode TEXT,
        description TEXT NOT NULL,
        documentation TEXT NOT NULL,
        policy_server TEXT COLLATE "C" NOT NULL,
        properties JSONB NOT NULL,
        key_pem TEXT NOT NULL,
        key_status TEXT NOT NULL,
        schedule JSONB,
        agent TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        agent_capabilities TEXT[] NOT NULL,
        os_type TEXT NOT NULL,
        os_name TEXT NOT NULL,
        os_version TEXT NOT NULL,
        os_full_name TEXT NOT NULL,
        os_kernel_version TEXT NOT NULL,
        os_service_pack TEXT NOT NULL,
        architecture TEXT NOT NULL,
        ram BIGINT,
        swap BIGINT,
        machine_id TEXT NOT NULL,
        machine_type TEXT NOT NULL,
        machine_provider TEXT NOT NULL,
        machine_manufacturer TEXT NOT NULL,
        machine_serial_number TEXT NOT NULL,
        timezone_name TEXT NOT NULL,
        timezone_offset TEXT NOT NULL,
        ip_addresses TEXT[] NOT NULL,
        accounts TEXT[] NOT NULL,
        environment JSONB NOT NULL,
        lists JSONB NOT NULL,
        inventory_date TIMESTAMP WITH TIME ZONE,
        accepted_at TIMESTAMP WITH TIME ZONE,
        inventory_digest TEXT DEFAULT '' NOT NULL,
        version BIGINT DEFAULT nextval('node_versions') NOT NULL,
        CONSTRAINT nodes_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE INDEX nodes_properties_idx ON nodes USING gin (properties jsonb_path_ops)
    """,
    """
    CREATE INDEX nodes_hostname_idx ON nodes (hostname)
    """,
    """
    CREATE INDEX nodes_status_idx ON nodes (status)
    """,
    """
    CREATE TABLE software (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        name TEXT COLLATE "C" NOT NULL,
        version TEXT COLLATE "C" NOT NULL,
        details JSONB NOT NULL,
        CONSTRAINT software_pkey PRIMARY KEY (id),
        CONSTRAINT software_name_key UNIQUE (name, version)
    )
    """,
    """
    CREATE TABLE inventories (
        node_id TEXT COLLATE "C" NOT NULL,
        day TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        received_at TIMESTAMP WITH TIME ZONE NOT NULL,
        document BYTEA NOT NULL,
        CONSTRAINT inventories_pkey PRIMARY KEY (node_id, day)
    )
    """,
    """
    CREATE TABLE policy_fragments (
        digest TEXT COLLATE "C" NOT NULL,
        body BYTEA NOT NULL,
        CONSTRAINT policy_fragments_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE policy_outlines (
        digest TEXT COLLATE "C" NOT NULL,
        fragments TEXT[] COLLATE "C" NOT NULL,
        rules TEXT[] COLLATE "C" NOT NULL,
        groups TEXT[] COLLATE "C" NOT NULL,
        overridden JSONB NOT NULL,
        CONSTRAINT policy_outlines_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE generations (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        ended_at TIMESTAMP WITH TIME ZONE,
        state TEXT NOT NULL,
        manual BOOLEAN NOT NULL,
        concerns JSONB,
        afresh BOOLEAN DEFAULT false NOT NULL,
        nodes_total INTEGER,
        nodes_changed INTEGER,
        message TEXT DEFAULT '' NOT NULL,
        CONSTRAINT generations_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE run_bodies (
        digest BYTEA NOT NULL,
        body BYTEA NOT NULL,
        CONSTRAINT run_bodies_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE runs (
        start TIMESTAMP WITH TIME ZONE NOT NULL,
        node INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        config_id TEXT COLLATE "C" NOT NULL,
        digest BYTEA NOT NULL,
        CONSTRAINT runs_pkey PRIMARY KEY (node, start)
    )
     PARTITION BY RANGE (start)
    """,
    """
    CREATE TABLE raw_runs (
        node_id TEXT COLLATE "C" NOT NULL,
        start TIMESTAMP WITH TIME ZONE NOT NULL,
        changed BOOLEAN NOT NULL,
        parcel BYTEA NOT NULL,
        CONSTRAINT raw_runs_pkey PRIMARY KEY (node_id, start)
    )
    """,
    """
    CREATE TABLE compliance_counters (
        digest BYTEA NOT NULL,
        counters JSONB NOT NULL,
        totals INTEGER[] NOT NULL,
        silent INTEGER NOT NULL,
        CONSTRAINT compliance_counters_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE group_members (
        group_id TEXT COLLATE "C" NOT NULL,
        node_id TEXT COLLATE "C" NOT NULL,
        CONSTRAINT group_members_pkey PRIMARY KEY (group_id, node_id),
        CONSTRAINT group_members_group_id_fkey FOREIGN KEY(group_id) REFERENCES groups (id) ON DELETE CASCADE,
        CONSTRAINT group_members_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX group_members_node_id_idx ON group_members (node_id)
    """,
    """
    CREATE TABLE node_software (
        node_id TEXT COLLATE "C" NOT NULL,
        software_id BIGINT NOT NULL,
        CONSTRAINT node_software_pkey PRIMARY KEY (node_id, software_id),
        CONSTRAINT node_software_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE,
        CONSTRAINT node_software_software_id_fkey FOREIGN KEY(software_id) REFERENCES software (id)
    )
    """,
    """
    CREATE INDEX node_software_software_id_idx ON node_software (software_id, node_id)
    """,
    """
    CREATE TABLE node_status (
        node_id TEXT COLLATE "C" NOT NULL,
        last_run TIMESTAMP WITH TIME ZONE,
        last_run_config_id TEXT DEFAULT '' NOT NULL,
        number INTEGER GENERATED ALWAYS AS IDENTITY,
        last_run_digest BYTEA,
        valid_until TIMESTAMP WITH TIME ZONE,
        last_contact TIMESTAMP WITH TIME ZONE,
        CONSTRAINT node_status_pkey PRIMARY KEY (node_id),
        CONSTRAINT node_status_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE,
        CONSTRAINT node_status_number_key UNIQUE (number)
    )
     WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE node_policies (
        node_id TEXT COLLATE "C" NOT NULL,
        config_id TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        outline TEXT COLLATE "C" NOT NULL,
        head BYTEA NOT NULL,
        hole_values BYTEA NOT NULL,
        begin_at TIMESTAMP WITH TIME ZONE NOT NULL,
        signature BYTEA,
        CONSTRAINT node_policies_pkey PRIMARY KEY (node_id),
        CONSTRAINT node_policies_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE generation_errors (
        node_id TEXT COLLATE "C" NOT NULL,
        message TEXT NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT generation_errors_pkey PRIMARY KEY (node_id),
        CONSTRAINT generation_errors_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE report_states (
        node_id TEXT COLLATE "C" NOT NULL,
        key BYTEA NOT NULL,
        rule_id TEXT COLLATE "C" NOT NULL,
        directive_id TEXT COLLATE "C" NOT NULL,
        component TEXT NOT NULL,
        value TEXT NOT NULL,
        report_id TEXT NOT NULL,
        ordinal INTEGER NOT NULL,
        status SMALLINT NOT NULL,
        message TEXT NOT NULL,
        since TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT report_states_pkey PRIMARY KEY (node_id, key),
        CONSTRAINT report_states_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE node_compliance (
        node_id TEXT COLLATE "C" NOT NULL,
        config_id TEXT COLLATE "C" NOT NULL,
        state TEXT NOT NULL,
        status_since TIMESTAMP WITH TIME ZONE NOT NULL,
        counters BYTEA NOT NULL,
        computed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT node_compliance_pkey PRIMARY KEY (node_id),
        CONSTRAINT node_compliance_node_id_fkey FOREIGN KEY(node_id) REFERENCES nodes (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE runs_default PARTITION OF runs DEFAULT
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
