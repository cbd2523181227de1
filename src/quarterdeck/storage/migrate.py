# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the schema of this version, with Alembic, one process at a time."""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from quarterdeck.core.errors import Conflict
from quarterdeck.storage.database import Database, translated

#: Any constant: the advisory lock that keeps two migrations apart.
_LOCK = 0x5175_6172


def upgrade(url: str) -> None:
    """Bring the database to the newest schema. Raises Conflict when its schema is newer than this version."""
    database = Database(url, pool_size=1)
    try:
        with translated(), database.engine.connect() as connection:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_LOCK)))
            connection.commit()
            _refuse_newer(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        database.close()


def is_current(url: str) -> bool:
    """Whether the database has the newest schema. Raises Conflict when it is newer than this version."""
    database = Database(url, pool_size=1)
    try:
        with translated(), database.engine.connect() as connection:
            _refuse_newer(connection)
            return MigrationContext.configure(connection).get_current_revision() == _scripts().get_current_head()
    finally:
        database.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("quarterdeck.storage") / "migrations"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _refuse_newer(connection: sqlalchemy.Connection) -> None:
    present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts().walk_revisions()}
    if present is not None and present not in known:
        message = (
            "The database was made by a newer version of Quarterdeck; upgrade this server to at least that version."
        )
        raise Conflict(message, detail=f"unknown revision {present}")
