# SPDX-License-Identifier: Apache-2.0
"""The unit of work: what its errors tell."""

from __future__ import annotations

import pytest
import sqlalchemy

from quarterdeck.core.errors import Unavailable
from quarterdeck.storage.database import Database, Provenance


def test_errors_do_not_tell_what_was_to_be_written(postgres_url: str) -> None:
    database = Database(postgres_url, pool_size=1)
    statement = sqlalchemy.text("SELECT pg_terminate_backend(pg_backend_pid()), CAST(:secret AS text)")

    with database.unit_of_work(Provenance(actor="tests")) as store, pytest.raises(Unavailable) as caught:
        store.run(statement, {"secret": "the-password-hash"})
    database.close()

    assert caught.value.detail
    assert "the-password-hash" not in caught.value.detail
