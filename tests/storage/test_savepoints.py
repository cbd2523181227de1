# SPDX-License-Identifier: Apache-2.0
"""A part of a unit of work may fail, also in the database, and the rest goes on."""

from __future__ import annotations

import pytest
import sqlalchemy

from quarterdeck.core.errors import AlreadyExists, Invalid
from quarterdeck.core.projects import Project
from quarterdeck.storage.database import Database, Provenance, Store


def _clash(store: Store) -> None:
    store.projects.add(Project("two"))
    store.projects.add(Project("one"))


def _odd_value(store: Store) -> None:
    store.run(sqlalchemy.text("SELECT CAST(:text AS integer)"), {"text": "none"})


def test_what_fails_inside_is_undone_and_the_rest_is_kept(fresh_postgres_url: str) -> None:
    database = Database(fresh_postgres_url, pool_size=1)
    by = Provenance(actor="tests")

    with database.unit_of_work(by) as store:
        store.projects.add(Project("one"))
        with pytest.raises(AlreadyExists), store.savepoint():
            _clash(store)
        with pytest.raises(Invalid), store.savepoint():
            _odd_value(store)
        with store.savepoint():
            store.projects.add(Project("three"))
        store.commit()
    with database.unit_of_work(by) as store:
        names = [one.name for one in store.projects.all()]

    database.close()
    assert names == ["one", "three"]
