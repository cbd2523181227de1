# SPDX-License-Identifier: Apache-2.0
"""Dumps of a whole database with PostgreSQL's own programs: `pg_dump` and `pg_restore` of the embedded wheel.

A dump of PostgreSQL 15 to 18 restores into the same or a later version. What else belongs to a backup is not here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
from psycopg import conninfo

from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.storage import postgres_programs

#: What libpq takes from the environment: a password must not stand in the arguments of a process.
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
}


def dump(url: str, path: Path) -> None:
    """Write the database of `url` to `path` in PostgreSQL's custom format. Raises Unavailable."""
    _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={path}"], url)


def restore(url: str, path: Path) -> None:
    """Fill the empty database of `url` from `path`, all or nothing. Raises Conflict when it is not empty."""
    if not is_empty(url):
        raise Conflict("The database to restore into is not empty: give an empty one.")
    # A database of its own has a schema `public` already; the dump must not make it again.
    options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", "--dbname", ""]
    _run("pg_restore", [*options, str(path)], url)


def is_empty(url: str) -> bool:
    """Whether nobody has made a table in the database of `url` yet. Raises Unavailable."""
    query = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    try:
        with psycopg.connect(_plain(url), connect_timeout=10) as connection:
            row = connection.execute(query).fetchone()
    except psycopg.OperationalError as error:
        raise Unavailable("The database does not answer.", detail=str(error)) from error
    return row == (0,)


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _run(name: str, arguments: list[str], url: str) -> None:
    parameters = conninfo.conninfo_to_dict(_plain(url))
    unknown = sorted(parameters.keys() - _VARIABLES.keys())
    if unknown:
        raise Unavailable(f"A dump cannot be made through a database URL with the parameter '{unknown[0]}'.")
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    environment |= {_VARIABLES[key]: str(value) for key, value in parameters.items()}
    command = [str(postgres_programs.program(name)), "--no-password", *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{name} failed: {' '.join(done.stderr.split())[:500]}")
