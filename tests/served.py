# SPDX-License-Identifier: Apache-2.0
"""The Rudder dialect on a database of its own, with one token per degree of access.

The database is copied from one that a worker fills once: first objects, technique library, tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient
from tests.postgres import database_from

from quarterdeck.core.accounts import SYSTEM, Access, Account
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.services import accounts, initial, techniques
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

ROLES: dict[str, tuple[Access | None, frozenset[str]]] = {
    "read": (Access.READ, frozenset()),
    "write": (Access.WRITE, frozenset()),
    "admin": (None, frozenset({"admin"})),
}


@dataclass(frozen=True)
class Filled:
    """A database to copy. `tokens` are by degree of access; that of `nobody` is empty."""

    server: str
    name: str
    tokens: dict[str, str]


@dataclass(frozen=True)
class Served:
    client: httpx.Client
    tokens: dict[str, str]
    database: Database

    @contextmanager
    def unit_of_work(self, account: Account = SYSTEM) -> Iterator[Context]:
        """A committed look behind the scenes."""
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            yield Context(account=account, store=store)
            store.commit()


@pytest.fixture(scope="session")
def filled_database(postgres_server: str, postgres_template: str) -> Iterator[Filled]:
    """A database with what a server has after its first start."""
    with database_from(postgres_server, postgres_template, "filled") as url:
        database = Database(url, pool_size=1)
        tokens = {"nobody": ""}
        with database.unit_of_work(Provenance(actor="tests")) as store:
            ctx = Context(account=SYSTEM, store=store)
            initial.ensure(ctx, hostname="server.example.com")
            techniques.reload(ctx)
            for name, (access, roles) in ROLES.items():
                tokens[name] = accounts.create_token(ctx, name, access=access, roles=roles, expires_at=None)[1]
            store.commit()
        database.close()
        yield Filled(postgres_server, make_url(url).database or "", tokens)


@pytest.fixture
def served(filled_database: Filled) -> Iterator[Served]:
    with database_from(filled_database.server, filled_database.name, "served") as url:
        database = Database(url, pool_size=4)
        app = mount({"/rudder/api": RudderDialect()}, database, threads=4)
        with TestClient(app, base_url="https://server.example.com", raise_server_exceptions=False) as client:
            yield Served(client, filled_database.tokens, database)
        database.close()
