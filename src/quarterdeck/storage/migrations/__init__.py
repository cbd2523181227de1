# SPDX-License-Identifier: Apache-2.0
"""Alembic's revisions, oldest first. How to add one: docs/how-to/add-a-migration.md."""
