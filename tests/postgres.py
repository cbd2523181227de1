# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for tests: one server a run, one migrated database a worker, made from a template.

By default the embedded PostgreSQL in a temporary directory, shared by all xdist workers (the first one starts it, the
last one to leave ends it). QUARTERDECK_TEST_DATABASE names another server instead: a URL of an account that may create
databases, as in `postgresql://tester:secret@localhost/postgres`.

    postgres_url        session  this worker's migrated database; leave it as you found it (roll back)
    fresh_postgres_url  test     a migrated database of this test alone, dropped afterwards
    empty_postgres_url  test     the same without any table
    reachable_dir       test     a temporary directory that the database's user can reach also when root runs the tests
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from quarterdeck.storage import embedded

RUN_VARIABLE = "QUARTERDECK_TEST_RUN"
EXTERNAL_VARIABLE = "QUARTERDECK_TEST_DATABASE"
#: Any number no other program takes as an advisory lock: one worker at a time makes the template.
TEMPLATE_LOCK = 7_216_340_118


def pytest_configure(config: pytest.Config) -> None:
    """Name this run once; the workers inherit the name."""
    if not hasattr(config, "workerinput"):
        os.environ[RUN_VARIABLE] = uuid.uuid4().hex[:12]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the shared directory when all workers have left."""
    if not hasattr(config, "workerinput"):
        with contextlib.suppress(FileNotFoundError):
            _remove_when_stopped(_run_directory())
        # Only now: a worker that ends early must not take it from the others.
        if external := os.environ.get(EXTERNAL_VARIABLE):
            _drop(_plain(external), _template_name())


def _run_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"quarterdeck-tests-{os.environ[RUN_VARIABLE]}"


def _remove_when_stopped(directory: Path) -> None:
    """Wait until a database that is going down has let go of its files, then remove them."""
    pid_file = directory / "pg" / str(embedded.MAJOR) / "postmaster.pid"
    end = time.monotonic() + 10
    while pid_file.exists() and time.monotonic() < end:
        time.sleep(0.02)
    shutil.rmtree(directory)


def database_url(server: str, database: str) -> str:
    """The URL of another database on the server of `server`."""
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _create(server: str, database: str, template: str) -> None:
    # Not text but identifiers: psycopg quotes them.
    # FILE_COPY takes a tenth of the default strategy's time where nothing is synchronised.
    creating = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    statement = creating.format(sql.Identifier(database), sql.Identifier(template))
    with psycopg.connect(server, autocommit=True) as connection:
        # PostgreSQL refuses while anybody looks at the template, and workers start together.
        connection.execute("SELECT pg_advisory_lock(%s)", [TEMPLATE_LOCK])
        connection.execute(statement)


def _drop(server: str, database: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the server's maintenance database: to create databases, not to work in."""
    external = os.environ.get(EXTERNAL_VARIABLE)
    if external:
        yield _plain(external)
        return
    directory = _run_directory()
    directory.mkdir(mode=0o700, exist_ok=True)
    with embedded.running(directory, throwaway=True) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a database in the newest schema, made once a run by whoever comes first."""
    name = _template_name()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [TEMPLATE_LOCK])
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if found is None:
            making = f"{name}_making"
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(making)))
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(making))
            )
            _upgrade(database_url(postgres_server, making))
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            connection.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    return name


def _template_name() -> str:
    return f"quarterdeck_template_{os.environ[RUN_VARIABLE]}"


def _upgrade(url: str) -> None:
    if importlib.util.find_spec("quarterdeck.storage.migrate") is None:
        return  # the schema is not there yet; tests that need tables fail by themselves
    importlib.import_module("quarterdeck.storage.migrate").upgrade(url)


@contextlib.contextmanager
def database_from(server: str, template: str, label: str) -> Iterator[str]:
    name = f"quarterdeck_{label}_{uuid.uuid4().hex[:12]}"
    _create(server, name, template)
    try:
        yield database_url(server, name)
    finally:
        _drop(server, name)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """This worker's own migrated database."""
    with database_from(postgres_server, postgres_template, "worker") as url:
        yield url


@pytest.fixture
def fresh_postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A migrated database of this test alone."""
    with database_from(postgres_server, postgres_template, "fresh") as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database without tables of this test alone."""
    with database_from(postgres_server, "template0", "empty") as url:
        yield url


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """An empty directory that other users may pass, unlike root's `tmp_path`."""
    directory = Path(tempfile.mkdtemp(prefix="quarterdeck-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """A `temporary_directory` of this test."""
    with temporary_directory() as directory:
        yield directory
