# SPDX-License-Identifier: Apache-2.0
"""The first schema."""

from __future__ import annotations

from alembic import op

from quarterdeck.storage.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    op.execute("CREATE TABLE runs_default PARTITION OF runs DEFAULT")
