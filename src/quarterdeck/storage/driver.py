# SPDX-License-Identifier: Apache-2.0
"""The driver beneath a unit of work, for what SQLAlchemy has no words for: COPY, and the queue's own SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from quarterdeck.core.errors import Conflict, Invalid, Unavailable

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


#: What every connection tells libpq: a database that is cut off is noticed after some ten seconds (idle + interval x
#: count), not after the hours that TCP would wait. The server's end has settings of its own.
NETWORK: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}

#: character_not_in_repertoire, untranslatable_character
_TEXT_STATES = ("22021", "22P05")
#: numeric_value_out_of_range
_RANGE_STATE = "22003"


def raw_connection(store: Store) -> psycopg.Connection[Any]:
    """The psycopg connection of this unit of work; what it does commits and rolls back with the rest."""
    connection = store.connection
    if not connection.in_transaction():
        connection.begin()  # else SQLAlchemy would find nothing to commit
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def unfit(error: BaseException | None) -> Invalid:
    """The error for a value that PostgreSQL cannot keep: a NUL or half a character in a text, a number out of range."""
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, UnicodeError) or state in _TEXT_STATES or "NUL" in str(error):
        return Invalid("A text holds a character that cannot be kept, such as NUL.", detail=str(error))
    if state == _RANGE_STATE or isinstance(error, OverflowError):
        return Invalid("A number is too large to be kept.", detail=str(error))
    return Invalid("A value is not of the form that is kept.", detail=str(error))


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
    except (psycopg.DataError, UnicodeError) as error:
        raise unfit(error) from error
