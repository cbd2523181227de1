# SPDX-License-Identifier: Apache-2.0
"""Which parts a worker process is made of; no logic. Nothing of HTTP is loaded here: the worker stays small."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from quarterdeck.core.ids import ROOT
from quarterdeck.core.sites import Site
from quarterdeck.daemon import paths, sites, tls
from quarterdeck.daemon.config import Config
from quarterdeck.engine import executions, intake, run_logs, scheduler, tasks
from quarterdeck.engine.agents import Agents
from quarterdeck.engine.executions import Executions
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import node_commands, policy_runs
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import FAILED
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.links import Signer
from quarterdeck.relaying.policy_runs import PolicyRuns
from quarterdeck.services.executions import RUN_TASK
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database

log = logging.getLogger(__name__)

#: Tasks that one worker process runs at the same time; generation brings its own processes.
WORKER_THREADS = 4
LOOKUP_THREADS = 32
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing is bound


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
        **_ways_to_agents(config),
    )


class _Ways(TypedDict):
    agents: Agents
    policy_runs: PolicyRuns


def _ways_to_agents(config: Config) -> _Ways:
    """The ways to nodes' agents: over the API process of this server, which they and relays wait at."""
    kept = tls.files(config.data)
    key = SigningKey(kept.policy_key.read_bytes())
    host, port = config.address
    host = _LOOPBACK.get(host, host)  # who listens everywhere does so here
    shown = f"[{host}]" if ":" in host else host
    pin = tls.spki_pin(kept.server_certificate.read_bytes()) if config.tls else ""
    url = f"{'https' if config.tls else 'http'}://{shown}:{port}"
    signer = Signer(node=ROOT, key=key)
    return {
        "agents": Agents(node_commands.own(url, pin, signer), key),
        "policy_runs": policy_runs.own(url, pin, signer),
    }


@asynccontextmanager
async def draining(config: Config) -> AsyncIterator[None]:
    """Reports go into the spool and from there into the database meanwhile, on two threads of their own."""
    stop, database = threading.Event(), Database(config.database_url, pool_size=1)
    spool, directory = paths.report_spool(config), paths.reports_directory(config)
    counters = Counters(paths.counters_file(config))
    threads = [
        threading.Thread(
            target=intake.run,
            args=(database, spool, stop),
            kwargs={
                "keep_raw": config.reports.keep_raw,
                "failed": FailedFiles(directory / FAILED),
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
