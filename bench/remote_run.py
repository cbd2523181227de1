# SPDX-License-Identifier: Apache-2.0
"""How long people wait when agents are to run: until the first output of many agents that wait, and until the last.

    python -m bench.remote_run [--nodes 200] [--rounds 10] [--quick]

A real server over plain HTTP on loopback; the agents are connections of this process that sign as real ones do and
print a few lines at once, so what is measured is the way there and back.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import httpx
from bench import _server
from bench._processes import memory_bytes
from bench._server import Server
from tests.agents import Agent

from quarterdeck.formats import agent

LINES = 20
_ASK = "/rudder/relay-api/1/remote-run/nodes"


class Took(NamedTuple):
    """One round, in seconds from the request."""

    first: float
    every_node: float
    last: float


async def live(client: httpx.AsyncClient, one: Agent) -> None:
    """Wait and carry out orders until cancelled."""

    async def post(path: str, body: bytes) -> httpx.Response:
        answer = await client.post(path, content=body, headers=one.headers("POST", path, body))
        answer.raise_for_status()
        return answer

    while True:
        told = (await post(agent.PATH_WAKE, b"")).json()
        if told["status"] != "run":
            continue
        await post(agent.output_path(told["run"], 0), b"")
        text = "".join(f"{one.hostname} line {number}\n" for number in range(LINES))
        await post(agent.output_path(told["run"], 1, 0), text.encode())


async def ask(client: httpx.AsyncClient, nodes: list[Agent]) -> Took:
    """Have them all run, and read what they print."""
    form = {"nodes": ",".join(one.node for one in nodes), "keep_output": "true", "asynchronous": "true"}
    begun, first, every = time.perf_counter(), 0.0, 0.0
    seen: dict[str, int] = {}
    async with client.stream("POST", _ASK, data=form) as answer:
        async for line in answer.aiter_lines():
            first = first or time.perf_counter() - begun
            name = line.partition(" ")[0]
            seen[name] = seen.get(name, 0) + 1
            if not every and len(seen) == len(nodes):
                every = time.perf_counter() - begun
    if set(seen.values()) != {LINES} or len(seen) != len(nodes):
        raise SystemExit(f"{len(seen)} of {len(nodes)} nodes answered, {sum(seen.values())} lines.")
    return Took(first, every, time.perf_counter() - begun)


async def rounds(url: str, nodes: list[Agent], count: int) -> list[Took]:
    """All rounds, the first left out: it finds agents that have just come."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        tasks = [asyncio.create_task(live(client, one)) for one in nodes]
        try:
            took = []
            for _ in range(count + 1):
                await asyncio.sleep(2)
                took.append(await ask(client, nodes))
            return took[1:]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def enroll(server: Server, count: int) -> list[Agent]:
    """So many nodes, accepted and known to the relay."""
    made = server.native("POST", "/enrolment-tokens", {"name": "bench", "accept": True})
    nodes = [Agent(node=str(uuid.uuid4()), hostname=f"node{number:05d}") for number in range(count)]
    for one in nodes:
        body = agent.canonical(one.enrolment(made["token"]))
        answer = server.client.post(
            agent.PATH_ENROLL, content=body, headers=one.headers("POST", agent.PATH_ENROLL, body)
        )
        answer.raise_for_status()
    server.client.post("/rudder/relay-api/1/system/reload").raise_for_status()
    return nodes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.remote_run", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="20 nodes, 2 rounds")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.rounds = 20, 2
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch, _server.serving(Path(scratch)) as server:
        nodes = enroll(server, options.nodes)
        before = server.memory_bytes("api")
        took = asyncio.run(rounds(str(server.client.base_url), nodes, options.rounds))
        after = memory_bytes([server.process("api")])
    print(f"{options.nodes} agents that wait, {LINES} lines each, {options.rounds} rounds")
    for name, values, target in (
        ("request to first output", [one.first for one in took], "(< 200 ms)"),
        ("request to output of every node", [one.every_node for one in took], ""),
        ("request to the end", [one.last for one in took], ""),
    ):
        median, worst = 1000 * statistics.median(values), 1000 * max(values)
        print(f"{name:<34} median {median:6.0f} ms, worst {worst:6.0f} ms  {target}")
    print(f"{'memory of the API process':<34} {before / 2**20:.0f} MB before, {after / 2**20:.0f} MB after")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
