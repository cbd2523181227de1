# SPDX-License-Identifier: Apache-2.0
"""The local administrator: whoever may read the data directory acts with every right, through the same services.

Here are the database of a data directory, whether the server runs or not, and the unit of work on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.errors import Conflict, NotFound
from quarterdeck.daemon import tls
from quarterdeck.daemon.config import Config
from quarterdeck.services.context import Context
from quarterdeck.storage import embedded, migrate
from quarterdeck.storage.database import Database, Provenance


@contextlib.contextmanager
def database_url(config: Config) -> Iterator[str]:
    """The database of this server: the configured one, or the embedded one, attached to or started for the block."""
    if config.database_url:
        yield config.database_url
        return
    if not embedded.exists(config.data):
        raise NotFound(
            f"There is no server in {config.data} yet: run `quarterdeckd serve --data-dir {config.data}` first, or "
            "name the right directory with --data-dir."
        )
    with embedded.running(config.data) as url:
        yield url


@contextlib.contextmanager
def unit_of_work(url: str, reason: str, secret_key: bytes | None = None) -> Iterator[Context]:
    """A context with every right on the database of `url`; commits when the block ends well."""
    if not migrate.is_current(url):
        raise Conflict("The database has the schema of an older version: run `quarterdeckd migrate` first.")
    database = Database(url, pool_size=1, secret_key=secret_key)
    try:
        with database.unit_of_work(Provenance(actor="quarterdeckd", reason=reason)) as store:
            ctx = Context(account=SYSTEM, store=store)
            yield ctx
            if ctx.events:
                from quarterdeck.services import reactions  # deferred: it loads nearly all services

                reactions.follow(ctx)
            store.commit()
    finally:
        database.close()


@contextlib.contextmanager
def acting(config: Config, reason: str) -> Iterator[Context]:
    """`unit_of_work` on `database_url`: what a command needs."""
    with database_url(config) as url, unit_of_work(url, reason, tls.secret(config.data)) as ctx:
        yield ctx
