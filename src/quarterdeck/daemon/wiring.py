# SPDX-License-Identifier: Apache-2.0
"""Which parts a process is made of: the API process, and the worker. One function per process, no logic."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette

from quarterdeck.core.sites import Site
from quarterdeck.daemon import relays, sites, tls
from quarterdeck.daemon.config import Config
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.native.dialect import PREFIX as NATIVE_PREFIX
from quarterdeck.dialects.native.dialect import NativeDialect
from quarterdeck.dialects.native.parts import Parts as NativeParts
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.fragments import FragmentCache
from quarterdeck.dialects.rudder.parts import Parts as RudderParts
from quarterdeck.dialects.rundeck.dialect import PREFIX as RUNDECK_PREFIX
from quarterdeck.dialects.rundeck.dialect import RundeckDialect
from quarterdeck.dialects.rundeck.parts import Parts as RundeckParts
from quarterdeck.engine import executions, intake, run_logs, scheduler, tasks
from quarterdeck.engine.executions import Executions
from quarterdeck.engine.fetching import Fetcher
from quarterdeck.engine.following import LOOKS, Follower
from quarterdeck.engine.inventory_watcher import InventoryWatcher
from quarterdeck.engine.log_pages import LogPages
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.services.executions import RUN_TASK
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database
from quarterdeck.web.runner import Dialect

log = logging.getLogger(__name__)

RUDDER_PREFIX = "/rudder/api"
#: Tasks that one worker process runs at the same time; generation brings its own processes.
WORKER_THREADS = 4
LOOKUP_THREADS = 32


def application(config: Config) -> Starlette:
    """Everything that answers over HTTP. `config.database_url` names the database, the embedded one too."""
    kept = tls.files(config.data)
    database = Database(config.database_url, pool_size=config.threads, secret_key=tls.secret(config.data))
    site = sites.site(config)
    followed = Database(config.database_url, pool_size=2 * LOOKS)
    follower = Follower(followed, site)
    spool = Spool(report_spool(config))
    native = NativeParts(
        signing_key=SigningKey(kept.policy_key.read_bytes()),
        spool=spool,
        quarantine=relays.quarantine(config, spool),
        started_at=datetime.now(UTC),
        facts=_facts(config),
        follow=follower.follow,
        folder=relays.folder_tree(config),
        addresses=relays.addresses(config),
        waiting_agents=WaitingAgents(),
    )
    relay = relays.root(config, database, native.signing_key, native.addresses, native.waiting_agents)
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
                fetch=Fetcher(site.allowed_paths).get,
                output=LogPages(followed),
            ),
            max_body=config.limits.body_bytes,
        ),
    }

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(followed.close)
            # The first request that defers a task should not wait for the library.
            loading = asyncio.create_task(asyncio.to_thread(queue.load))
            stack.callback(loading.cancel)
            await stack.enter_async_context(follower.listening())
            await stack.enter_async_context(remote_runs.working())
            if not config.workers.count:
                # The spool is on this machine, so without a worker here nobody else could drain it.
                await stack.enter_async_context(draining(config))
            await stack.enter_async_context(relays.tidying(relay.parts.files, config.relay.cleanup_seconds))
            yield

    intake_edge = relays.intake(config, relay.parts.door)
    return mount(
        dialects, database, threads=config.threads, site=site, relay=relay, intake=intake_edge, lifespan=lifespan
    )


def _watcher(config: Config, database: Database) -> InventoryWatcher:
    """Looks for genuine agents' inventories from the start."""
    units = tasks.Worker(database=database, processes=1)
    watcher = InventoryWatcher(
        config.data / "inventories",
        lambda: units.unit_of_work("inventory watcher"),
        counters=Counters(relays.counters_file(config)),
    )
    watcher.start()
    return watcher


def _facts(config: Config) -> dict[str, str]:
    facts = {"publicUrl": config.public_url}
    if config.tls:
        facts["pin"] = tls.spki_pin(tls.files(config.data).server_certificate.read_bytes())
    return facts


async def worker(config: Config) -> None:
    """Everything that happens without a request, until cancelled."""
    # Host names are looked up on these threads, and dead name servers must not hold up other nodes.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup"))
    stop = asyncio.Event()
    cpu = config.workers.cpu or os.cpu_count() or 1
    size = tasks.connections(WORKER_THREADS) + executions.THREADS + scheduler.THREADS
    database = Database(config.database_url, pool_size=size, secret_key=tls.secret(config.data))
    site = sites.site(config)
    log.info("schedules that name no time zone follow %s", site.zone.key)
    units = tasks.Worker(database=database, processes=1, site=site)
    running_here = _executions(config, database, site)
    more = {RUN_TASK: queue.Entry(handler=lambda task: running_here.take(task.payload["execution"]))}
    async with draining(config):
        running = asyncio.gather(
            tasks.run_worker(database, cpu=cpu, threads=WORKER_THREADS, stop=stop, site=site, more=more),
            running_here.run(stop),
            scheduler.run(
                lambda: units.unit_of_work("scheduler"),
                running_here.schedules_changed,
                stop,
                worker=lambda: running_here.worker,
            ),
        )
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await running
        finally:
            database.close()


def _executions(config: Config, database: Database, site: Site) -> Executions:
    """What this worker runs."""
    worker = tasks.Worker(database=database, processes=1, site=site)
    return Executions(
        lambda: worker.unit_of_work("executions"),
        site,
        url=config.database_url,
        most=config.executions.at_once,
        known_hosts=[Path(path) for path in config.ssh.known_hosts],
    )


@asynccontextmanager
async def draining(config: Config) -> AsyncIterator[None]:
    """Reports go into the spool and from there into the database meanwhile, on two threads of their own."""
    stop, database = threading.Event(), Database(config.database_url, pool_size=1)
    spool, directory = report_spool(config), relays.reports_directory(config)
    counters = Counters(relays.counters_file(config))
    threads = [
        threading.Thread(
            target=intake.run,
            args=(database, spool, stop),
            kwargs={
                "keep_raw": config.reports.keep_raw,
                "failed": FailedFiles(directory / run_logs.FAILED),
                "counters": counters,
            },
            name="intake",
        ),
        threading.Thread(
            target=run_logs.run,
            args=(directory, spool, stop),
            kwargs={"retention_seconds": config.relay.retention_seconds, "counters": counters},
            name="run logs",
        ),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        database.close()


def report_spool(config: Config) -> Path:
    """Where reports wait between their acknowledgement and the database."""
    return relays.report_spool(config)
