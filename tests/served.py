# SPDX-License-Identifier: Apache-2.0
"""A whole application on a database of its own, with one token per degree of access."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from starlette.testclient import TestClient

from quarterdeck.core.accounts import SYSTEM, Access
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
class Served:
    client: httpx.Client
    tokens: dict[str, str]
    database: Database


@pytest.fixture
def served(fresh_postgres_url: str) -> Iterator[Served]:
    database = Database(fresh_postgres_url, pool_size=4)
    tokens = {"nobody": ""}
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=SYSTEM, store=store)
        initial.ensure(ctx, hostname="server.example.com")
        techniques.reload(ctx)
        for name, (access, roles) in ROLES.items():
            tokens[name] = accounts.create_token(ctx, name, access=access, roles=roles, expires_at=None)[1]
        store.commit()
    app = mount({"/rudder/api": RudderDialect()}, database, threads=4)
    with TestClient(app, base_url="https://server.example.com") as client:
        yield Served(client, tokens, database)
    database.close()
