# SPDX-License-Identifier: Apache-2.0
"""The Rudder dialect on a database of its own, with one token per degree of access.

The database is copied from one that a worker fills once: first objects, technique library, tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient
from tests.postgres import database_from

from quarterdeck.core.accounts import SYSTEM, Access, Account
from quarterdeck.core.sites import Site
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.services import accounts, initial, techniques
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

#: By a token's name; each may do what its degree of access or its roles say.
Roles = Mapping[str, tuple[Access | None, frozenset[str]]]

ROLES: Roles = {
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

    def unit_of_work(self, account: Account = SYSTEM) -> AbstractContextManager[Context]:
        """A committed look behind the scenes."""
        return looking(self.database, account)


@contextmanager
def looking(database: Database, account: Account = SYSTEM, site: Site | None = None) -> Iterator[Context]:
    """A look behind the scenes, committed at its end."""
    with database.unit_of_work(Provenance(actor="tests")) as store:
        yield Context(account=account, store=store, site=site or Site())
        store.commit()


@contextmanager
def filled(
    server: str, template: str, name: str, some: Roles, fill: Callable[[Context], None], secret_key: bytes | None = None
) -> Iterator[Filled]:
    """A database to copy: tokens, and what `fill` puts there."""
    with database_from(server, template, name) as url:
        database = Database(url, pool_size=1, secret_key=secret_key)
        tokens = {"nobody": ""}
        with looking(database) as ctx:
            fill(ctx)
            for one, (access, roles) in some.items():
                tokens[one] = accounts.create_token(ctx, one, access=access, roles=roles, expires_at=None)[1]
        database.close()
        yield Filled(server, make_url(url).database or "", tokens)


def _first_start(ctx: Context) -> None:
    initial.ensure(ctx, hostname="server.example.com")
    techniques.reload(ctx)


@pytest.fixture(scope="session")
def filled_database(postgres_server: str, postgres_template: str) -> Iterator[Filled]:
    """A database with what a server has after its first start."""
    with filled(postgres_server, postgres_template, "filled", ROLES, _first_start) as made:
        yield made


@pytest.fixture
def served(filled_database: Filled) -> Iterator[Served]:
    with database_from(filled_database.server, filled_database.name, "served") as url:
        database = Database(url, pool_size=4)
        app = mount({"/rudder/api": RudderDialect()}, database, threads=4)
        with TestClient(app, base_url="https://server.example.com", raise_server_exceptions=False) as client:
            yield Served(client, filled_database.tokens, database)
        database.close()
