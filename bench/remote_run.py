# SPDX-License-Identifier: Apache-2.0
"""How long people wait when agents are to run: until the first output of many agents that wait, and until the last.

    python -m bench.remote_run [--nodes 200] [--rounds 10] [--quick]

A real server over plain HTTP on loopback; the agents are connections of one process that sign as real ones do and
print a few lines at once, so what is measured is the way there and back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import ssl
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
from bench import _server
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


class Connection:
    """One agent's connection. Libraries that serve many hosts from one pool would be what is measured here."""

    def __init__(self, url: str, one: Agent) -> None:
        self._url = httpx.URL(url)
        self._one = one
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> dict[str, str]:
        """The JSON document in an answer, which comes in chunks."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._url.host, self._url.port)
        reader, writer = self._streams
        fields = {"Host": self._url.host, "Content-Length": str(len(body)), **self._one.headers("POST", path, body)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise SystemExit(answer.decode())
        found = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            found += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        document: dict[str, str] = json.loads(found)
        return document

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def live(url: str, one: Agent) -> None:
    """Wait and carry out orders until cancelled."""
    text = "".join(f"{one.hostname} line {number}\n" for number in range(LINES)).encode()
    with contextlib.closing(Connection(url, one)) as connection:
        while True:
            told = await connection.post(agent.PATH_WAKE, b"")
            if told["status"] == "run":
                await connection.post(agent.output_path(told["run"], 0), b"")
                await connection.post(agent.output_path(told["run"], 1, 0), text)


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
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        took = []
        for _ in range(count + 1):
            await asyncio.sleep(2)
            took.append(await ask(client, nodes))
        return took[1:]


def live_all(url: str, nodes: list[tuple[str, str]]) -> None:
    """All agents, in a process of their own, until it is ended."""

    async def work() -> None:
        await asyncio.gather(*(live(url, Agent(node=node, hostname=name)) for node, name in nodes))

    asyncio.run(work())


@contextlib.contextmanager
def living(url: str, nodes: list[Agent]) -> Iterator[None]:
    """Meanwhile the agents wait."""
    names = [(one.node, one.hostname) for one in nodes]
    process = multiprocessing.get_context("fork").Process(target=live_all, args=(url, names), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join(10)


def enroll(server: Server, count: int, trusted: ssl.SSLContext | None = None) -> list[Agent]:
    """So many nodes, accepted and known to the relay that the server is."""
    nodes = enroll_at(server, str(server.client.base_url), trusted or True, count)
    server.client.post("/rudder/relay-api/1/system/reload").raise_for_status()
    return nodes


def enroll_at(server: Server, url: str, trusted: ssl.SSLContext | bool, count: int) -> list[Agent]:
    """So many nodes, enrolled through whoever answers there, and accepted."""
    made = server.native("POST", "/enrolment-tokens", {"name": "bench", "accept": True})
    nodes = [Agent(node=str(uuid.uuid4()), hostname=f"node{number:05d}") for number in range(count)]
    with httpx.Client(base_url=url, verify=trusted, timeout=60, trust_env=False) as client:
        for one in nodes:
            body = agent.canonical(one.enrolment(made["token"]))
            answer = client.post(agent.PATH_ENROLL, content=body, headers=one.headers("POST", agent.PATH_ENROLL, body))
            answer.raise_for_status()
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
        before, used = server.memory_bytes("api"), server.cpu_seconds()
        url = str(server.client.base_url)
        with living(url, nodes):
            took = asyncio.run(rounds(url, nodes, options.rounds))
        after, spent = server.memory_bytes("api"), server.cpu_seconds()
    print(f"{options.nodes} agents that wait, {LINES} lines each, {options.rounds} rounds")
    for name, values, target in (
        ("request to first output", [one.first for one in took], "(< 200 ms)"),
        ("request to output of every node", [one.every_node for one in took], ""),
        ("request to the end", [one.last for one in took], ""),
    ):
        median, worst = 1000 * statistics.median(values), 1000 * max(values)
        print(f"{name:<34} median {median:6.0f} ms, worst {worst:6.0f} ms  {target}")
    each = {name: 1000 * (spent[name] - used[name]) / (options.nodes * (options.rounds + 1)) for name in used}
    print(f"{'CPU for a run of one node':<34} " + ", ".join(f"{name} {value:.1f} ms" for name, value in each.items()))
    print(f"{'memory of the API process':<34} {before / 2**20:.0f} MB before, {after / 2**20:.0f} MB after")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
