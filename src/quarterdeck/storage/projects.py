# SPDX-License-Identifier: Apache-2.0
"""Projects: rows <-> core objects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from quarterdeck.core.projects import Project
from quarterdeck.storage import runbook_tables as tables
from quarterdeck.storage.versioned import VersionedTable


class ProjectTable(VersionedTable[Project]):
    table = tables.projects
    kind = "project"
    key = "name"
    not_found = "project does not exist: {id}"

    def to_row(self, thing: Project) -> dict[str, Any]:
        return {"name": thing.name, "description": thing.description, "properties": dict(thing.properties)}

    def from_row(self, row: Row[Any]) -> Project:
        return Project(row.name, description=row.description, properties=row.properties)
