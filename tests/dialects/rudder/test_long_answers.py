# SPDX-License-Identifier: Apache-2.0
"""Fragments and the long answers made of them: never stale, bounded in memory, right whatever the order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import msgspec
import pytest
import sqlalchemy
from tests.served import Served

from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Inventory
from quarterdeck.core.nodes import Node
from quarterdeck.core.properties import Property
from quarterdeck.dialects.rudder import node_shapes
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.fragments import FragmentCache, LongAnswer
from quarterdeck.dialects.rudder.node_shapes import FIELDS, Fragment
from quarterdeck.storage import tables
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.web.runner import Runner

RUN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
MEGABYTE = 1024 * 1024
NODE = Node(
    id=NodeId("n"),
    hostname="h",
    inventory_date=RUN,
    inventory=Inventory(
        ram=2 * MEGABYTE,
        swap=3 * MEGABYTE,
        timezone_name="UTC",
        timezone_offset="+00",
        accounts=("root",),
        environment={"A": "1"},
        lists={
            "fileSystems": ({"name": "/dev/a", "totalSpace": 5 * MEGABYTE, "fileCount": None},),
            "networkInterfaces": ({"name": "eth0"},),
            "processors": ({"name": "cpu", "quantity": 1}, {"name": "gpu", "quantity": 2}),
            "softwareUpdate": ({"name": "bash", "kind": "security"},),
            "software": ({"name": "bash", "version": "5"},),
        },
    ),
)


def shown(include: str, version: int = 18, last_run: datetime | None = RUN) -> dict[str, object]:
    chosen = node_shapes.parse_include(include, version)
    decoded = msgspec.json.decode(b"".join(chosen.splice(chosen.fragment(NODE), last_run)))
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize(
    "include", ["minimal", "default", "full", "", "lastRunDate", "minimal,lastRunDate", "minimal,os"]
)
def test_fields_come_in_the_fixed_order(include: str) -> None:
    order = [field.name for field in FIELDS]

    names = list(shown(include))

    assert names == sorted(names, key=order.index)


@pytest.mark.parametrize(
    ("include", "present", "absent"),
    [
        ("minimal", {"id", "hostname", "status"}, {"os", "lastRunDate", "software"}),
        ("minimal,os,software", {"id", "os", "software"}, {"ram", "lastRunDate", "processors"}),
        ("minimal,lastRunDate", {"id", "lastRunDate"}, {"policyServerId"}),
        ("nonsense", {"id", "os", "lastRunDate", "policyMode"}, {"software", "accounts"}),
        ("software", {"os", "software"}, {"processors"}),
        ("minimal,full", {"software", "os", "managementTechnologyDetails"}, {"bios", "slots"}),
    ],
)
def test_a_level_counts_and_names_are_added(include: str, present: set[str], absent: set[str]) -> None:
    names = shown(include).keys()

    assert present <= names
    assert not absent & names


def test_sizes_are_megabytes_and_what_is_unknown_is_left_out() -> None:
    node = shown("full")

    assert node["ram"] == 2
    assert node["fileSystems"] == [{"name": "swap", "totalSpace": 3}, {"name": "/dev/a", "totalSpace": 5}]
    assert node["networkInterfaces"] == [{"name": "eth0", "mask": [], "ipAddresses": []}]
    assert node["processors"] == [{"name": "cpu"}, {"name": "gpu", "quantity": 2}]


def test_software_updates_came_with_version_15() -> None:
    assert "softwareUpdate" in shown("full", version=15)
    assert "softwareUpdate" not in shown("full", version=14)


def test_the_date_of_the_last_run_has_no_fraction_and_may_be_missing() -> None:
    assert shown("default")["lastRunDate"] == "2026-01-02T03:04:05Z"
    assert "lastRunDate" not in shown("default", last_run=None)


def test_the_cache_holds_what_fits_and_only_the_version_asked_for() -> None:
    fragment = Fragment(b"x" * 1000, b"")
    cache = FragmentCache(max_bytes=4 * 1400)
    cache.keep("all", [(str(number), 1, fragment) for number in range(4)])
    assert cache.find("all", [("0", 1)]) == {"0": fragment}  # and so it is the one used last

    cache.keep("all", [("4", 1, fragment)])

    assert set(cache.find("all", [(str(number), 1) for number in range(5)])) == {"0", "2", "3", "4"}
    assert cache.find("all", [("0", 2)]) == {}
    assert cache.find("other", [("0", 1)]) == {}
    assert cache.size <= cache.max_bytes


def test_a_fragment_kept_again_counts_once() -> None:
    cache = FragmentCache()
    cache.keep("all", [("0", 1, Fragment(b"x", b"y"))])
    size = cache.size

    cache.keep("all", [("0", 2, Fragment(b"z", b"y"))])

    assert cache.size == size
    assert cache.find("all", [("0", 2)]) == {"0": Fragment(b"z", b"y")}


@pytest.mark.parametrize("max_memory", [0, 1000, 1_000_000, 10_000_000])
def test_a_long_answer_is_the_same_in_memory_and_in_a_file(max_memory: int) -> None:
    pieces = [f"{number:9d}\n".encode() * 10 for number in range(10_000)]
    answer, other = LongAnswer(max_memory), LongAnswer(max_memory)
    for piece in pieces:
        answer.add([piece])
        other.add([piece])

    async def read() -> list[bytes]:
        return [piece async for piece in answer.source()]

    sent = asyncio.run(read())

    assert b"".join(sent) == b"".join(pieces) == other.joined()
    assert max(map(len, sent)) < 300_000


def test_a_client_that_leaves_takes_the_file_along() -> None:
    answer = LongAnswer(max_memory=10)
    answer.add([b"x" * 10])
    answer.add([b"y" * 1_000_000])

    async def leave_early() -> bytes:
        source = answer.source()
        async with aclosing(source) as pieces:  # type: ignore[type-var]  # it is an async generator
            async for piece in pieces:
                return piece
        return b""

    assert asyncio.run(leave_early()) == b"x" * 10
    assert answer.closed


def test_a_change_by_anybody_is_seen_by_the_next_reader(served: Served) -> None:
    client: httpx.Client = served.client
    headers = {"X-API-Token": served.tokens["read"]}
    url = "/rudder/api/latest/nodes"

    def properties() -> list[object]:
        both = [client.get(url, headers=headers), client.get(f"{url}/root", headers=headers)]
        found = [answer.json()["data"]["nodes"][0]["properties"] for answer in both]
        assert found[0] == found[1]
        return list(found[0])

    assert properties() == []
    with served.database.unit_of_work(Provenance(actor="another process")) as store:
        root = store.nodes.get("root")
        store.nodes.set_by_administrator(replace(root, properties=(Property(name="a", value=1),)))
        assert properties() == []  # not committed
        store.commit()
    assert properties() == [{"name": "a", "value": 1}]


def test_a_run_shows_at_once(served: Served) -> None:
    headers = {"X-API-Token": served.tokens["read"]}
    url = "/rudder/api/latest/nodes?include=minimal,lastRunDate"
    assert "lastRunDate" not in served.client.get(url, headers=headers).json()["data"]["nodes"][0]

    with served.database.unit_of_work(Provenance(actor="an agent")) as store:
        store.run(sqlalchemy.insert(tables.node_status).values(node_id="root", last_run=RUN))
        store.commit()

    assert served.client.get(url, headers=headers).json()["data"]["nodes"][0]["lastRunDate"] == "2026-01-02T03:04:05Z"


def test_a_reader_who_dawdles_holds_no_connection_and_no_thread(served: Served) -> None:
    token = served.tokens["read"].encode()
    database = Database(served.database.url, pool_size=1)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/rudder/api/latest/nodes",
        "query_string": b"",
        "headers": [(b"x-api-token", token)],
    }
    seen: list[str] = []

    async def play() -> None:
        bodies: list[dict[str, object]] = [{"type": "http.request", "body": b""}] * 2

        async def receive() -> dict[str, object]:
            return bodies.pop() if bodies else await asyncio.Future()

        threads = anyio.CapacityLimiter(1)
        runner = Runner(grammar=RudderDialect(), database=database, prefix="/rudder/api", threads=threads)
        first, go_on = asyncio.Event(), asyncio.Event()

        async def dawdle(message: Any) -> None:
            seen.append(message["type"])
            first.set()
            await go_on.wait()

        async def hurry(message: Any) -> None:
            seen.append(f"hurried {message['type']}")

        slow = asyncio.create_task(runner(scope, receive, dawdle))
        await first.wait()
        assert database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]  # a queue pool has it
        assert threads.borrowed_tokens == runner.turns[True].borrowed_tokens == 0
        await runner(scope, receive, hurry)
        go_on.set()
        await slow

    asyncio.run(play())
    database.close()

    assert seen[0] == "http.response.start"
    assert "hurried http.response.body" in seen[:-1]
    assert seen[-1] == "http.response.body"
