# SPDX-License-Identifier: Apache-2.0
"""What is old is forgotten, what is young is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy
from tests.common.fleets import World

from quarterdeck.core import accounts
from quarterdeck.core.accounts import Account
from quarterdeck.core.activities import Activity, ActivityQuery
from quarterdeck.core.executions import Execution
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Job
from quarterdeck.core.logs import LogEntry
from quarterdeck.core.sites import Site
from quarterdeck.formats import log_blocks
from quarterdeck.services import execution_output, housekeeping
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database
from quarterdeck.storage.executions import ExecutionQuery
from quarterdeck.storage.logs import LogBlock


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=2, secret_key=bytes(32))
    yield World(database)
    database.close()


def test_old_nonces_are_forgotten_and_young_ones_kept(world: World) -> None:
    with world.unit() as ctx:
        now = ctx.now
        ctx.store.agent_requests.remember_nonces(
            [("node", "old", now - timedelta(hours=2)), ("node", "young", now - timedelta(minutes=5))]
        )
        housekeeping.tidy(ctx)
        kept = ctx.store.agent_requests.nonces_since(now - timedelta(days=1))

    assert kept == [("node", "young")]


def test_the_log_of_old_tasks_is_forgotten_and_waiting_tasks_are_kept(world: World) -> None:
    with world.unit() as ctx:
        gone = queue.defer(ctx.store, "one")
        queue.defer(ctx.store, "two")
        queue.cancel(ctx.store, gone)
        ctx.store.run(sqlalchemy.text("UPDATE pgqueuer_log SET created = created - interval '4 days'"))
        queue.defer(ctx.store, "three")
        housekeeping.tidy(ctx)
        logged = ctx.store.run(sqlalchemy.text("SELECT count(*) FROM pgqueuer_log")).scalar_one()
        waiting = queue.waiting(ctx.store)

    assert (logged, waiting) == (1, {"two": 1, "three": 1})


def _execution(ctx: Context, started: datetime) -> int:
    execution = Execution(id=0, project="ops", user="alice", started=started, account_id=accounts.SYSTEM.id)
    return ctx.store.executions.add(execution, Job("uptime", "ops"), {})


def _ended_execution(ctx: Context, ended: datetime) -> int:
    """One with four bytes of output and an entry in the history."""
    execution_id = _execution(ctx, ended)
    ctx.store.executions.finish(execution_id, 0, ended_at=ended)
    data = log_blocks.encode([LogEntry(ended, "INFO", "", "", "", b"one\n")])
    block = LogBlock(execution_id=execution_id, number=0, at=ended, offset=0, size=4, lines=1, data=data)
    ctx.store.logs.append([block])
    entry = Activity(
        project="ops",
        title="uptime",
        status="succeeded",
        summary="",
        user="alice",
        started=ended,
        ended=ended,
        execution_id=execution_id,
    )
    ctx.store.activities.add(entry)
    return execution_id


@pytest.mark.parametrize(("site", "days"), [(Site(), 90), (Site(executions_kept=timedelta(days=7)), 7)])
def test_old_executions_go_with_their_output_and_history_and_young_ones_stay(
    world: World, site: Site, days: int
) -> None:
    with world.unit() as ctx:
        old, young = (_ended_execution(ctx, ctx.now - timedelta(days=days + more)) for more in (1, -1))
        housekeeping.tidy(replace(ctx, site=site))
        executions = {one.id for one in ctx.store.executions.matching(ExecutionQuery(project="ops"))}
        activities, _ = ctx.store.activities.find(ActivityQuery(project="ops"))
        outputs = [execution_output.extent(ctx, one).size for one in (old, young)]

    assert executions == {young}
    assert [one.execution_id for one in activities] == [young]
    assert outputs == [0, 4]


def test_an_execution_that_still_runs_stays_however_old_it_is(world: World) -> None:
    with world.unit() as ctx:
        begun = _execution(ctx, ctx.now - timedelta(days=200))
        housekeeping.tidy(ctx)
        kept = ctx.store.executions.find(begun)

    assert kept is not None


def test_days_of_output_are_made_ahead_by_both_tasks(world: World) -> None:
    with world.unit() as ctx:
        housekeeping.keep_runs(ctx)
        housekeeping.tidy(ctx)
        found = ctx.store.run(
            sqlalchemy.text("SELECT count(*) FROM pg_class WHERE relname ~ '^execution_logs_[0-9]{8}$'")
        ).scalar_one()

    assert found == execution_output.DAYS_AHEAD + 1


def test_sessions_whose_time_is_up_are_forgotten(world: World) -> None:
    with world.unit() as ctx:
        account = Account(id=AccountId("alice"), name="alice", kind="user", created_at=ctx.now)
        ctx.store.accounts.add(account)
        ctx.store.sessions.add(b"old", account.id, expires_at=ctx.now - timedelta(seconds=1))
        ctx.store.sessions.add(b"young", account.id, expires_at=ctx.now + timedelta(seconds=60))
        housekeeping.tidy(ctx)
        left = ctx.store.run(sqlalchemy.text("SELECT digest FROM sessions")).scalars().all()

    assert [bytes(one) for one in left] == [b"young"]
