# SPDX-License-Identifier: Apache-2.0
"""The RunDeck dialect on a database of its own: a token per degree of access, users who log in, two projects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import psycopg
import pytest
from starlette.testclient import TestClient
from tests import served
from tests.postgres import database_from
from tests.served import Filled, Roles

from quarterdeck.core.access_policies import AccessPolicy
from quarterdeck.core.accounts import SYSTEM, Access, Account
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource
from quarterdeck.core.sites import Site
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rundeck.dialect import PREFIX, RundeckDialect
from quarterdeck.dialects.rundeck.parts import Parts
from quarterdeck.dialects.rundeck.version import LATEST
from quarterdeck.engine.log_pages import LogPages
from quarterdeck.services import accounts, projects
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database
from quarterdeck.storage.workers import LOCK_CLASS
from quarterdeck.web.sessions import LoginThrottle

BASE = "https://runbook.example.com"
SECRET_KEY = b"k" * 32
PASSWORD = "correct horse"
TOKENS: Roles = {
    "read": (Access.READ, frozenset()),
    "write": (Access.WRITE, frozenset()),
    "admin": (None, frozenset({"admin"})),
    "operator": (None, frozenset({"operator"})),
    "none": (None, frozenset({"no_rights"})),
}
#: Three nodes beside the server's own.
NODES = (
    Resource("db1", hostname="db1.example.com", username="deploy", tags=frozenset({"db"}), os_family="unix"),
    Resource("web1", hostname="web1.example.com", username="deploy", tags=frozenset({"web", "blue"}), os_family="unix"),
    Resource("web2", hostname="web2.example.com", username="deploy", tags=frozenset({"web"}), os_family="windows"),
)


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Policies:
    """The operator's access policies, as a test sets them."""

    some: tuple[AccessPolicy, ...] = ()

    def __call__(self) -> tuple[AccessPolicy, ...]:
        return self.some


@dataclass
class Documents:
    """What is at which address."""

    by_address: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, address: str) -> bytes:
        if address not in self.by_address:
            raise Invalid("Unable to retrieve content: result code: 404 Not Found")
        return self.by_address[address]


@dataclass(frozen=True)
class Rundeck:
    client: httpx.Client
    tokens: dict[str, str]
    database: Database
    clock: Clock
    policies: Policies
    documents: Documents
    site: Site
    #: closed after the test
    kept: ExitStack

    def begin_worker(self) -> None:
        """Register a worker that lives, and begins nothing, until the test ends."""
        with self.unit_of_work() as ctx:
            worker = ctx.store.workers.add("tests", 1)
        connection = self.kept.enter_context(psycopg.connect(self.database.url, autocommit=True))
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, worker])

    def unit_of_work(self, account: Account = SYSTEM) -> AbstractContextManager[Context]:
        """A committed look behind the scenes."""
        return served.looking(self.database, account, self.site)

    def ask(self, method: str, path: str, who: str = "admin", **arguments: Any) -> httpx.Response:
        headers = {"X-RunDeck-Auth-Token": self.tokens[who]} if who else {}
        return self.client.request(method, path, headers=headers, follow_redirects=False, **arguments)


def _fill(ctx: Context) -> None:
    accounts.create_user(ctx, "alice", PASSWORD, frozenset({"admin"}))
    accounts.create_user(ctx, "bob", PASSWORD, frozenset({"read_only"}))
    projects.create(ctx, "test", description="The first", properties={"project.resources.url": f"{BASE}/r.xml"})
    projects.create(ctx, "other")
    ctx.store.resources.replace("test", NODES)


@pytest.fixture(scope="session")
def filled_rundeck(postgres_server: str, postgres_template: str) -> Iterator[Filled]:
    """Accounts and projects, as a worker needs them for each test."""
    with served.filled(postgres_server, postgres_template, "filled_rundeck", TOKENS, _fill, SECRET_KEY) as made:
        yield made


@pytest.fixture
def max_version() -> int:
    """The newest version of the API that is switched on; a test may ask for another."""
    return LATEST


@pytest.fixture
def rundeck(filled_rundeck: Filled, max_version: int) -> Iterator[Rundeck]:
    clock, policies, documents = Clock(), Policies(), Documents()
    node = Resource("server", hostname="server.example.com", description="Rundeck server node", os_family="unix")
    site = replace(Site(base_url=BASE, node=node), policies=policies)
    with database_from(filled_rundeck.server, filled_rundeck.name, "rundeck") as url:
        database = Database(url, pool_size=4, secret_key=SECRET_KEY)
        parts = Parts(
            max_version=max_version, throttle=LoginThrottle(clock), fetch=documents, output=LogPages(database)
        )
        app = mount({PREFIX: RundeckDialect(parts)}, database, threads=4, site=site)
        client = TestClient(app, base_url=BASE, raise_server_exceptions=False, follow_redirects=False)
        with client, ExitStack() as kept:
            yield Rundeck(client, filled_rundeck.tokens, database, clock, policies, documents, site, kept)
        database.close()
