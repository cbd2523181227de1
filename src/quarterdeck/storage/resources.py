# SPDX-License-Identifier: Apache-2.0
"""Resources of projects' documents: rows <-> core objects. Nodes of the inventory come from `storage/nodes.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Row

from quarterdeck.core.resources import Resource
from quarterdeck.storage.tables import resources

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class ResourceTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, project: str) -> list[Resource]:
        """The resources of a project's document, sorted by name."""
        query = sqlalchemy.select(resources).where(resources.c.project == project).order_by(resources.c.name)
        return [_from_row(row) for row in self._store.rows(query)]

    def replace(self, project: str, some: Iterable[Resource]) -> None:
        """These and no others are the project's from now on."""
        self._store.run(sqlalchemy.delete(resources).where(resources.c.project == project))
        rows = [_to_row(project, one) for one in some]
        if rows:
            self._store.run(sqlalchemy.insert(resources), rows)


def _to_row(project: str, one: Resource) -> dict[str, Any]:
    return {
        "project": project,
        "name": one.name,
        "hostname": one.hostname,
        "username": one.username,
        "description": one.description,
        "tags": sorted(one.tags),
        "os_arch": one.os_arch,
        "os_family": one.os_family,
        "os_name": one.os_name,
        "os_version": one.os_version,
        "attributes": dict(one.attributes),
    }


def _from_row(row: Row[Any]) -> Resource:
    return Resource(
        row.name,
        hostname=row.hostname,
        username=row.username,
        description=row.description,
        tags=frozenset(row.tags),
        os_arch=row.os_arch,
        os_family=row.os_family,
        os_name=row.os_name,
        os_version=row.os_version,
        attributes=row.attributes,
    )
