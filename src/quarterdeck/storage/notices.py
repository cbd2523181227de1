# SPDX-License-Identifier: Apache-2.0
"""Short messages between processes, and the sign that a worker lives: one connection of each process for both.

A notice is sent when the unit of work commits and reaches whoever listens at that moment; it only saves waiting, so
everybody who listens also looks from time to time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy
from sqlalchemy import make_url

from quarterdeck.storage.driver import NETWORK
from quarterdeck.storage.workers import LOCK_CLASS

if TYPE_CHECKING:
    from quarterdeck.core.connections import Address
    from quarterdeck.storage.database import Store

log = logging.getLogger(__name__)

_CHANNEL = "quarterdeck"
_RECONNECT_SECONDS = 1.0


def execution_changed(store: Store, *execution_ids: int) -> None:
    """Tell everybody that something about executions is new, when this unit of work commits."""
    _send(store, *(f"execution {one}" for one in execution_ids))


def execution_to_stop(store: Store, execution_id: int) -> None:
    """Tell its worker that an execution is to end, or is another's, when this unit of work commits."""
    _send(store, f"stop {execution_id}")


def host_key_forgotten(store: Store, address: Address) -> None:
    """Tell the workers that a key of a host is trusted no more, when this unit of work commits."""
    _send(store, f"host-key {address.port} {address.host}")


def schedules_changed(store: Store) -> None:
    """Tell the workers that schedules are due at other times, when this unit of work commits."""
    _send(store, "schedules")


def _send(store: Store, *texts: str) -> None:
    if texts:
        store.run(_NOTIFY, {"channel": _CHANNEL, "texts": list(texts)})


_NOTIFY = sqlalchemy.text("SELECT count(pg_notify(:channel, t)) FROM unnest(CAST(:texts AS text[])) AS t")


async def listen(url: str, *, worker: int | None = None, lost: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """Notices as they come, for ever; "" whenever the connection is new and something may have been missed.

    With `worker` the connection holds that worker's advisory lock. A lost database is waited for; `lost` is called
    whenever the connection, and with it the lock, is there no longer.
    """
    while True:
        try:
            async with _connected(url) as connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                if worker is not None:
                    await connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, worker])
                yield ""
                async for notice in connection.notifies():
                    yield notice.payload
        except psycopg.Error as error:
            log.warning("the database is out of reach; trying again: %s", error)
        finally:
            lost()
        await asyncio.sleep(_RECONNECT_SECONDS)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    target = make_url(url).set(drivername="postgresql")
    plain = target.render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(
        plain, autocommit=True, application_name="quarterdeck listener", **NETWORK
    ) as connection:
        # The server's side too: a worker on a lost host must not seem to live for hours.
        await connection.execute(
            "SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false), "
            "set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '11000', false)"
        )
        yield connection
