# SPDX-License-Identifier: Apache-2.0
"""What Alembic runs: the revisions on the connection that `storage/migrate.py` hands over."""

from __future__ import annotations

from alembic import context

from quarterdeck.storage import runbook_tables, tables

# All tables have one metadata; those of the second module are in it once that was imported.
assert runbook_tables.executions.metadata is tables.metadata
connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=tables.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
