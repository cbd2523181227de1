# SPDX-License-Identifier: Apache-2.0
"""Jobs: rows <-> core objects, lists by filter, and whose schedule is due.

Default values of secure options are sealed, and stand as a keyed digest in the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Row, Select

from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Job, JobHead, SavedJob
from quarterdeck.core.options import HIDDEN
from quarterdeck.formats import job_documents, job_yaml
from quarterdeck.storage import runbook_tables as tables
from quarterdeck.storage.sealing import Sealer
from quarterdeck.storage.versioned import VersionedTable

#: Columns that change without anybody changing the job.
_UNVERSIONED = ("next_run", "average_ms")
_HEAD = (
    tables.jobs.c.id,
    tables.jobs.c.uuid,
    tables.jobs.c.name,
    tables.jobs.c.folder,
    tables.jobs.c.project,
    tables.jobs.c.description,
)
_SORTED_BY: dict[str, ColumnElement[Any]] = {
    "name": tables.jobs.c.name,
    "description": tables.jobs.c.description,
    "loglevel": tables.jobs.c.definition["loglevel"].astext,
    "project": tables.jobs.c.project,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs; None and "" ask for nothing. `group` "" means those without one, `within` a group and all below."""

    project: str
    ids: tuple[str, ...] | None = None  #: numbers or uuids
    group: str | None = None
    within: str = ""
    name_part: str = ""  #: SQL's wildcards work in it, whatever its case
    exact_name: str = ""
    description_part: str = ""
    loglevel: str = ""
    sort_by: str = "name"  #: name | description | loglevel | project
    descending: bool = False
    most: int | None = None
    offset: int = 0


class JobTable(VersionedTable[SavedJob]):
    table = tables.jobs
    kind = "job"
    not_found = "Job ID does not exist: {id}"

    def next_id(self) -> int:
        """A number for a new job."""
        return int(self._store.run(sqlalchemy.select(tables.job_ids.next_value())).scalar_one())

    def named(self, number_or_uuid: str, *, lock: bool = False) -> SavedJob | None:
        """The job that a client calls so, number first; None when there is none."""
        if number_or_uuid.isdecimal() and number_or_uuid.isascii() and len(number_or_uuid) < 19:
            found = self.find(int(number_or_uuid), lock=lock)
            if found is not None:
                return found
        query = sqlalchemy.select(self.table).where(self.table.c.uuid == number_or_uuid)
        row = self._store.run(query.with_for_update() if lock else query).first()
        return self.from_row(row) if row is not None else None

    def at(self, project: str, group: str, name: str) -> list[SavedJob]:
        """The jobs of this place and name; names are not unique."""
        return self.having(project=project, folder=group, name=name)

    def heads(self, query: JobQuery) -> list[JobHead]:
        """What a list shows of the jobs asked for."""
        return [_head(row) for row in self._store.rows(_selected(sqlalchemy.select(*_HEAD), query))]

    def matching(self, query: JobQuery) -> list[SavedJob]:
        """The jobs asked for, whole."""
        return [self.from_row(row) for row in self._store.rows(_selected(sqlalchemy.select(self.table), query))]

    def heads_of(self, ids: Iterable[int]) -> dict[int, JobHead]:
        """The heads of these jobs, as far as they exist."""
        query = sqlalchemy.select(*_HEAD).where(self.table.c.id.in_(list(ids)))
        return {row.id: _head(row) for row in self._store.rows(query)}

    def plans_of(self, ids: Iterable[int]) -> dict[int, tuple[datetime | None, int | None]]:
        """When each of these jobs runs next, and how many milliseconds it takes on the average."""
        query = sqlalchemy.select(self.table.c.id, self.table.c.next_run, self.table.c.average_ms)
        rows = self._store.rows(query.where(self.table.c.id.in_(list(ids))))
        return {row.id: (row.next_run, row.average_ms) for row in rows}

    def due(self, moment: datetime, most: int) -> dict[int, datetime]:
        """When schedules were due, by job, the longest due first; these jobs are locked, those of others left out."""
        query = (
            sqlalchemy.select(self.table.c.id, self.table.c.next_run)
            .where(self.table.c.next_run <= moment)
            .order_by(self.table.c.next_run)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        return {row.id: row.next_run for row in self._store.rows(query)}

    def next_due(self) -> datetime | None:
        """When the next schedule is due."""
        return self._store.run(sqlalchemy.select(sqlalchemy.func.min(self.table.c.next_run))).scalar()

    def plan(self, job_id: int, next_run: datetime | None) -> None:
        """Set when the job's schedule is due next."""
        self._store.run(sqlalchemy.update(self.table).where(self.table.c.id == job_id).values(next_run=next_run))

    def saver(self, job_id: int) -> str:
        """The name of the account that saved the job last."""
        query = sqlalchemy.select(self.table.c.account_name).where(self.table.c.id == job_id)
        return str(self._store.run(query).scalar_one())

    def took(self, job_id: int, average_ms: int) -> None:
        """Set how long the job takes on the average."""
        self._store.run(sqlalchemy.update(self.table).where(self.table.c.id == job_id).values(average_ms=average_ms))

    def to_row(self, thing: SavedJob) -> dict[str, Any]:
        job = thing.job
        return {
            "id": thing.id,
            "uuid": job.uuid,
            "project": job.project,
            "folder": job.group,
            "name": job.name,
            "description": job.description,
            **definition_columns(job, self._store.sealer),
            "account_id": thing.account_id,
            "account_name": thing.account_name,
            "next_run": thing.next_run,
            "average_ms": thing.average_ms,
        }

    def from_row(self, row: Row[Any]) -> SavedJob:
        return SavedJob(
            job=defined_job(row.definition, row.secrets, self._store.sealer),
            account_id=AccountId(row.account_id),
            account_name=row.account_name,
            next_run=row.next_run,
            average_ms=row.average_ms,
        )

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in row.items() if name not in _UNVERSIONED}
        sealer = self._store.sealer
        return {**kept, "secrets": sealer.digest(sealer.open(row["secrets"])) if row["secrets"] else None}

    def unchanged(self, before: Mapping[Any, Any], row: Mapping[str, Any]) -> bool:
        """Sealed twice, a value looks different each time."""
        same = all(before[name] == row[name] for name in _UNVERSIONED)
        return same and self.history_row(dict(before)) == self.history_row(row)


def definition_columns(job: Job, sealer: Sealer) -> dict[str, Any]:
    """The columns `definition` and `secrets` of a job."""
    hidden = {option.name: option.value for option in job.options if option.secure and option.value}
    shown = tuple(replace(option, value=HIDDEN) if option.name in hidden else option for option in job.options)
    return {
        "definition": job_yaml.tree(replace(job, options=shown)),
        "secrets": sealer.seal(msgspec.json.encode(hidden)) if hidden else None,
    }


def defined_job(definition: Mapping[str, Any], secrets: bytes | None, sealer: Sealer) -> Job:
    """The job of these columns."""
    draft = job_documents.draft(definition)
    hidden = msgspec.json.decode(sealer.open(secrets), type=dict[str, str]) if secrets else {}
    options = tuple(
        replace(option, value=hidden[option.name]) if option.name in hidden else option for option in draft.job.options
    )
    return replace(draft.job, id=definition.get("id"), options=options)


def _selected(statement: Select[Any], query: JobQuery) -> Select[Any]:
    order = _SORTED_BY[query.sort_by]
    statement = statement.where(*_conditions(query))
    statement = statement.order_by(order.desc() if query.descending else order, tables.jobs.c.folder, tables.jobs.c.id)
    return statement.limit(query.most).offset(query.offset)


def _conditions(query: JobQuery) -> list[ColumnElement[bool]]:
    table = tables.jobs.c
    found: list[ColumnElement[bool]] = [table.project == query.project]
    if query.ids is not None:
        numbers = [int(one) for one in query.ids if one.isdecimal() and one.isascii() and len(one) < 19]
        found.append(table.id.in_(numbers) | table.uuid.in_(query.ids))
    if query.group is not None:
        found.append(table.folder == query.group)
    if query.within:
        found.append((table.folder == query.within) | table.folder.startswith(f"{query.within}/", autoescape=True))
    if query.name_part:
        found.append(table.name.ilike(f"%{query.name_part}%"))
    if query.exact_name:
        found.append(table.name == query.exact_name)
    if query.description_part:
        found.append(table.description.icontains(query.description_part, autoescape=True))
    if query.loglevel:
        found.append(table.definition["loglevel"].astext == query.loglevel)
    return found


def _head(row: Row[Any]) -> JobHead:
    return JobHead(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        group=row.folder,
        project=row.project,
        description=row.description,
    )
