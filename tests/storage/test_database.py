# SPDX-License-Identifier: Apache-2.0
"""The unit of work: what its errors tell."""

from __future__ import annotations

import pytest
import sqlalchemy

from quarterdeck.core.errors import Unavailable
from quarterdeck.storage import driver
from quarterdeck.storage.database import Database, Provenance


def test_errors_do_not_tell_what_was_to_be_written(postgres_url: str) -> None:
    database = Database(postgres_url, pool_size=1)
    statement = sqlalchemy.text("SELECT pg_terminate_backend(pg_backend_pid()), CAST(:secret AS text)")

    with database.unit_of_work(Provenance(actor="tests")) as store, pytest.raises(Unavailable) as caught:
        store.run(statement, {"secret": "the-password-hash"})
    database.close()

    assert caught.value.detail
    assert "the-password-hash" not in caught.value.detail


def lose_the_connection(database: Database, other: Database) -> None:
    """End a unit of work's connection where only the driver notices."""
    with database.unit_of_work(Provenance(actor="tests")) as store:
        raw = driver.raw_connection(store)
        with other.engine.connect() as connection:
            terminate = sqlalchemy.text("SELECT pg_terminate_backend(:pid)")
            connection.execute(terminate, {"pid": raw.info.backend_pid})
        with driver.translated(), raw.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_a_connection_lost_beneath_sqlalchemy_is_unavailable(postgres_url: str) -> None:
    database, other = Database(postgres_url, pool_size=2), Database(postgres_url, pool_size=1)

    with pytest.raises(Unavailable):
        lose_the_connection(database, other)

    # The pool has noticed: the next unit of work gets a connection that lives.
    with database.unit_of_work(Provenance(actor="tests")) as store:
        assert store.run(sqlalchemy.text("SELECT 1")).scalar() == 1
    database.close()
    other.close()
