# SPDX-License-Identifier: Apache-2.0
"""Policy generation as users wait for it: from the committed change to the last committed policy row.

    python bench/generation_end_to_end.py [--nodes 10000] [--directives 50] [--parameters 20] [--processes 2] [--json]

A real database with fsync, a real worker process that hears of the change through the queue. One parameter in
five names a property of the node. Memory is the sum of the resident sets of the worker and its processes.
Compliance, which is looked at anew afterwards, is left out here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import sqlalchemy

from quarterdeck.core import accounts
from quarterdeck.core.directives import Directive
from quarterdeck.core.events import DirectiveChanged, Event, ParameterChanged, SettingsChanged
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, ParameterName, RuleId, TechniqueId
from quarterdeck.core.nodes import Node
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.rules import Rule
from quarterdeck.core.targets import Simple
from quarterdeck.core.techniques import Call, Technique, TechniqueParameter
from quarterdeck.services import policies, reactions
from quarterdeck.services.context import Context
from quarterdeck.storage import embedded, migrate
from quarterdeck.storage.database import Database, Provenance

NAMES = ("env", "dc", "serial", "owner")
SMALL = 100
_NODES = """
INSERT INTO nodes SELECT (jsonb_populate_record(pattern, jsonb_build_object(
    'id', lpad(to_hex(number), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(number), 12, '0'),
    'hostname', 'node' || number || '.example.com',
    'properties', jsonb_build_array(
        jsonb_build_object('name', 'env', 'value', (ARRAY['prod', 'staging', 'dev'])[1 + number % 3]),
        jsonb_build_object('name', 'dc', 'value', (ARRAY['par1', 'lyo2'])[1 + number % 2]),
        jsonb_build_object('name', 'serial', 'value', 'SN-' || number),
        jsonb_build_object('name', 'owner', 'value', 'team ' || number % 40))))).*
FROM nodes AS pattern, generate_series(1, :count) AS number WHERE pattern.id = 'pattern'
"""
_WORKER = """
import asyncio, logging, sys
sys.path.insert(0, sys.argv[3])
from quarterdeck.engine import tasks
from quarterdeck.services import policies
from quarterdeck.storage.database import Database
tasks.TASKS[policies.COMPLIANCE_TASK] = tasks.TaskKind(run=lambda worker, payload: None)
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    database = Database(sys.argv[1], pool_size=tasks.connections(4))
    asyncio.run(tasks.run_worker(database, cpu=int(sys.argv[2]), threads=4, stop=asyncio.Event()))
"""


@contextmanager
def unit(database: Database) -> Iterator[Context]:
    with database.unit_of_work(Provenance(actor="bench")) as store:
        ctx = Context(account=accounts.SYSTEM, store=store)
        yield ctx
        reactions.follow(ctx)
        store.commit()


def fill(database: Database, options: argparse.Namespace) -> None:
    names = [f"param_{number}" for number in range(options.parameters)]
    with unit(database) as ctx:
        store = ctx.store
        store.nodes.add(Node(id=NodeId("pattern"), hostname="pattern"))
        store.run(sqlalchemy.text(_NODES), {"count": options.nodes})
        store.nodes.remove("pattern")
        store.groups.add(Group(id=GroupId("all"), name="all", dynamic=False))
        everybody = "INSERT INTO group_members SELECT 'all', id FROM nodes"
        store.run(sqlalchemy.text(everybody))
        for number in range(10):
            store.groups.add(Group(id=GroupId(f"part{number}"), name=f"part{number}", dynamic=False))
            some = f"INSERT INTO group_members SELECT 'part{number}', id FROM nodes WHERE hashtext(id) % 10 = {number}"
            store.run(sqlalchemy.text(some))
        store.groups.add(Group(id=GroupId("small"), name="small", dynamic=False))
        few = f"INSERT INTO group_members SELECT 'small', id FROM nodes ORDER BY id LIMIT {SMALL}"
        store.run(sqlalchemy.text(few))
        for number in range(9):
            store.techniques.put(make_technique(f"tech{number}", names))
        directives = [make_directive(number, names) for number in range(options.directives)]
        extra = replace(directives[0], id=DirectiveId("extra"), name="Extra")
        for directive in (*directives, extra):
            store.directives.add(directive)
        for number in range(5):
            mine = frozenset(directive.id for directive in directives[number::5])
            rule = Rule(id=RuleId(f"rule{number}"), name=f"Rule {number}", directives=mine, targets=(_group("all"),))
            store.rules.add(rule)
        few_rule = Rule(id=RuleId("few"), name="Few", directives=frozenset({extra.id}), targets=(_group("small"),))
        store.rules.add(few_rule)
        store.run(sqlalchemy.text("ANALYZE"))


def _group(name: str) -> Simple:
    return Simple(f"group:{name}")


def make_technique(identity: str, names: list[str]) -> Technique:
    return Technique(
        id=TechniqueId(identity),
        version="1.0",
        name=identity,
        parameters=tuple(TechniqueParameter(id=name, name=name) for name in names),
        items=tuple(
            Call(id=f"{identity}-{name}", method="command_execution", parameters={"command": f"${{{identity}.{name}}}"})
            for name in names
        ),
    )


def make_directive(number: int, names: list[str]) -> Directive:
    values = {}
    for place, name in enumerate(names):
        count = number * len(names) + place
        end = f"${{node.properties[{NAMES[count // 5 % len(NAMES)]}]}}" if count % 5 == 0 else "static"
        values[name] = (f"/opt/app{number}/conf.d/{name}/value-{count:x}/{end}/etc",)
    return Directive(
        id=DirectiveId(f"directive-{number:04d}"),
        name=f"Directive {number}",
        technique=TechniqueId(f"tech{number % 9}"),
        version="1.0",
        parameters=values,
    )


class Memory(Thread):
    """Watches the resident sets of a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._enough = pid, Flag()
        self.peak = 0

    def run(self) -> None:
        while not self._enough.wait(0.1):
            self.peak = max(self.peak, sum(map(_resident, _family(self._pid))))

    def stop(self) -> int:
        """The peak in bytes."""
        self._enough.set()
        self.join()
        return self.peak


def _family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(child))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def measure(database: Database, worker: int, change: Callable[[Context], Event | None]) -> dict[str, Any]:
    """One change, from its commit until its generation is committed."""
    _wait_until_idle(database)
    memory = Memory(worker)
    memory.start()
    with unit(database) as ctx:
        event = change(ctx)
        if event is not None:
            ctx.emit(event)
    begun = time.monotonic()
    while (row := _newest(database)).state not in ("done", "failed"):
        time.sleep(0.01)
    seconds = time.monotonic() - begun
    assert row.state == "done", row.message
    return {
        "seconds": seconds,
        "nodes": row.nodes_total,
        "changed": row.nodes_changed,
        "peak_mb": memory.stop() / 2**20,
    }


def _newest(database: Database) -> Any:
    with database.unit_of_work(Provenance(actor="bench")) as store:
        return store.generations.latest(1)[0]


def _wait_until_idle(database: Database) -> None:
    while True:
        with database.unit_of_work(Provenance(actor="bench")) as store:
            if not store.rows(sqlalchemy.text("SELECT FROM pgqueuer")):
                return
        time.sleep(0.05)


def change_few(ctx: Context, text: str) -> Event:
    extra = ctx.store.directives.get("extra")
    ctx.store.directives.replace(replace(extra, parameters={**extra.parameters, "param_1": (text,)}))
    return DirectiveChanged(extra.id)


def change_parameter(ctx: Context) -> Event:
    name = ParameterName("site")
    ctx.store.parameters.add(Parameter(name=name, value="north"))
    return ParameterChanged(name)


def regenerate(ctx: Context) -> None:
    policies.request_generation(ctx, everything=True)


def run(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    database = Database(url, pool_size=4)
    fill(database, options)
    argv = [sys.executable, "-c", _WORKER, url, str(options.processes), sys.path[0]]
    log = None if options.verbose else subprocess.DEVNULL
    with subprocess.Popen(argv, stderr=log) as worker:
        try:
            return [
                {"case": "full, the first one", **measure(database, worker.pid, lambda _: SettingsChanged())},
                {"case": "full, everything written again", **measure(database, worker.pid, regenerate)},
                {"case": "full, one parameter of all nodes", **measure(database, worker.pid, change_parameter)},
                {"case": "full, nothing changed", **measure(database, worker.pid, lambda _: SettingsChanged())},
                few(database, worker.pid),
            ]
        finally:
            worker.kill()
            database.close()


def few(database: Database, worker: int) -> dict[str, Any]:
    found = [measure(database, worker, partial(change_few, text=f"v{number}")) for number in range(15)]
    times = sorted(one["seconds"] for one in found)
    return {
        "case": f"one directive on {SMALL} nodes, median of {len(times)} (worst {times[-1]:.3f} s)",
        **found[-1],
        "seconds": statistics.median(times),
    }


def show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"{options.nodes} nodes x {options.directives} directives x {options.parameters} parameters, 1 in 5 from the")
    print(f"node; {options.processes} processes; {os.cpu_count()} cores {platform.machine()}, ", end="")
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end\n")
    print(f"{'case':<58}{'seconds':>9}{'computed':>10}{'changed':>9}{'nodes/s':>9}{'peak MB':>9}")
    for row in rows:
        rate = row["nodes"] / row["seconds"]
        print(
            f"{row['case']:<58}{row['seconds']:>9.3f}{row['nodes']:>10}{row['changed']:>9}{rate:>9.0f}{row['peak_mb']:>9.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--directives", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show the worker's log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as directory:
        Path(directory).chmod(0o711)
        with embedded.running(Path(directory)) as url:
            migrate.upgrade(url)
            rows = run(url, options)
    print(json.dumps(rows)) if options.json else show(rows, options)


if __name__ == "__main__":
    main()
