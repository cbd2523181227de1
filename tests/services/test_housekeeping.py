# SPDX-License-Identifier: Apache-2.0
"""What is old is forgotten, what is young is kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy
from tests.common.fleets import World

from quarterdeck.services import housekeeping
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=2)
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
