# SPDX-License-Identifier: Apache-2.0
"""How long node queries take over a fleet, on an embedded PostgreSQL of their own.

    python bench/node_queries.py [--nodes 10000] [--software 300] [--rounds 5] [--json]

Every node has `--software` of ten times as many packages, 80 processes, file systems, properties. Times are medians,
from the query as data to the set of ids. What looks into lists of the inventory has to unpack them, node by node.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import sqlalchemy
from sqlalchemy import Connection

from quarterdeck.core import node_queries as language
from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Inventory, Machine, OperatingSystem
from quarterdeck.core.nodes import Node
from quarterdeck.core.properties import Property
from quarterdeck.storage import embedded, migrate, node_queries, tables
from quarterdeck.storage.database import Database, Provenance

#: What is asked: name, and criteria as "objectType attribute comparator value".
QUERIES = (
    ("system, everybody", ["node OS eq Linux"]),
    ("system, memory and host name", ["node osName eq Debian", "node ram gt 8 GB", "node nodeHostname regex node-1.*"]),
    ("one host name", ["node nodeHostname eq node-77.example.org"]),
    ("host name, regex that Python evaluates", ["node nodeHostname regex node-\\d++.*"]),
    ("address", ["node ipHostNumber regex 10\\.0\\.1.*"]),
    ("property equals", ["serializedNodeProperty name.value eq env=prod"]),
    ("property regex", ["serializedNodeProperty name.value regex env=p.*"]),
    ("property by JSONPath", ["serializedNodeProperty name.value jsonSelect site:$.rack[1]"]),
    ("software that all have", ["software cn eq package-7"]),
    ("software that few have", ["software cn eq package-{rare}"]),
    ("software regex", ["software cn regex package-1[0-9]"]),
    ("some other software", ["software cn notEq package-7"]),
    ("environment variable", ["environmentVariable name.value eq LANG=C"]),
    ("file system free space", ["fileSystemLogicalElement fileSystemFreeSpace gt 5 GB"]),
    ("process", ["process commandName eq /usr/bin/daemon-79"]),
)


def make_node(number: int) -> Node:
    processes = tuple(
        {
            "pid": pid,
            "name": f"/usr/bin/daemon-{pid}",
            "user": "root",
            "virtualMemory": pid * number,
            "started": "2026-01-01",
        }
        for pid in range(80)
    )
    return Node(
        id=NodeId(f"{number:08x}-0000-4000-8000-{number:012x}"),
        hostname=f"node-{number}.example.org",
        properties=(
            Property(name="env", value=("prod", "staging", "dev")[number % 3]),
            Property(name="site", value={"dc": number % 7, "rack": [1, 2]}),
        ),
        inventory=Inventory(
            os=OperatingSystem(type="Linux", name=("Debian", "Centos")[number % 2], version=str(number % 12)),
            machine=Machine(id=f"machine-{number}", type="Virtual", provider="qemu"),
            ram=number % 64 * 1024**3,
            ip_addresses=(f"10.{number // 62500}.{number // 250 % 250}.{number % 250}", "127.0.0.1"),
            accounts=("root", "daemon"),
            environment={"LANG": "C", "HOME": "/root"},
            lists={
                "fileSystems": (
                    {"name": "ext4", "mountPoint": "/", "freeSpace": number * 10**6, "totalSpace": 10**11},
                    {"name": "xfs", "mountPoint": "/var", "freeSpace": 1, "totalSpace": 3},
                ),
                "processes": processes,
            },
        ),
    )


def fill(database: Database, options: argparse.Namespace) -> None:
    with database.unit_of_work(Provenance(actor="bench")) as store:
        rows = [store.nodes.to_row(make_node(number)) for number in range(options.nodes)]
        for start in range(0, len(rows), 500):
            store.run(sqlalchemy.insert(tables.nodes), rows[start : start + 500])
        packages = [{"name": f"package-{i}", "version": f"1.{i}", "details": {}} for i in range(10 * options.software)]
        store.run(sqlalchemy.insert(tables.software), packages)
        installed = sqlalchemy.text(
            "INSERT INTO node_software (node_id, software_id) SELECT nodes.id, software.id FROM nodes, software"
            " WHERE software.id <= :everywhere OR (software.id % 100 = 50 AND nodes.id < :few)"
        )
        store.run(installed, {"everywhere": options.software, "few": make_node(100).id})
        store.commit()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("VACUUM ANALYZE"))


def run(connection: Connection, criteria: list[str], options: argparse.Namespace) -> tuple[int, float]:
    """How many nodes are found, and the median time in milliseconds."""
    rare = 10 * options.software - 51
    keys = ("objectType", "attribute", "comparator", "value")
    where = [dict(zip(keys, one.replace("{rare}", str(rare)).split(" ", 3), strict=True)) for one in criteria]
    query = language.parse({"where": where})
    times = []
    for _ in range(options.rounds + 1):
        began = time.perf_counter()
        found = len(node_queries.match(connection, query))
        times.append((time.perf_counter() - began) * 1000)
    return found, statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10000)
    parser.add_argument("--software", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="quarterdeck-bench-"))
    directory.chmod(0o711)
    rows: list[dict[str, Any]] = []
    try:
        with embedded.running(directory) as url:
            migrate.upgrade(url)
            database = Database(url)
            fill(database, options)
            with database.engine.connect() as connection:
                for name, criteria in QUERIES:
                    found, median = run(connection, criteria, options)
                    rows.append({"query": name, "found": found, "median_ms": round(median, 1)})
            database.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    load = f"load {os.getloadavg()[0]:.1f}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {load} at the end"
    if options.json:
        print(json.dumps({"machine": machine, "nodes": options.nodes, "rows": rows}))
        return
    print(f"Node queries over {options.nodes} nodes; {machine}")
    for row in rows:
        print(f"{row['query']:<42} {row['found']:>7} nodes {row['median_ms']:>9} ms")


if __name__ == "__main__":
    main()
