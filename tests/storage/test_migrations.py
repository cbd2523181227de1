# SPDX-License-Identifier: Apache-2.0
"""The revisions give the schema that the code expects, whatever becomes of the code, and once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.postgres import database_from

from quarterdeck.core.errors import Conflict
from quarterdeck.storage import migrate, tables
from quarterdeck.storage.database import Database

#: Everything about tables that a revision could get wrong, one row a fact; the queue's and Alembic's own left out.
_FACTS = """
WITH ours AS (
    SELECT c.oid, c.relname, c.relkind, c.reloptions FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S') AND NOT c.relispartition
    AND c.relname NOT LIKE '%pgqueuer%' AND c.relname <> 'alembic_version'
)
SELECT 'relation', relname, relkind::text, reloptions::text FROM ours
UNION ALL
SELECT 'column', o.relname || '.' || a.attname,
    concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, l.collname),
    pg_get_expr(d.adbin, d.adrelid)
FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = o.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
UNION ALL
SELECT 'index', indexname, indexdef, NULL FROM pg_indexes JOIN ours ON tablename = relname
UNION ALL
SELECT 'constraint', o.relname || '.' || k.conname, pg_get_constraintdef(k.oid), NULL
FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid
UNION ALL
SELECT 'partitioned', relname, pg_get_partkeydef(oid), NULL FROM ours WHERE relkind = 'p'
UNION ALL
SELECT 'sequence', relname, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqcycle), NULL
FROM ours JOIN pg_sequence s ON s.seqrelid = oid
"""


@pytest.fixture
def other_url(postgres_server: str) -> Iterator[str]:
    """A second database without tables."""
    with database_from(postgres_server, "template0", "other") as url:
        yield url


def facts(url: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(_FACTS).fetchall())


def test_migrating_an_empty_database_gives_the_tables_of_the_code(empty_postgres_url: str, other_url: str) -> None:
    migrate.upgrade(empty_postgres_url)
    declared = Database(other_url, pool_size=1)
    tables.metadata.create_all(declared.engine)
    declared.close()

    found, wanted = facts(empty_postgres_url), facts(other_url)

    assert len(wanted) > 300
    assert sorted(wanted - found, key=str) == []
    assert sorted(found - wanted, key=str) == []


def test_alembic_finds_nothing_to_add_to_the_revisions(fresh_postgres_url: str) -> None:
    def is_declared(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in tables.metadata.tables

    database = Database(fresh_postgres_url, pool_size=1)
    with database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": is_declared}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, tables.metadata)
    database.close()

    assert differences == []


def test_reports_have_a_partition_from_the_start(fresh_postgres_url: str) -> None:
    with psycopg.connect(fresh_postgres_url) as connection:
        query = "SELECT relispartition FROM pg_class WHERE relname = 'runs_default'"
        assert connection.execute(query).fetchone() == (True,)


def test_a_second_upgrade_changes_nothing(fresh_postgres_url: str) -> None:
    before = facts(fresh_postgres_url)

    migrate.upgrade(fresh_postgres_url)

    assert facts(fresh_postgres_url) == before
    assert migrate.is_current(fresh_postgres_url)


def test_two_upgrades_at_once_do_not_disturb_each_other(empty_postgres_url: str) -> None:
    assert not migrate.is_current(empty_postgres_url)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate.upgrade, [empty_postgres_url] * 3))

    assert migrate.is_current(empty_postgres_url)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(fresh_postgres_url: str) -> None:
    with psycopg.connect(fresh_postgres_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = facts(fresh_postgres_url)

    with pytest.raises(Conflict, match="newer version"):
        migrate.upgrade(fresh_postgres_url)
    with pytest.raises(Conflict, match="newer version"):
        migrate.is_current(fresh_postgres_url)

    assert facts(fresh_postgres_url) == before


def test_no_revision_depends_on_code_that_may_change() -> None:
    versions = files("quarterdeck.storage") / "migrations" / "versions"
    sources = [one.read_text() for one in versions.iterdir() if one.name.endswith(".py")]
    imported = {
        name
        for source in sources
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for name in [getattr(statement, "module", None), *(alias.name for alias in statement.names)]
        if name
    }

    assert imported
    assert [name for name in imported if name.startswith("quarterdeck")] == []
