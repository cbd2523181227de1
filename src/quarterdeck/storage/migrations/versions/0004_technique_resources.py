# SPDX-License-Identifier: Apache-2.0
"""Files that come with techniques, their contents once each, and which of them a policy's fragments name.

Written out, so that later changes of `storage/tables.py` cannot change what this revision did.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_STATEMENTS = (
    """
    CREATE TABLE resource_contents (
        digest TEXT COLLATE "C" NOT NULL,
        body BYTEA NOT NULL,
        CONSTRAINT resource_contents_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE technique_resources (
        technique TEXT COLLATE "C" NOT NULL,
        version TEXT COLLATE "C" NOT NULL,
        path TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        size BIGINT NOT NULL,
        CONSTRAINT technique_resources_pkey PRIMARY KEY (technique, version, path),
        CONSTRAINT technique_resources_technique_fkey FOREIGN KEY(technique, version)
            REFERENCES techniques (id, version) ON DELETE CASCADE,
        CONSTRAINT technique_resources_digest_fkey FOREIGN KEY(digest) REFERENCES resource_contents (digest)
    )
    """,
    """
    CREATE INDEX technique_resources_digest_idx ON technique_resources (digest)
    """,
    """
    ALTER TABLE policy_fragments ADD COLUMN resources TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
