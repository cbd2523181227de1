# SPDX-License-Identifier: Apache-2.0
"""Activities: rows <-> core objects, and the queries of histories."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, Row

from quarterdeck.core.activities import Activity, ActivityQuery
from quarterdeck.storage.runbook_tables import activities

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class ActivityTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, one: Activity) -> int:
        """Keep a new activity; returns its id."""
        statement = sqlalchemy.insert(activities).values(
            project=one.project,
            title=one.title,
            status=one.status,
            summary=one.summary,
            script=one.script,
            tags=one.tags,
            nodes_succeeded=one.nodes_succeeded,
            nodes_failed=one.nodes_failed,
            nodes_total=one.nodes_total,
            node_names=list(one.node_names),
            account_name=one.user,
            aborted_by=one.aborted_by,
            started_at=one.started,
            ended_at=one.ended,
            job_id=one.job_id,
            execution_id=one.execution_id,
        )
        return int(self._store.run(statement.returning(activities.c.id)).scalar_one())

    def find(self, query: ActivityQuery) -> tuple[list[Activity], int]:
        """A page of the activities asked for, newest end first, and how many there are in all."""
        wanted = sqlalchemy.and_(*_conditions(query))
        total = self._store.run(sqlalchemy.select(sqlalchemy.func.count()).select_from(activities).where(wanted))
        page = (
            sqlalchemy.select(activities)
            .where(wanted)
            .order_by(activities.c.ended_at.desc(), activities.c.id.desc())
            .limit(query.most)
            .offset(query.offset)
        )
        return [_from_row(row) for row in self._store.rows(page)], int(total.scalar_one())

    def forget(self, before: datetime) -> int:
        """Remove those that ended before this time; returns how many went."""
        return self._store.run(sqlalchemy.delete(activities).where(activities.c.ended_at < before)).rowcount


def _conditions(query: ActivityQuery) -> list[ColumnElement[bool]]:
    table = activities.c
    found: list[ColumnElement[bool]] = [table.project == query.project]
    for column, value in ((table.job_id, query.job_id), (table.title, query.title)):
        if value:
            found.append(column == value)
    parts: tuple[tuple[ColumnElement[str], str], ...] = (
        (table.account_name, query.user),
        (table.title, query.job),
        (table.summary, query.message),
        (table.tags, query.tags),
        (table.aborted_by, query.aborted_by),
        (sqlalchemy.func.array_to_string(table.node_names, ","), query.node),
    )
    found += [column.icontains(value, autoescape=True) for column, value in parts if value]
    if query.statuses is not None:
        found.append(table.status.in_(sorted(query.statuses)))
    if query.begin is not None:
        found.append(table.ended_at >= query.begin)
    if query.end is not None:
        found.append(table.ended_at <= query.end)
    return found


def _from_row(row: Row[Any]) -> Activity:
    return Activity(
        id=row.id,
        project=row.project,
        title=row.title,
        status=row.status,
        summary=row.summary,
        user=row.account_name,
        started=row.started_at,
        ended=row.ended_at,
        nodes_succeeded=row.nodes_succeeded,
        nodes_failed=row.nodes_failed,
        nodes_total=row.nodes_total,
        node_names=tuple(row.node_names),
        script=row.script,
        tags=row.tags,
        aborted_by=row.aborted_by,
        job_id=row.job_id,
        execution_id=row.execution_id,
    )
