# SPDX-License-Identifier: Apache-2.0
"""The outermost HTTP edge: which dialect is mounted where. What each is made of: `wiring.py`."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from quarterdeck.core.sites import Site
from quarterdeck.daemon import genuine_files
from quarterdeck.daemon.mounts import Below
from quarterdeck.dialects.relay import version as relay_paths
from quarterdeck.dialects.relay.dialect import RelayEdge
from quarterdeck.dialects.relay.intake import IntakeEdge
from quarterdeck.storage.database import Database
from quarterdeck.web.bodies import ROOM_BYTES, Room
from quarterdeck.web.runner import Dialect, Runner


def mount(
    dialects: Mapping[str, Dialect],
    database: Database,
    *,
    threads: int,
    site: Site | None = None,
    relay: RelayEdge | None = None,
    intake: IntakeEdge | None = None,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """One ASGI application that serves each dialect below its prefix, on one bounded set of threads.

    `relay` and `intake` answer at paths of their own, before all others, and bring their own threads.
    """
    limiter = anyio.CapacityLimiter(threads)
    room = Room(max(ROOM_BYTES, 2 * max(dialect.max_body for dialect in dialects.values())))
    here = site or Site()
    routes: list[BaseRoute] = relay_routes(relay) if relay is not None else []
    routes += genuine_files.routes(intake) if intake is not None else []
    routes += [
        Below(
            prefix,
            app=Runner(grammar=dialect, database=database, prefix=prefix, threads=limiter, room=room, site=here),
        )
        for prefix, dialect in dialects.items()
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def relay_routes(relay: RelayEdge) -> list[BaseRoute]:
    """Where the relay dialect answers."""
    mounts = [Below(path, app=relay) for path in relay_paths.MOUNTS]
    return [*mounts, *(Route(path, endpoint=relay) for path in relay_paths.ROUTES)]
