# SPDX-License-Identifier: Apache-2.0
"""The driver beneath a unit of work, for what SQLAlchemy has no words for: COPY, and the queue's own SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from quarterdeck.core.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


def raw_connection(store: Store) -> psycopg.Connection[Any]:
    """The psycopg connection of this unit of work; what it does commits and rolls back with the rest."""
    connection = store.connection
    if not connection.in_transaction():
        connection.begin()  # else SQLAlchemy would find nothing to commit
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors leave as ours."""
    try:
        yield
    except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, psycopg.IntegrityError) as error:
        message = "Somebody else changed the same thing at the same time; please try again."
        raise Conflict(message, detail=str(error)) from error
    except psycopg.OperationalError as error:
        raise Unavailable("The database does not answer.", detail=str(error)) from error
