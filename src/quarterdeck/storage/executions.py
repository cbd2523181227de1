# SPDX-License-Identifier: Apache-2.0
"""Executions and their steps: rows <-> core objects, lists, and who owns what.

A worker owns an execution in an epoch. Whatever it writes about it is refused once the epoch is another one: the row
of the execution is locked for the moment of the check, so a change of owner and a step that begins never miss each
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Row, Select, func

from quarterdeck.core.errors import NotFound
from quarterdeck.core.executions import Execution, NodeStep, State, StepState
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Job
from quarterdeck.core.options import concealed
from quarterdeck.formats import job_documents, job_yaml
from quarterdeck.storage.runbook_tables import execution_steps, executions

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

NOT_FOUND = "Execution ID does not exist: {id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that running an execution takes: the job as it was, and the values of its options."""

    execution: Execution
    job: Job
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegin:
    """A step that is about to begin."""

    execution_id: int
    epoch: int
    step: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnd:
    """What came of a step that had begun."""

    execution_id: int
    step: str
    node: str
    state: StepState
    exit_status: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQuery:
    """Which executions; None and "" ask for nothing."""

    project: str = ""
    job_id: int | None = None
    state: State | None = None
    most: int | None = None
    offset: int = 0


class ExecutionTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    # -- one execution --------------------------------------------------------------------

    def add(self, execution: Execution, job: Job, options: Mapping[str, str]) -> int:
        """Keep a new execution that waits for a worker; returns its id. `options` are sealed."""
        statement = sqlalchemy.insert(executions).values(
            project=execution.project,
            kind=execution.kind,
            job_id=execution.job_id,
            account_id=execution.account_id,
            account_name=execution.user,
            started_at=execution.started,
            succeeded=False,
            cancelled=False,
            aborted_by="",
            description=execution.description,
            argstring=execution.argstring,
            loglevel=execution.loglevel,
            definition=job_yaml.tree(replace(job, options=concealed(job.options))),
            options=self._store.sealer.seal(msgspec.json.encode(dict(options))),
            nodes=list(execution.nodes) if execution.nodes is not None else sqlalchemy.null(),
            nodes_succeeded=0,
            nodes_failed=0,
            epoch=0,
        )
        return int(self._store.run(statement.returning(executions.c.id)).scalar_one())

    def find(self, execution_id: int, *, lock: bool = False) -> Execution | None:
        """The execution, or None."""
        query = sqlalchemy.select(executions).where(executions.c.id == execution_id)
        row = self._store.run(query.with_for_update() if lock else query).first()
        return _from_row(row) if row is not None else None

    def get(self, execution_id: int, *, lock: bool = False) -> Execution:
        """The execution. Raises NotFound."""
        found = self.find(execution_id, lock=lock)
        if found is None:
            raise NotFound(NOT_FOUND.format(id=execution_id))
        return found

    def work(self, execution_id: int) -> Work:
        """The execution with what running it takes. Raises NotFound, WrongKey, Unavailable."""
        row = self._store.run(sqlalchemy.select(executions).where(executions.c.id == execution_id)).first()
        if row is None:
            raise NotFound(NOT_FOUND.format(id=execution_id))
        options = msgspec.json.decode(self._store.sealer.open(row.options), type=dict[str, str])
        return Work(execution=_from_row(row), job=job_documents.draft(row.definition).job, options=options)

    def job_of(self, execution_id: int) -> Job:
        """The job as it was when the execution began. Raises NotFound."""
        query = sqlalchemy.select(executions.c.definition).where(executions.c.id == execution_id)
        definition = self._store.run(query).scalar()
        if definition is None:
            raise NotFound(NOT_FOUND.format(id=execution_id))
        return job_documents.draft(definition).job

    def matching(self, query: ExecutionQuery) -> list[Execution]:
        """The executions asked for: running ones first, then the newest end first."""
        statement = sqlalchemy.select(executions).where(*_conditions(query))
        statement = statement.order_by(
            executions.c.ended_at.desc().nulls_first(), executions.c.started_at.desc(), executions.c.id.desc()
        )
        return self._found(statement.limit(query.most).offset(query.offset))

    def running_of_job(self, job_id: int) -> Execution | None:
        """The newest execution of a job that has not ended."""
        running = ExecutionQuery(job_id=job_id, state=State.RUNNING, most=1)
        return next(iter(self.matching(running)), None)

    def durations_ms(self, job_id: int, most: int) -> list[int]:
        """How long the last successful executions of a job took."""
        took = func.extract("epoch", executions.c.ended_at - executions.c.started_at) * 1000
        query = sqlalchemy.select(took.label("took")).where(
            executions.c.job_id == job_id, executions.c.succeeded, executions.c.ended_at.is_not(None)
        )
        return [int(row.took) for row in self._store.rows(query.order_by(executions.c.id.desc()).limit(most))]

    def ask_to_abort(self, execution_id: int, user: str) -> None:
        """Note that somebody wants it to end; who asked first stays."""
        values = {"abort_at": self._store.now, "aborted_by": user}
        statement = sqlalchemy.update(executions).where(executions.c.id == execution_id)
        self._store.run(statement.where(executions.c.abort_at.is_(None)).values(values))

    # -- who owns it ----------------------------------------------------------------------

    def claim(self, execution_id: int, worker: int, *, from_owner: int | None) -> int | None:
        """Make a worker the owner of what has no owner, or this one; returns the new epoch, None when it is not so."""
        statement = (
            sqlalchemy.update(executions)
            .where(
                executions.c.id == execution_id,
                executions.c.ended_at.is_(None),
                executions.c.owner.is_(None) if from_owner is None else executions.c.owner == from_owner,
            )
            .values(owner=worker, epoch=executions.c.epoch + 1)
        )
        return self._store.run(statement.returning(executions.c.epoch)).scalar()

    def waiting(self, most: int) -> list[int]:
        """Executions that no worker has begun with, oldest first."""
        query = sqlalchemy.select(executions.c.id).where(executions.c.ended_at.is_(None), executions.c.owner.is_(None))
        return [row.id for row in self._store.rows(query.order_by(executions.c.id).limit(most))]

    def owned(self) -> dict[int, int]:
        """Owner by execution, of all that have begun and not ended."""
        query = sqlalchemy.select(executions.c.id, executions.c.owner).where(
            executions.c.ended_at.is_(None), executions.c.owner.is_not(None)
        )
        return {row.id: row.owner for row in self._store.rows(query)}

    def epochs(self, ids: Iterable[int]) -> dict[int, tuple[int, str | None]]:
        """Epoch, and who asked for an abort if somebody did, of those of these executions that have not ended."""
        table = executions.c
        query = sqlalchemy.select(table.id, table.epoch, table.abort_at, table.aborted_by).where(
            table.id.in_(list(ids)), table.ended_at.is_(None)
        )
        return {row.id: (row.epoch, row.aborted_by if row.abort_at else None) for row in self._store.rows(query)}

    def hold(self, ids: Iterable[int]) -> dict[int, int]:
        """Epochs of those of these executions that have not ended; they stay so until this unit of work is over."""
        query = sqlalchemy.select(executions.c.id, executions.c.epoch).where(
            executions.c.id.in_(list(ids)), executions.c.ended_at.is_(None)
        )
        return {row.id: row.epoch for row in self._store.rows(query.with_for_update(read=True))}

    def set_nodes(self, execution_id: int, epoch: int, names: Sequence[str]) -> bool:
        """Keep the nodes in order of dispatch; False when the epoch is another one."""
        statement = sqlalchemy.update(executions).where(_in_epoch(execution_id, epoch)).values(nodes=list(names))
        return self._store.run(statement).rowcount > 0

    def finish(self, execution_id: int, epoch: int, **columns: Any) -> bool:
        """Set the end; False when it has ended already or the epoch is another one."""
        values = {"ended_at": self._store.now, **columns}
        statement = sqlalchemy.update(executions).where(_in_epoch(execution_id, epoch)).values(values)
        return self._store.run(statement).rowcount > 0

    def raise_epoch(self, execution_id: int) -> int | None:
        """Take an execution from whoever has it, for nobody; returns the new epoch, None when it has ended."""
        statement = (
            sqlalchemy.update(executions)
            .where(executions.c.id == execution_id, executions.c.ended_at.is_(None))
            .values(epoch=executions.c.epoch + 1)
        )
        return self._store.run(statement.returning(executions.c.epoch)).scalar()

    def forget(self, before: datetime) -> int:
        """Remove those that ended before this time; returns how many went."""
        return self._store.run(sqlalchemy.delete(executions).where(executions.c.ended_at < before)).rowcount

    # -- steps ----------------------------------------------------------------------------

    def begin_steps(self, begins: Sequence[StepBegin], *, again: bool = False) -> list[StepBegin]:
        """Note steps that are about to begin, in one statement; returns those that may.

        One that was noted before, or whose execution has another epoch, has ended or is to end, may not. `again`: it
        is not known whether an earlier attempt to note these came through.
        """
        wanted = {
            "now": self._store.now,
            "ids": [one.execution_id for one in begins],
            "epochs": [one.epoch for one in begins],
            "steps": [one.step for one in begins],
            "nodes": [one.node for one in begins],
        }
        rows = [*self._store.run(_BEGIN, wanted).all()]
        if again:
            # A change of owner ends what had begun, so what has begun now has in this epoch: it is the caller's.
            rows += self._store.run(_BEGUN, wanted).all()
        begun = {(row.execution_id, row.step, row.node) for row in rows}
        return [one for one in begins if (one.execution_id, one.step, one.node) in begun]

    def end_steps(self, ends: Sequence[StepEnd]) -> None:
        """Note what came of steps, in one statement; those that have an end already keep it."""
        self._store.run(
            _END,
            {
                "now": self._store.now,
                "ids": [one.execution_id for one in ends],
                "steps": [one.step for one in ends],
                "nodes": [one.node for one in ends],
                "states": [one.state.value for one in ends],
                "statuses": [one.exit_status for one in ends],
                "reasons": [one.reason for one in ends],
            },
        )

    def abandon_steps(self, execution_id: int, reason: str) -> list[NodeStep]:
        """End every step that has begun and not ended as abandoned; returns them."""
        statement = (
            sqlalchemy.update(execution_steps)
            .where(execution_steps.c.execution_id == execution_id, execution_steps.c.state == StepState.BEGUN.value)
            .values(state=StepState.ABANDONED.value, ended_at=self._store.now, reason=reason)
        )
        return [_step_from_row(row) for row in self._store.run(statement.returning(execution_steps)).all()]

    def steps(self, execution_id: int) -> list[NodeStep]:
        """Every step that ever began, in order of beginning."""
        query = sqlalchemy.select(execution_steps).where(execution_steps.c.execution_id == execution_id)
        order = (execution_steps.c.begun_at, execution_steps.c.step, execution_steps.c.node)
        return [_step_from_row(row) for row in self._store.rows(query.order_by(*order))]

    def _found(self, query: Select[Any]) -> list[Execution]:
        return [_from_row(row) for row in self._store.rows(query)]


_BEGIN = sqlalchemy.text(
    """
    WITH wanted AS (
        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:steps AS text[]),
                             CAST(:nodes AS text[])) AS w(execution_id, epoch, step, node)
    ), live AS (
        SELECT id, epoch FROM executions
        WHERE id = ANY(CAST(:ids AS bigint[])) AND ended_at IS NULL AND abort_at IS NULL
        FOR SHARE
    )
    INSERT INTO execution_steps (execution_id, step, node, state, begun_at, reason)
    SELECT w.execution_id, w.step, w.node, 'begun', :now, ''
    FROM wanted w JOIN live ON live.id = w.execution_id AND live.epoch = w.epoch
    ON CONFLICT DO NOTHING
    RETURNING execution_id, step, node
    """
)
_BEGUN = sqlalchemy.text(
    """
    SELECT s.execution_id, s.step, s.node
    FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS integer[]), CAST(:steps AS text[]), CAST(:nodes AS text[]))
        AS w(execution_id, epoch, step, node)
    JOIN executions x ON x.id = w.execution_id AND x.epoch = w.epoch AND x.ended_at IS NULL AND x.abort_at IS NULL
    JOIN execution_steps s ON (s.execution_id, s.step, s.node) = (w.execution_id, w.step, w.node) AND s.state = 'begun'
    """
)
_END = sqlalchemy.text(
    """
    UPDATE execution_steps s
    SET state = e.state, ended_at = :now, exit_status = e.exit_status, reason = e.reason
    FROM unnest(CAST(:ids AS bigint[]), CAST(:steps AS text[]), CAST(:nodes AS text[]), CAST(:states AS text[]),
                CAST(:statuses AS integer[]), CAST(:reasons AS text[]))
        AS e(execution_id, step, node, state, exit_status, reason)
    WHERE s.execution_id = e.execution_id AND s.step = e.step AND s.node = e.node AND s.state = 'begun'
    """
)


def _in_epoch(execution_id: int, epoch: int) -> ColumnElement[bool]:
    return sqlalchemy.and_(
        executions.c.id == execution_id, executions.c.epoch == epoch, executions.c.ended_at.is_(None)
    )


def _conditions(query: ExecutionQuery) -> list[ColumnElement[bool]]:
    table = executions.c
    found: list[ColumnElement[bool]] = []
    if query.project:
        found.append(table.project == query.project)
    if query.job_id is not None:
        found.append(table.job_id == query.job_id)
    ended = table.ended_at.is_not(None)
    match query.state:
        case State.RUNNING:
            found.append(table.ended_at.is_(None))
        case State.SUCCEEDED:
            found += [ended, table.succeeded]
        case State.ABORTED:
            found += [ended, ~table.succeeded, table.cancelled]
        case State.FAILED:
            found += [ended, ~table.succeeded, ~table.cancelled]
    return found


def _from_row(row: Row[Any]) -> Execution:
    return Execution(
        id=row.id,
        project=row.project,
        user=row.account_name,
        account_id=AccountId(row.account_id),
        started=row.started_at,
        kind=row.kind,
        job_id=row.job_id,
        ended=row.ended_at,
        succeeded=row.succeeded,
        cancelled=row.cancelled,
        aborted_by=row.aborted_by,
        description=row.description,
        argstring=row.argstring,
        loglevel=row.loglevel,
        abort_at=row.abort_at,
        nodes=tuple(row.nodes) if row.nodes is not None else None,
        nodes_succeeded=row.nodes_succeeded,
        nodes_failed=row.nodes_failed,
        owner=row.owner,
        epoch=row.epoch,
    )


def _step_from_row(row: Row[Any]) -> NodeStep:
    return NodeStep(
        step=row.step,
        node=row.node,
        state=StepState(row.state),
        begun=row.begun_at,
        ended=row.ended_at,
        exit_status=row.exit_status,
        reason=row.reason,
    )
