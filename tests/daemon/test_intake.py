# SPDX-License-Identifier: Apache-2.0
"""Reports of genuine agents from end to end: put over HTTP or dropped as files, kept, counted, set aside."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.agents import Agent, call, give_policy, item
from tests.common import run_logs

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.nodes import AgentKey, KeyStatus
from quarterdeck.daemon import config, tls, wiring, worker_wiring
from quarterdeck.daemon.config import Config
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
STRANGER = "37817c4d-fbf7-4850-a985-50021f4e8f41"
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Server:
    """A server's parts in this process, and one node on which a genuine agent runs."""

    config: Config
    database: Database

    @property
    def reports(self) -> Path:
        return self.config.data / "reports"

    @property
    def failed(self) -> FailedFiles:
        return FailedFiles(self.reports / "failed")

    def drop(self, name: str, content: bytes) -> None:
        """As web servers do: under a passing name first."""
        self.reports.joinpath("incoming").mkdir(parents=True, exist_ok=True)
        temporary = self.reports / "incoming" / f".{name[:100]}.tmp"
        temporary.write_bytes(content)
        temporary.rename(self.reports / "incoming" / name)

    def waiting(self) -> list[str]:
        return sorted(path.name for path in (self.reports / "incoming").iterdir())

    def count(self, table: str = "runs") -> int:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            return int(store.connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    @contextmanager
    def draining(self) -> Iterator[None]:
        """What a worker does with reports, meanwhile."""
        ready, done = threading.Event(), threading.Event()

        async def drain() -> None:
            async with worker_wiring.draining(self.config):
                ready.set()
                await asyncio.to_thread(done.wait)

        thread = threading.Thread(target=asyncio.run, args=(drain(),))
        thread.start()
        assert ready.wait(20)
        try:
            yield
        finally:
            done.set()
            thread.join()


@pytest.fixture
def server(tmp_path: Path, fresh_postgres_url: str) -> Iterator[Server]:
    tls.initialise(tmp_path, "https://localhost:8443", datetime.now(UTC))
    told = {
        "data_dir": str(tmp_path),
        "database_url": fresh_postgres_url,
        "public_url": "https://localhost:8443",
        "relay.report_password": "secret",
        "relay.allowed_networks": ["192.0.2.0/24"],
    }
    database = Database(fresh_postgres_url, pool_size=2)
    made = Server(config.load(told, {}), database)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=SYSTEM, store=store)
        node = Agent(node=NODE).as_node()
        ctx.store.nodes.add(replace(node, key=AgentKey(pem=run_logs.certificate(NODE), status=KeyStatus.CERTIFIED)))
        give_policy(ctx, [NODE], [item(call(1, component="File present"))])
        store.commit()
    yield made
    database.close()


def soon(what: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def log(number: int = 0, node: str = NODE) -> tuple[str, bytes]:
    """Name and content of a run's file."""
    start = NOW - timedelta(minutes=5 * number)
    text = run_logs.run(run_logs.report(node=node, start=start), node=node, start=start)
    return run_logs.file_name(node, start, ".log.gz"), gzip.compress(run_logs.signed(text, node), mtime=0)


def test_statement_44_a_file_that_is_dropped_twice_is_a_run_that_is_kept_once(server: Server) -> None:
    name, content = log()
    with server.draining():
        server.drop(name, content)
        soon(lambda: server.count() == 1)
        server.drop(name, content)
        soon(lambda: server.waiting() == [])

    assert server.count() == 1
    assert server.failed.names() == []


def test_statement_43_what_came_while_nobody_was_there_is_taken_at_the_start(server: Server) -> None:
    for number in range(3):
        server.drop(*log(number))
        os.utime(server.reports / "incoming" / log(number)[0], (time.time() - 40,) * 2)
    server.drop("junk.txt", b"junk")

    with server.draining():
        soon(lambda: server.count() == 3)

    assert server.waiting() == ["junk.txt"]


def test_statement_46_what_cannot_be_taken_is_set_aside_counted_and_blocks_nobody(server: Server) -> None:
    broken, stranger, good = run_logs.file_name(NODE, ending=".log.gz"), log(node=STRANGER), log()
    server.drop(broken, b"broken")
    server.drop(*stranger)
    server.drop("bad name.log", b"x")
    server.drop(*good)

    with server.draining():
        soon(lambda: server.count() == 1 and len(server.failed.names()) == 3)

    assert server.failed.names() == sorted([broken, stranger[0], "bad name.log"])
    with TestClient(wiring.application(server.config), client=("127.0.0.1", 4711)) as client:
        metrics = client.get("/metrics").text
    for status, number in (("ok", 1), ("error", 1), ("invalid", 1), ("forward_ok", 0), ("forward_error", 0)):
        assert f'rudder_relayd_reports_total{{status="{status}"}} {number}.0' in metrics
    assert "quarterdeck_quarantined_total 3.0" in metrics


def test_a_report_that_is_put_over_http_is_kept(server: Server) -> None:
    name, content = log()
    with TestClient(wiring.application(server.config), client=("192.0.2.7", 4711)) as client, server.draining():
        refused = client.put(f"/reports/{name}", content=content, auth=("rudder", "wrong"))
        first = client.put(f"/reports/{name}", content=content, auth=("rudder", "secret"))
        soon(lambda: server.count() == 1)

    assert (refused.status_code, first.status_code) == (401, 201)


def test_a_file_set_aside_too_early_is_kept_when_its_node_is_known(server: Server) -> None:
    name, content = log(node=STRANGER)
    with server.draining():
        server.drop(name, content)
        soon(lambda: server.failed.names() == [name])
        with server.database.unit_of_work(Provenance(actor="tests")) as store:
            node = Agent(node=STRANGER, hostname="late.example.com").as_node()
            store.nodes.add(replace(node, key=AgentKey(pem=run_logs.certificate(STRANGER), status=KeyStatus.CERTIFIED)))
            store.commit()

        server.failed.release(name, server.reports / "incoming" / name)
        soon(lambda: server.count() == 1)
