# SPDX-License-Identifier: Apache-2.0
"""Sessions on a real database: how long they live, whose they are, what is written when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.services import accounts, sessions
from quarterdeck.services.context import Context
from quarterdeck.storage import tables
from quarterdeck.storage.database import Database, Provenance, Store


class Times:
    """One unit of work after another, in one transaction that is rolled back at the end."""

    def __init__(self, database: Database) -> None:
        self._store = Store(database.engine, Provenance(actor="tests"), database.sealer)
        self.now = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)

    def at(self, now: datetime) -> Context:
        self._store.__dict__["now"] = self.now = now
        return Context(account=SYSTEM, store=self._store)

    def after(self, **time: float) -> Context:
        return self.at(self.now + timedelta(**time))

    def close(self) -> None:
        self._store.rollback()


@pytest.fixture
def times(postgres_url: str) -> Iterator[Times]:
    database = Database(postgres_url, pool_size=1)
    times = Times(database)
    yield times
    times.close()
    database.close()


def user(ctx: Context) -> Account:
    return accounts.create_user(ctx, "carol", "a long password", frozenset({"read_only"}))


def test_a_session_belongs_to_who_began_it(times: Times) -> None:
    carol = user(times.after())
    secret = sessions.open_session(times.after(), carol)

    found = sessions.account_of(times.after(minutes=1), secret)

    assert found is not None
    assert (found.id, found.roles) == (carol.id, frozenset({"read_only"}))
    assert sessions.account_of(times.after(), secret[:-1] + "#") is None


def test_half_an_hour_without_use_ends_a_session(times: Times) -> None:
    secret = sessions.open_session(times.after(), user(times.after()))

    assert sessions.account_of(times.after(minutes=29), secret) is not None
    assert sessions.account_of(times.after(minutes=29), secret) is not None
    assert sessions.account_of(times.after(minutes=31), secret) is None


def test_half_a_day_ends_a_session_however_much_it_is_used(times: Times) -> None:
    secret = sessions.open_session(times.after(), user(times.after()))

    for _ in range(47):
        assert sessions.account_of(times.after(minutes=15), secret) is not None

    assert sessions.account_of(times.after(minutes=15), secret) is None


def test_a_session_in_use_is_written_to_once_a_minute_at_most(times: Times) -> None:
    ctx = times.after()
    secret = sessions.open_session(ctx, user(ctx))

    def seen() -> datetime:
        row = times.after().store.run(sqlalchemy.select(tables.sessions.c.seen_at)).one()
        assert isinstance(row.seen_at, datetime)
        return row.seen_at

    began = seen()
    sessions.account_of(times.after(seconds=59), secret)
    assert seen() == began
    sessions.account_of(times.after(seconds=1), secret)
    assert seen() == began + timedelta(minutes=1)


def test_a_closed_session_is_gone_and_a_removed_user_has_none(times: Times) -> None:
    ctx = times.after()
    carol = user(ctx)
    first, second = sessions.open_session(ctx, carol), sessions.open_session(ctx, carol)

    sessions.close_session(ctx, first)
    assert sessions.account_of(ctx, first) is None
    assert sessions.account_of(ctx, second) is not None
    accounts.remove_user(ctx, "carol")
    assert sessions.account_of(ctx, second) is None


def test_a_new_session_sweeps_out_those_that_are_over(times: Times) -> None:
    ctx = times.after()
    carol = user(ctx)
    sessions.open_session(ctx, carol)

    sessions.open_session(times.after(minutes=31), carol)

    assert len(times.after().store.rows(sqlalchemy.select(tables.sessions))) == 1
