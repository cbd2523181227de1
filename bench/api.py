# SPDX-License-Identifier: Apache-2.0
"""The API as clients feel it: one node, all nodes, other requests meanwhile, slow readers; one API process.

    python bench/api.py [--nodes 10000] [--seconds 8] [--clients 16] [--slow 200] [--json]

A real PostgreSQL with fsync, uvicorn with h11, no TLS, clients of this file in a process of their own. The baseline
does the same token check, query and transaction with FastAPI, SQLAlchemy Core and a Pydantic answer; it needs
`fastapi uvicorn sqlalchemy psycopg[binary]` in $BENCH_ROOT/venv-fastapi (default /tmp/bench) and is left out without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import psycopg
import sqlalchemy

from quarterdeck.core import accounts
from quarterdeck.core.accounts import Access
from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Inventory, Machine, OperatingSystem
from quarterdeck.core.nodes import Node
from quarterdeck.core.properties import Property
from quarterdeck.services import accounts as account_deeds
from quarterdeck.services import initial
from quarterdeck.services.context import Context
from quarterdeck.storage import embedded, migrate
from quarterdeck.storage.database import Database, Provenance

SOURCES = Path(__file__).resolve().parent.parent / "src"
BASELINE_PYTHON = Path(os.environ.get("BENCH_ROOT", "/tmp/bench")) / "venv-fastapi" / "bin" / "python"
ONE = "00000010-0000-4000-8000-000000000010"
PREFIX = "/rudder/api/latest"
#: Each server may use so many connections and threads.
POOL = 16

_NODES = """
INSERT INTO nodes SELECT (jsonb_populate_record(pattern, jsonb_build_object(
    'id', lpad(to_hex(number), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(number), 12, '0'),
    'hostname', 'node' || number || '.example.com',
    'version', nextval('node_versions')))).*
FROM nodes AS pattern, generate_series(1, :count) AS number WHERE pattern.id = 'pattern'
"""
_RUNS = "INSERT INTO node_status (node_id, last_run) SELECT id, now() - interval '3 minutes' FROM nodes"

_OURS = """
import gc, sys
sys.path.insert(0, sys.argv[3])
import uvicorn
from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.storage.database import Database
pool = int(sys.argv[4])
app = mount({"/rudder/api": RudderDialect()}, Database(sys.argv[1], pool_size=pool), threads=pool)
sys.setswitchinterval(0.001)  # as daemon/child.py does
gc.freeze()
uvicorn.run(app, port=int(sys.argv[2]), http="h11", ws="none", log_level="warning", access_log=False)
"""
_BASELINE = """
import hashlib, sys
from typing import Annotated, Any
import sqlalchemy, uvicorn
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import JSONB

engine = sqlalchemy.create_engine(sys.argv[1].replace("postgresql://", "postgresql+psycopg://"),
                                  pool_size=int(sys.argv[3]), max_overflow=0)
metadata = sqlalchemy.MetaData()
tables = {name: sqlalchemy.Table(name, metadata, autoload_with=engine) for name in ("accounts", "nodes", "node_status")}
accounts, nodes, status = tables["accounts"], tables["nodes"], tables["node_status"]
columns = [column for column in nodes.c if column.name not in ("lists", "environment", "accounts", "schedule")]
query = sqlalchemy.select(*columns, status.c.last_run).outerjoin(status, status.c.node_id == nodes.c.id)


class Os(BaseModel):
    type: str
    name: str
    version: str
    fullName: str
    kernelVersion: str


class Machine(BaseModel):
    id: str
    type: str
    provider: str
    manufacturer: str
    serialNumber: str


class Property(BaseModel):
    name: str
    value: Any


class Management(BaseModel):
    name: str
    version: str
    capabilities: list[str]
    nodeKind: str


class Node(BaseModel):
    id: str
    hostname: str
    status: str
    state: str
    os: Os
    architectureDescription: str
    ram: int
    machine: Machine
    ipAddresses: list[str]
    description: str
    lastInventoryDate: str | None
    lastRunDate: str | None
    policyServerId: str
    managementTechnology: list[Management]
    properties: list[Property]
    policyMode: str
    timezone: dict[str, str]


class Nodes(BaseModel):
    nodes: list[Node]


class Answer(BaseModel):
    action: str
    id: str
    result: str
    data: Nodes


app = FastAPI()


@app.get("/rudder/api/latest/nodes/{id}")
def details(id: str, x_api_token: Annotated[str, Header()] = "") -> Answer:
    with engine.begin() as connection:
        digest = hashlib.sha256(x_api_token.encode()).digest()
        account = connection.execute(sqlalchemy.select(accounts).where(accounts.c.token_digest == digest)).first()
        if account is None or not account.enabled:
            raise HTTPException(401)
        row = connection.execute(query.where(nodes.c.id == id)).first()
    if row is None:
        raise HTTPException(404)
    print_date = lambda when: when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else None
    node = Node(
        id=row.id, hostname=row.hostname, status=row.status, state=row.state,
        os=Os(type=row.os_type, name=row.os_name, version=row.os_version, fullName=row.os_full_name,
              kernelVersion=row.os_kernel_version),
        architectureDescription=row.architecture, ram=row.ram // 1048576,
        machine=Machine(id=row.machine_id, type=row.machine_type, provider=row.machine_provider,
                        manufacturer=row.machine_manufacturer, serialNumber=row.machine_serial_number),
        ipAddresses=row.ip_addresses, description=row.description, lastInventoryDate=print_date(row.inventory_date),
        lastRunDate=print_date(row.last_run), policyServerId=row.policy_server,
        managementTechnology=[Management(name="Rudder", version=row.agent_version,
                                         capabilities=row.agent_capabilities, nodeKind=row.kind)],
        properties=row.properties, policyMode=row.mode or "default",
        timezone={"name": row.timezone_name, "offset": row.timezone_offset})
    return Answer(action="nodeDetails", id=id, result="success", data=Nodes(nodes=[node]))


uvicorn.run(app, port=int(sys.argv[2]), http=sys.argv[4], loop=sys.argv[5], log_level="warning", access_log=False)
"""


# -- the database -------------------------------------------------------------------


def pattern() -> Node:
    """A node of about 2.2 KB of JSON."""
    properties = [Property(name=f"property_{number:02d}", value=f"value {number} " + "x" * 40) for number in range(8)]
    properties.append(Property(name="network", value={"zone": "dmz", "vlans": list(range(40)), "gateway": "10.0.0.1"}))
    properties += [Property(name=f"object_{one}", value={"a": [1, 2, 3], "b": {"c": "text " * 8}}) for one in range(4)]
    return Node(
        id=NodeId("pattern"),
        hostname="pattern",
        properties=tuple(properties),
        agent_version="0.1.0",
        agent_capabilities=("cfengine", "curl", "http_reporting", "jq", "xml", "yaml"),
        inventory=Inventory(
            os=OperatingSystem(
                type="Linux",
                name="Debian",
                version="12.5",
                full_name="Debian GNU/Linux 12 (bookworm)",
                kernel_version="6.1.0-18-amd64",
            ),
            machine=Machine(
                id="ce1ff7c1-3e2b-4b7d-9a0e-5b0a9a6a5c1d",
                type="Virtual",
                provider="qemu",
                manufacturer="QEMU",
                serial_number="ece12459-2b90-49c9-ab1e-72e38f797421",
            ),
            architecture="x86_64",
            ram=8 * 1024**3,
            swap=1024**3,
            timezone_name="UTC",
            timezone_offset="+0000",
            ip_addresses=("127.0.0.1", "10.11.12.13", "fe80::5054:ff:fe49:45ac"),
            accounts=tuple(f"user{number}" for number in range(30)),
            environment={f"VARIABLE_{number}": "value" * 4 for number in range(20)},
            lists={"processes": tuple({"pid": number, "name": f"process {number}"} for number in range(80))},
        ),
    )


def fill(url: str, count: int) -> str:
    """The database with so many nodes; a token that may read."""
    migrate.upgrade(url)
    database = Database(url, pool_size=1)
    with database.unit_of_work(Provenance(actor="bench")) as store:
        ctx = Context(account=accounts.SYSTEM, store=store)
        initial.ensure(ctx, hostname="server.example.com")
        node = pattern()
        store.nodes.add(node)
        store.run(sqlalchemy.text(_NODES), {"count": count})
        store.nodes.remove(node.id)
        store.run(sqlalchemy.text(_RUNS))
        token = account_deeds.create_token(ctx, "bench", access=Access.READ, roles=frozenset(), expires_at=None)[1]
        store.commit()
    database.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return token


# -- servers --------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


@contextmanager
def serving(python: Path | str, source: str, url: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A server process: its port and its pid."""
    port = free_port()
    process = subprocess.Popen([str(python), "-c", source, url, str(port), *arguments])
    try:
        for _ in range(300):
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise SystemExit(f"The server ended with {process.returncode}.")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


# -- clients -----------------------------------------------------------------------------


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, token: str) -> tuple[float, int]:
    """One request on an open connection: seconds to the first byte of the body, and its length."""
    started = time.perf_counter()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-API-Token: {token}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode())
    lower = head.lower()
    if b"content-length:" in lower:
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        return time.perf_counter() - started, length
    first, length = 0.0, 0
    while size := int((await reader.readline()).strip() or b"0", 16):
        piece = await reader.readexactly(size + 2)
        first = first or time.perf_counter() - started
        length += len(piece) - 2
    await reader.readline()
    return first, length


async def hammer(port: int, token: str, path: str, clients: int, seconds: float) -> list[float]:
    """Latencies of as many requests as `clients` connections get answered in this time."""
    end = time.perf_counter() + seconds
    found: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            started = time.perf_counter()
            await ask(reader, writer, path, token)
            found.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def paced(port: int, token: str, path: str, seconds: float, per_second: int = 50) -> list[float]:
    """Latencies of requests sent at a steady pace, each on its own."""
    found: list[float] = []
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def one(due: float) -> None:
        reader, writer = await free.get()
        await ask(reader, writer, path, token)
        found.append(time.perf_counter() - due)  # waiting for a connection counts
        free.put_nowait((reader, writer))

    begin = time.perf_counter()
    tasks = []
    for number in range(int(seconds * per_second)):
        due = begin + number / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(max(due, time.perf_counter() - 0.001))))
    await asyncio.gather(*tasks)
    for _, writer in connections:
        writer.close()
    return found


async def listing(port: int, token: str) -> tuple[float, float, int]:
    """All nodes once: seconds to the first byte, seconds in all, bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    started = time.perf_counter()
    first, length = await ask(reader, writer, f"{PREFIX}/nodes", token)
    total = time.perf_counter() - started
    writer.close()
    return first, total, length


def list_for(port: int, token: str, seconds: float) -> int:
    """Reads all nodes again and again; in a process of its own, so as not to disturb the clients that are timed."""
    end = time.perf_counter() + seconds
    times = 0
    while time.perf_counter() < end:
        asyncio.run(listing(port, token))
        times += 1
    return times


async def slow_reader(port: int, token: str, begun: asyncio.Event, done: asyncio.Event) -> int:
    """Reads a list at a kilobyte a second; `begun` once the first byte came."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(
        connection, f"GET {PREFIX}/nodes HTTP/1.1\r\nHost: bench\r\nX-API-Token: {token}\r\n\r\n".encode()
    )
    read = 0
    while not done.is_set():
        read += len(await loop.sock_recv(connection, 1024))
        begun.set()
        await asyncio.sleep(1)
    connection.close()
    return read


# -- measurements ----------------------------------------------------------------------------


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def one_node(port: int, pid: int, token: str, options: argparse.Namespace) -> dict[str, float]:
    path = f"{PREFIX}/nodes/{ONE}"
    asyncio.run(hammer(port, token, path, options.clients, 1))
    used = processor_seconds(pid)
    found = asyncio.run(hammer(port, token, path, options.clients, options.seconds))
    used = processor_seconds(pid) - used
    return {
        "per_second": len(found) / options.seconds,
        "p50_ms": 1000 * statistics.median(found),
        "p99_ms": 1000 * quantile(found, 0.99),
        "cpu_ms": 1000 * used / len(found),
    }


def best_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The round with the most requests: the machine may be shared."""
    return max(rounds, key=lambda one: one["per_second"])


def meanwhile(port: int, token: str, seconds: float) -> tuple[list[float], int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        other.submit(list_for, port, token, 0).result()
        lists = other.submit(list_for, port, token, seconds)
        found = asyncio.run(paced(port, token, f"{PREFIX}/nodes/{ONE}", seconds))
        return found, lists.result()


async def with_slow_readers(port: int, token: str, url: str, options: argparse.Namespace) -> dict[str, float]:
    done = asyncio.Event()
    begun = [asyncio.Event() for _ in range(options.slow)]
    readers = [asyncio.create_task(slow_reader(port, token, one, done)) for one in begun]
    arriving = await paced(port, token, f"{PREFIX}/nodes/{ONE}", 2)
    for one in begun:
        await one.wait()
    found = await paced(port, token, f"{PREFIX}/nodes/{ONE}", options.seconds)
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        row = connection.execute(query).fetchone()
    done.set()
    read = await asyncio.gather(*readers)
    return {
        "arriving_p99_ms": 1000 * quantile(arriving, 0.99),
        "p50_ms": 1000 * statistics.median(found),
        "p99_ms": 1000 * quantile(found, 0.99),
        "open_transactions": row[0] if row else -1,
        "readers_served": sum(1 for size in read if size > 0),
    }


def measure(url: str, token: str, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []

    def tell(what: str, value: str, goal: str = "") -> None:
        rows.append((what, value, goal))

    def in_turn(run: Callable[[], dict[str, float]], times: int = 3) -> dict[str, float]:
        return best_of([run() for _ in range(times)])

    with serving(sys.executable, _OURS, url, str(SOURCES), str(POOL)) as (port, pid):
        first, total, size = asyncio.run(listing(port, token))
        tell("GET /nodes, cold: first byte", f"{first * 1000:.0f} ms", "1500 ms")
        tell("GET /nodes, cold: all of it", f"{total:.2f} s, {size / 1e6:.1f} MB")
        firsts = [asyncio.run(listing(port, token)) for _ in range(5)]
        tell(
            "GET /nodes, warm: first byte, median",
            f"{1000 * statistics.median(one[0] for one in firsts):.0f} ms",
            "150 ms",
        )
        tell("GET /nodes, warm: all of it, median", f"{statistics.median(one[1] for one in firsts):.2f} s")
        ours = in_turn(lambda: one_node(port, pid, token, options))
        tell("one node, requests/s", f"{ours['per_second']:.0f}", "400")
        tell("one node, median / p99", f"{ours['p50_ms']:.1f} / {ours['p99_ms']:.1f} ms", "p99 15 ms")
        tell("one node, CPU of the API process", f"{ours['cpu_ms']:.2f} ms")
        alone = asyncio.run(paced(port, token, f"{PREFIX}/nodes/{ONE}", options.seconds))
        tell(
            "one node, 50/s, alone: median / p99",
            f"{1000 * statistics.median(alone):.1f} / {1000 * quantile(alone, 0.99):.1f} ms",
        )
        found, lists = meanwhile(port, token, options.seconds)
        tell(
            f"one node, 50/s, while lists are read ({lists} of them): median / p99",
            f"{1000 * statistics.median(found):.1f} / {1000 * quantile(found, 0.99):.1f} ms",
            "p99 30 ms",
        )
        slow = asyncio.run(with_slow_readers(port, token, url, options))
        tell(
            f"one node, 50/s, with {options.slow} slow readers: median / p99",
            f"{slow['p50_ms']:.1f} / {slow['p99_ms']:.1f} ms",
            "unharmed",
        )
        tell("one node, 50/s, while the slow readers all arrive: p99", f"{slow['arriving_p99_ms']:.1f} ms")
        tell(
            "slow readers served / transactions held open",
            f"{slow['readers_served']:.0f} / {slow['open_transactions']:.0f}",
            "all / 0",
        )
        tell("memory of the API process afterwards", f"{resident_megabytes(pid):.0f} MB")
    if BASELINE_PYTHON.exists():
        for label, http, loop in (("same server", "h11", "asyncio"), ("httptools, uvloop", "httptools", "uvloop")):
            with serving(BASELINE_PYTHON, _BASELINE, url, str(POOL), http, loop) as (port, pid):
                base = in_turn(lambda port=port, pid=pid: one_node(port, pid, token, options))  # type: ignore[misc]
            tell(f"FastAPI, {label}: requests/s, p99", f"{base['per_second']:.0f}, {base['p99_ms']:.1f} ms")
            tell(f"FastAPI, {label}: CPU", f"{base['cpu_ms']:.2f} ms")
            tell(f"ours / FastAPI, {label}", f"{ours['per_second'] / base['per_second']:.2f} x", "2 x")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        Path(directory).chmod(0o711)
        with embedded.running(Path(directory) / "data", throwaway=False) as url:
            token = fill(url, options.nodes)
            rows = measure(url, token, options)
    facts = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "machine": platform.platform(),
        "nodes": options.nodes,
        "clients": options.clients,
    }
    if options.json:
        print(json.dumps({"facts": facts, "rows": rows}))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    width = max(len(what) for what, _, _ in rows)
    for what, value, goal in rows:
        print(f"{what:{width}}  {value:>22}  {'goal ' + goal if goal else ''}")


if __name__ == "__main__":
    main()
