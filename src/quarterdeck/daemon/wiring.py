# SPDX-License-Identifier: Apache-2.0
"""Which parts the API process is made of; no logic. The worker's are in `worker_wiring.py`, which loads no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from starlette.applications import Starlette

from quarterdeck.daemon import genuine_files, paths, relay_edges, relays, sites, tls, worker_wiring
from quarterdeck.daemon.config import Config
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.native.dialect import PREFIX as NATIVE_PREFIX
from quarterdeck.dialects.native.dialect import NativeDialect
from quarterdeck.dialects.native.parts import Parts as NativeParts
from quarterdeck.dialects.relay.dialect import RelayEdge
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.fragments import FragmentCache
from quarterdeck.dialects.rudder.parts import Parts as RudderParts
from quarterdeck.dialects.rundeck.dialect import PREFIX as RUNDECK_PREFIX
from quarterdeck.dialects.rundeck.dialect import RundeckDialect
from quarterdeck.dialects.rundeck.parts import Parts as RundeckParts
from quarterdeck.engine import tasks
from quarterdeck.engine.fetching import Fetcher
from quarterdeck.engine.following import LOOKS, Follower
from quarterdeck.engine.inventory_watcher import InventoryWatcher
from quarterdeck.engine.log_pages import LogPages
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database
from quarterdeck.web.runner import Dialect

RUDDER_PREFIX = "/rudder/api"


def application(config: Config, *, reload: Callable[[], None] | None = None) -> Starlette:
    """Everything that answers over HTTP. `config.database_url` names the database, the embedded one too.

    `reload` has the settings read anew that may change.
    """
    kept = tls.files(config.data)
    database = Database(config.database_url, pool_size=config.threads, secret_key=tls.secret(config.data))
    site = sites.site(config)
    followed = Database(config.database_url, pool_size=2 * LOOKS)
    follower = Follower(followed, site)
    waiting_commands = WaitingCommands()
    native = _native(config, SigningKey(kept.policy_key.read_bytes()), follower, waiting_commands)
    relay = relays.root(
        config, database, native.signing_key, native.addresses, native.waiting_agents, waiting_commands, reload
    )
    remote_runs = relay.parts.remote_runs
    assert remote_runs is not None
    dialects: dict[str, Dialect] = {
        RUDDER_PREFIX: RudderDialect(
            max_body=config.limits.body_bytes,
            parts=RudderParts(
                fragments=FragmentCache(config.cache.node_bytes),
                watcher=_watcher(config, database),
                agents=remote_runs,
            ),
        ),
        NATIVE_PREFIX: NativeDialect(native, max_body=config.limits.body_bytes),
        # Last: it takes every path that nobody else has.
        RUNDECK_PREFIX: RundeckDialect(
            RundeckParts(
                max_version=config.rundeck.max_api_version,
                fetch=Fetcher(site.allowed_paths, site.allowed_urls).get,
                output=LogPages(followed),
            ),
            max_body=config.limits.body_bytes,
        ),
    }

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(followed.close)
            await stack.enter_async_context(follower.listening())
            await stack.enter_async_context(_beside(config, relay, remote_runs))
            yield

    intake_edge = genuine_files.edge(config, relay.parts.door)
    served = mount(
        dialects, database, threads=config.threads, site=site, relay=relay, intake=intake_edge, lifespan=lifespan
    )

    def let_go() -> None:
        remote_runs.agents.let_go()
        waiting_commands.let_go()

    served.state.let_go = let_go
    return served


@asynccontextmanager
async def _beside(config: Config, relay: RelayEdge, remote_runs: RemoteRuns) -> AsyncIterator[None]:
    """What goes on meanwhile that no request asks for."""
    async with AsyncExitStack() as stack:
        # The first request that defers a task should not wait for the library.
        loading = asyncio.create_task(asyncio.to_thread(queue.load))
        stack.callback(loading.cancel)
        await stack.enter_async_context(remote_runs.working())
        if not config.workers.count:
            # The spool is on this machine, so without a worker here nobody else could drain it.
            await stack.enter_async_context(worker_wiring.draining(config))
        await stack.enter_async_context(relay_edges.tidying(relay.parts.files, config.relay.cleanup_seconds))
        yield


def _native(config: Config, key: SigningKey, follower: Follower, commands: WaitingCommands) -> NativeParts:
    spool = Spool(paths.report_spool(config))
    return NativeParts(
        signing_key=key,
        spool=spool,
        quarantine=relays.quarantine(config, spool),
        started_at=datetime.now(UTC),
        facts=_facts(config),
        follow=follower.follow,
        folder=relays.folder_tree(config),
        share=relays.share_tree(config),
        addresses=relays.addresses(config),
        waiting_agents=WaitingAgents(),
        waiting_commands=commands,
    )


def _watcher(config: Config, database: Database) -> InventoryWatcher:
    """Looks for genuine agents' inventories from the start."""
    units = tasks.Worker(database=database, processes=1)
    watcher = InventoryWatcher(
        config.data / "inventories",
        lambda: units.unit_of_work("inventory watcher"),
        counters=Counters(paths.counters_file(config)),
    )
    watcher.start()
    return watcher


def _facts(config: Config) -> dict[str, str]:
    facts = {"publicUrl": config.public_url}
    if config.tls:
        facts["pin"] = tls.spki_pin(tls.files(config.data).server_certificate.read_bytes())
    return facts
