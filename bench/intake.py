# SPDX-License-Identifier: Apache-2.0
"""How many agent runs a second the server takes in, with RSA-4096 signatures verified and every fsync done.

    python bench/intake.py [--nodes 500] [--runs 10] [--reports 60] [--requests 2000] [--json]

    a  spool -> database: one drain, batches of 500; also with both signatures verified in the same process
    b  HTTP kept alive (a relay, 32 connections) -> acknowledged after the spool's group fsync, the drain running
    c  the same with a new TLS connection for every run

and the growth of the database per run. Server, drain and client are processes of their own on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import json
import multiprocessing
import os
import platform
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests import agents
from tests.agents import call, give_policy, item, report

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node
from quarterdeck.daemon import tls
from quarterdeck.engine import intake
from quarterdeck.engine.intake import Intake
from quarterdeck.formats import agent, signature
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.spool import Drain, Spool
from quarterdeck.services import compliance, compliance_views, reports
from quarterdeck.services.context import Context
from quarterdeck.services.reports import Slip
from quarterdeck.storage import embedded, migrate
from quarterdeck.storage.database import Database, Provenance

KEYS = 4
CONFIG = "20261121-115900-00000001"
CONNECTIONS = 32


class Subject(NamedTuple):
    """A node of the benchmark: its certificate, and which of the few keys it has."""

    node: str
    certificate: str
    key: int


class Row(NamedTuple):
    what: str
    figure: str
    goal: str
    note: str


@functools.cache
def private_keys(directory: str) -> list[rsa.RSAPrivateKey]:
    """The keys of the agents, RSA-4096, made once."""
    found = []
    for number in range(KEYS):
        path = Path(directory) / f"agent-{number}.pem"
        if not path.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            path.write_bytes(key.private_bytes(*form))
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(loaded, rsa.RSAPrivateKey)
        found.append(loaded)
    return found


def make_subject(work: tuple[str, int]) -> Subject:
    directory, number = work
    node = str(uuid.uuid4())
    key = number % KEYS
    return Subject(node, agents.certificate(private_keys(directory)[key], node), key)


def make_run(subject: Subject, count: int, start: datetime, *, bad: int) -> agent.Run:
    """A run of `count` reports of which `bad` differ from those of a run without any."""
    found = [
        report(
            component=f"Component {number}",
            value=f"/etc/service-{number % 10}/conf.d/file-{number}.conf",
            status="result_error" if number < bad else "result_success",
            message=f"The file /etc/service-{number % 10}/conf.d/file-{number}.conf has the right content and mode",
            id=f"call-{number}",
            directive=f"directive-{number % 10}",
        )
        for number in range(count)
    ]
    return agents.Agent(node=subject.node).run(found, start=start, config_id=CONFIG)


def make_parcel(work: tuple[str, Subject, int, datetime, int]) -> bytes:
    directory, subject, count, start, bad = work
    body = agent.pack_payload(make_run(subject, count, start, bad=bad))
    signed = agents.sign(private_keys(directory)[subject.key], agent.parcel_message("report", subject.node, body))
    return agent.wrap_parcel("report", subject.node, base64.b64encode(signed).decode(), body)


def make_request(work: tuple[str, Subject, bytes, bool]) -> bytes:
    """A whole signed HTTP request, ready to be sent."""
    directory, subject, parcel, keep = work
    moment, nonce = str(int(time.time())), uuid.uuid4().hex
    message = agent.request_message("POST", agent.PATH_REPORTS, subject.node, moment, nonce, parcel)
    signed = base64.b64encode(agents.sign(private_keys(directory)[subject.key], message)).decode()
    lines = [
        f"POST {agent.PATH_REPORTS} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(parcel)}",
        "Content-Type: application/octet-stream",
        f"{agent.HEADER_NODE}: {subject.node}",
        f"{agent.HEADER_TIME}: {moment}",
        f"{agent.HEADER_NONCE}: {nonce}",
        f"{agent.HEADER_SIGNATURE}: {signed}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + parcel


# -- the database ----------------------------------------------------------------------


def fill(database: Database, subjects: list[Subject], count: int) -> None:
    """Accepted nodes with a policy that expects these reports."""
    calls: dict[str, list[agent.Call]] = {}
    for number in range(count):
        value = f"/etc/service-{number % 10}/conf.d/file-{number}.conf"
        step = call(number, component=f"Component {number}", value=value)
        calls.setdefault(f"directive-{number % 10}", []).append(step)
    items = [item(*some, directive=directive) for directive, some in calls.items()]
    with database.unit_of_work(Provenance(actor="bench")) as store:
        ctx = Context(account=SYSTEM, store=store)
        for number, one in enumerate(subjects):
            key = AgentKey(pem=one.certificate, status=KeyStatus.CERTIFIED)
            store.nodes.add(Node(id=NodeId(one.node), hostname=f"node{number}.example.com", key=key))
        nodes = [one.node for one in subjects]
        give_policy(ctx, nodes, items, config_id=CONFIG, begin=datetime.now(UTC))
        compliance.configuration_changed(ctx, nodes)
        store.commit()


_RELATIONS = ("runs", "run_bodies", "raw_runs", "report_states", "node_status", "node_compliance", "agent_nonces")


def sizes(database: Database) -> dict[str, int]:
    """Bytes of each table with its indexes and partitions, after a vacuum."""
    found = {}
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
        for name in _RELATIONS:
            query = (
                "SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_partition_tree(%s) WHERE isleaf"
                if name == "runs"
                else "SELECT pg_total_relation_size(%s::regclass)"
            )
            found[name] = int(connection.exec_driver_sql(query, (name,)).scalar_one())
    return found


# -- a: spool -> database -----------------------------------------------------------------


def spool_all(directory: Path, subjects: dict[str, Subject], parcels: list[bytes]) -> None:
    """Let the spool hold these parcels, 16 a file as under load, without waiting for the disk each time."""
    writer = Spool(directory, reserve_bytes=0)
    now = time.time()
    records = []
    for parcel in parcels:
        one = subjects[agent.open_parcel(parcel).node]
        slip = Slip(node=one.node, nonce=uuid.uuid4().hex, at=now, key=reports.key_digest(one.certificate))
        records.append(reports.pack(slip, parcel))
    for start in range(0, len(records), 16):
        writer.append_all(records[start : start + 16])


def drain_all(
    database: Database, directory: Path, subjects: dict[str, Subject], *, verify: bool
) -> tuple[float, float]:
    """Seconds until the spool is empty, and of these what this process computed."""
    taker = Intake(database)

    def take(records: Any) -> Any:
        if verify:
            for record in records:
                parcel = agent.open_parcel(reports.unpack(record)[1])
                signed = signature.decode_base64(parcel.signature)
                for _ in range(2):  # the request's signature and the parcel's cost the same
                    assert signature.verify(subjects[parcel.node].certificate, parcel.message(), signed)
        return taker.take(records)

    drain = Drain(directory, take, max_records=500)
    begin, computed = time.perf_counter(), time.process_time()
    while drain.once():
        pass
    assert not list(directory.glob("quarantine/*"))
    return time.perf_counter() - begin, time.process_time() - computed


# -- b and c: over HTTP ---------------------------------------------------------------------


def serve(arguments: argparse.Namespace) -> None:
    """The API process: only this dialect."""
    import uvicorn

    from quarterdeck.daemon.http import mount
    from quarterdeck.dialects.native.dialect import PREFIX, NativeDialect
    from quarterdeck.dialects.native.parts import Parts
    from quarterdeck.formats.signature import SigningKey

    directory = Path(arguments.directory)
    keys = tls.files(directory)
    parts = Parts(
        signing_key=SigningKey(keys.policy_key.read_bytes()),
        spool=Spool(directory / "spool"),
        started_at=datetime.now(UTC),
    )
    database = Database(arguments.database, pool_size=16)
    app = mount({PREFIX: NativeDialect(parts)}, database, threads=arguments.threads)
    uvicorn.run(
        app,
        http="h11",
        log_level="error",
        access_log=False,
        fd=arguments.fd,
        lifespan="off",
        ssl_keyfile=str(keys.server_key) if arguments.tls else None,
        ssl_certfile=str(keys.server_certificate) if arguments.tls else None,
    )


def drain(arguments: argparse.Namespace) -> None:
    """The worker process: only the drain."""
    database = Database(arguments.database, pool_size=2)
    intake.run(database, Path(arguments.directory) / "spool", threading.Event())


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def send_all(port: int, requests: list[bytes], *, secured: bool) -> list[float]:
    """Send every request, CONNECTIONS at a time; seconds each until it was acknowledged."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    todo, took = iter(requests), []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=context if secured else None)

    async def one_connection() -> None:
        streams = None if secured else await connect()
        for request in todo:
            begin = time.perf_counter()
            reader, writer = streams or await connect()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202"), head + await reader.read(500)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - begin)
            if secured:
                writer.close()
                with suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()
        if streams:
            streams[1].close()

    await asyncio.gather(*(one_connection() for _ in range(CONNECTIONS)))
    return took


def over_http(directory: Path, url: str, requests: list[bytes], *, secured: bool, threads: int) -> dict[str, Any]:
    """Start server and drain, send everything, stop them; what was seen."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    port = listener.getsockname()[1]
    base = [sys.executable, __file__, "--directory", str(directory), "--database", url, "--threads", str(threads)]
    options = ["--serve", "--fd", str(listener.fileno())] + (["--tls"] if secured else [])
    server = subprocess.Popen([*base, *options], pass_fds=[listener.fileno()])
    drainer = subprocess.Popen([*base, "--drain"])
    try:
        asyncio.run(send_all(port, requests[:CONNECTIONS], secured=secured))  # warm: keys, imports, pages
        before = cpu_seconds(server.pid), cpu_seconds(drainer.pid), time.process_time()
        begin = time.perf_counter()
        took = asyncio.run(send_all(port, requests[CONNECTIONS:], secured=secured))
        seconds = time.perf_counter() - begin
        after = cpu_seconds(server.pid), cpu_seconds(drainer.pid), time.process_time()
        while spooling.pending(directory / "spool"):
            time.sleep(0.05)
        drained = time.perf_counter() - begin
    finally:
        for process in (server, drainer):
            process.terminate()
            process.wait()
        listener.close()
    count = len(took)
    ordered = sorted(took)
    return {
        "rate": count / seconds,
        "median": statistics.median(ordered) * 1000,
        "p99": ordered[int(count * 0.99)] * 1000,
        "server": (after[0] - before[0]) / count * 1000,
        "drain": (after[1] - before[1]) / count * 1000,
        "client": (after[2] - before[2]) / count * 1000,
        "drained": count / drained,
    }


# -- everything -----------------------------------------------------------------------------


def measure(options: argparse.Namespace, directory: Path) -> list[Row]:
    rows: list[Row] = []
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))
    private_keys(str(directory))
    tls.initialise(directory, "https://localhost:8443", datetime.now(UTC))
    with embedded.running(directory) as url, pool:
        migrate.upgrade(url)
        database = Database(url, pool_size=4)
        subjects = list(pool.map(make_subject, [(str(directory), number) for number in range(options.nodes)]))
        by_node = {one.node: one for one in subjects}
        fill(database, subjects, options.reports)
        now = datetime.now(UTC)

        def parcels(first: int, last: int, *, bad: int = 0) -> list[bytes]:
            """Runs number `first` to `last` of every node."""
            work = [
                (str(directory), one, options.reports, now + timedelta(seconds=number), bad)
                for number in range(first, last)
                for one in subjects
            ]
            return list(pool.map(make_parcel, work, chunksize=50))

        def drained(what: str, some: list[bytes], goal: str, note: str, *, verify: bool = False) -> None:
            spool_all(directory / "spool", by_node, some)
            seconds, computed = drain_all(database, directory / "spool", by_node, verify=verify)
            note = f"{note}; CPU ms a run: drain {computed / len(some) * 1000:.2f}, the rest is the database's"
            rows.append(Row(what, f"{len(some) / seconds:,.0f} runs/s", goal, note))

        half = max(1, options.runs // 2)
        goal = "2,000 (1,000)"
        drained("a  first runs", parcels(0, 1), "", "every report is new, compliance anew")
        # From here on each node has two originals: of its change, and of its latest run.
        drained("a  unchanged runs, cold", parcels(1, 1 + half), goal, "drain alone")
        before = sizes(database)
        drained("a  unchanged runs", parcels(1 + half, 1 + 2 * half), goal, "drain alone")
        sizes(database)  # vacuums, as the database does by itself
        note = "two RSA-4096 signatures a run verified in the same process"
        drained("a  unchanged, verified", parcels(1 + 2 * half, 1 + 3 * half), goal, note, verify=True)
        after, count = sizes(database), 2 * half * len(subjects)
        grown = {name: (after[name] - before[name]) / count for name in _RELATIONS}
        kept = sum(max(0.0, size) for name, size in grown.items() if name != "agent_nonces")
        note = f"after vacuum; {_listed(grown)} (nonces go after an hour)"
        rows.append(Row("growth, unchanged run", f"{kept:,.0f} bytes", "200", note))
        before, last = after, 1 + 3 * half
        some = parcels(last, last + 1, bad=max(1, options.reports // 20))
        drained("a  changed runs", some, "", "one report in 20 differs")
        after = sizes(database)
        grown = {name: (after[name] - before[name]) / len(subjects) for name in _RELATIONS}
        kept = sum(max(0.0, size) for name, size in grown.items() if name != "agent_nonces")
        rows.append(Row("growth, changed run", f"{kept:,.0f} bytes", "", f"after vacuum; {_listed(grown)}"))
        populate(database, options.fleet)
        rows += looks(database)
        last += 1
        both = (("b  HTTP kept alive", False, "800"), ("c  a TLS connection a run", True, "250 (130)"))
        for label, secured, goal in both:
            some = (parcels(last, last + 1 + options.requests // len(subjects)))[: options.requests + CONNECTIONS]
            last += 2 + options.requests // len(subjects)
            work = [(str(directory), by_node[agent.open_parcel(one).node], one, not secured) for one in some]
            requests = list(pool.map(make_request, work, chunksize=50))
            seen = over_http(directory, url, requests, secured=secured, threads=options.threads)
            note = (
                f"acknowledged: median {seen['median']:.1f} ms, p99 {seen['p99']:.1f} ms; CPU ms a run: server "
                f"{seen['server']:.2f}, drain {seen['drain']:.2f}, client {seen['client']:.2f}; "
                f"in the database at {seen['drained']:,.0f}/s"
            )
            rows.append(Row(label, f"{seen['rate']:,.0f} runs/s", goal, note))
        database.close()
    return rows


def _listed(grown: dict[str, float]) -> str:
    return ", ".join(f"{name} {size:.0f}" for name, size in grown.items() if round(size))


def populate(database: Database, count: int) -> None:
    """As many nodes as the design is for, with a thousand different counters."""
    with database.unit_of_work(Provenance(actor="bench")) as store:
        run = store.connection.exec_driver_sql
        run("CREATE TEMPORARY TABLE pattern AS SELECT * FROM nodes LIMIT 1")
        run("UPDATE pattern SET id = 'x'")
        columns = [
            row[0] for row in run("SELECT attname FROM pg_attribute WHERE attrelid='nodes'::regclass AND attnum>0")
        ]
        taken = ", ".join({"id": "'fleet-' || n", "hostname": "'fleet-' || n"}.get(name, name) for name in columns)
        numbers = f"generate_series(1, {count})"
        run(f"INSERT INTO nodes ({', '.join(columns)}) SELECT {taken} FROM pattern, {numbers} AS n")
        run(
            "INSERT INTO node_status (node_id, last_run, valid_until) "
            f"SELECT 'fleet-' || n, now(), now() + interval '10 minutes' FROM {numbers} AS n"
        )
        run(
            "INSERT INTO compliance_counters (digest, counters, totals, silent) "
            "SELECT decode(md5(n::text), 'hex'), c.counters, "
            "c.totals[1:3] || ARRAY[n] || c.totals[5:], c.silent "
            "FROM (SELECT * FROM compliance_counters LIMIT 1) AS c, generate_series(0, 999) AS n"
        )
        run(
            "INSERT INTO node_compliance (node_id, config_id, state, status_since, counters) "
            "SELECT 'fleet-' || n, c.config_id, c.state, c.status_since, decode(md5((n %% 1000)::text), 'hex') "
            f"FROM (SELECT * FROM node_compliance LIMIT 1) AS c, {numbers} AS n"
        )
        store.commit()
    sizes(database)


def looks(database: Database) -> list[Row]:
    """How long reading takes with what is there now."""
    rows = []
    for what, look in (
        ("global compliance", compliance.global_),
        ("by rules, shallow", lambda ctx: compliance_views.by_rules(ctx, deep=False)),
        ("by nodes, shallow", lambda ctx: compliance_views.by_nodes(ctx, deep=False)),
    ):
        took = []
        for _ in range(5):
            with database.unit_of_work(Provenance(actor="bench")) as store:
                ctx = Context(account=SYSTEM, store=store)
                store.connection  # noqa: B018  # opens it
                begin = time.perf_counter()
                look(ctx)
                took.append(time.perf_counter() - begin)
        goal = "10 ms" if what.startswith("global") else ""
        rows.append(Row(what, f"{statistics.median(took) * 1000:,.1f} ms", goal, "service and database, without HTTP"))
    return rows


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "processors": os.cpu_count(),
        "model": model.partition(":")[2].strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=10, help="unchanged runs per node")
    parser.add_argument("--reports", type=int, default=60)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--fleet", type=int, default=10_000, help="nodes when compliance is looked at")
    parser.add_argument("--json", action="store_true")
    for name in ("--serve", "--drain", "--tls"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in ("--directory", "--database"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    if options.drain:
        return drain(options)
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        rows = measure(options, directory)
    if options.json:
        return print(json.dumps({"machine": facts, "rows": [row._asdict() for row in rows]}))
    print(", ".join(f"{key}: {value}" for key, value in facts.items()))
    print(f"{options.nodes} nodes, {options.reports} reports a run, goals (at worst) of the design")
    for row in rows:
        print(f"{row.what:28} {row.figure:>16}   {row.goal:22} {row.note}")
    return None


if __name__ == "__main__":
    main()
