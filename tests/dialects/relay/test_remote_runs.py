# SPDX-License-Identifier: Apache-2.0
"""Statements 30 to 36 and 41 of the reference over HTTP; 37 to 40 stand in `tests/relaying/test_remote_runs.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from tests.dialects.relay.conftest import API, INSIDE, KEYLESS, LOOPBACK, NEAR, OUTSIDE, UPSTREAM, Make, Relay

from quarterdeck.core.errors import Forbidden
from quarterdeck.core.ids import NodeId
from quarterdeck.daemon.http import relay_routes
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.waiting_agents import Times, WaitingAgents

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class FakeAgent(threading.Thread):
    """An agent that waits, carries out one order, and prints these lines; `go` lets it go on after the first."""

    def __init__(self, agents: WaitingAgents, *lines: str, node: str = NEAR.node) -> None:
        super().__init__(daemon=True)
        self.go = threading.Event()
        self.go.set()
        self.order: dict[str, Any] = {}
        self.done = threading.Event()
        self._agents, self._lines, self._node = agents, lines, NodeId(node)

    def run(self) -> None:
        asyncio.run(self._live())
        self.done.set()

    async def _live(self) -> None:
        async for answer in self._agents.hold(self._node):
            self.order = json.loads(answer)
        run = self._agents.belongs(self._node, self.order["run"])
        await self._agents.put(run, 0, b"", None)
        for number, line in enumerate(self._lines, 1):
            await self._agents.put(run, number, f"{line}\n".encode(), None)
            await asyncio.to_thread(self.go.wait, 20)
        await self._agents.put(run, len(self._lines) + 1, b"", 0)


@pytest.fixture
def agents() -> WaitingAgents:
    return WaitingAgents(Times(hold=20, back=0.2, look=0.05))


def with_runs(relay: Relay, agents: WaitingAgents, *, enabled: bool = True) -> Relay:
    parts = relay.edge.parts
    runs = RemoteRuns(nodes=parts.nodes, agents=agents, enabled=enabled)
    relay.edge.parts = replace(parts, remote_runs=runs)
    return relay


@pytest.fixture
def running(root: Relay, agents: WaitingAgents) -> Relay:
    """A root that has agents run."""
    return with_runs(root, agents)


def waiting(agents: WaitingAgents, *lines: str, node: str = NEAR.node) -> FakeAgent:
    """An agent that waits already."""
    before = agents.count
    one = FakeAgent(agents, *lines, node=node)
    one.start()
    while agents.count == before:
        time.sleep(0.005)
    return one


def run(relay: Relay, path: str = f"nodes/{NEAR.node}", *, at: str = LOOPBACK, **form: str) -> httpx.Response:
    return relay.ask("POST", f"remote-run/{path}", at=at, data=form or None)


@contextmanager
def served(relay: Relay) -> Iterator[httpx.Client]:
    """The same relay on a real socket, where answers can be read while they come."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=relay_routes(relay.edge))
    server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{API}/"
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def test_statement_30_sync_with_output_returns_what_the_agent_prints(running: Relay, agents: WaitingAgents) -> None:
    agent = waiting(agents, "one", "two")

    answer = run(running, keep_output="true", conditions="a,b")

    assert (answer.status_code, answer.text) == (200, "one\ntwo\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert agent.order["conditions"] == ["a", "b"]


def test_statement_30_without_conditions_none_are_defined(running: Relay, agents: WaitingAgents) -> None:
    agent = waiting(agents)

    run(running, keep_output="true")

    assert agent.order["conditions"] == []


def test_statement_31_async_with_output_yields_the_first_line_before_the_end(
    running: Relay, agents: WaitingAgents
) -> None:
    agent = waiting(agents, "first", "last")
    agent.go.clear()
    form = {"asynchronous": "true", "keep_output": "true"}
    with served(running) as client, client.stream("POST", f"remote-run/nodes/{NEAR.node}", data=form) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "first"
        assert not agent.done.is_set()
        agent.go.set()
        assert list(lines) == ["last"]


def test_statement_32_async_without_output_returns_at_once_and_the_run_goes_on(
    running: Relay, agents: WaitingAgents
) -> None:
    agent = waiting(agents, "unseen")
    agent.go.clear()
    with served(running) as client:
        answer = client.post(f"remote-run/nodes/{NEAR.node}", data={"asynchronous": "true"})

        assert (answer.status_code, answer.content) == (200, b"")
        assert not agent.done.is_set()
        agent.go.set()
        assert agent.done.wait(10)
    assert agent.order["output"] is False


def test_statement_33_sync_without_output_returns_nothing_after_the_end(running: Relay, agents: WaitingAgents) -> None:
    agent = waiting(agents, "unseen")

    answer = run(running, asynchronous="false", keep_output="false")

    assert (answer.status_code, answer.content) == (200, b"")
    assert agent.done.wait(5)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"classes": "a,b"}, ["a", "b"]),
        ({"conditions": "a,b"}, ["a", "b"]),
        ({"conditions": "a", "classes": "b"}, ["a"]),
        ({"conditions": "", "classes": "b"}, []),
    ],
    ids=str,
)
def test_statement_34_classes_are_conditions_which_win(
    form: dict[str, str], wanted: list[str], running: Relay, agents: WaitingAgents
) -> None:
    agent = waiting(agents)

    run(running, **form)

    assert agent.order["conditions"] == wanted


@pytest.mark.parametrize("name", ["conditions", "classes"])
def test_statement_35_a_condition_that_is_none_is_refused_in_these_words(name: str, running: Relay) -> None:
    answer = run(running, **{name: "class~1"})

    assert answer.status_code == 400
    assert answer.text == "invalid condition: class~1, should match ^[a-zA-Z0-9][a-zA-Z0-9_]*$"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("text", ["a" * 1025, "a\n", "a,,b", "_a", "a b", ",", "ä"], ids=ascii)
def test_statement_35_too_long_or_otherwise_wrong_conditions_are_refused(text: str, running: Relay) -> None:
    assert run(running, conditions=text).status_code == 400


def test_statement_35_the_longest_condition_is_accepted(running: Relay, agents: WaitingAgents) -> None:
    agent = waiting(agents)

    assert run(running, conditions="a" * 1024).status_code == 200
    assert agent.order["conditions"] == ["a" * 1024]


@pytest.mark.parametrize("form", [{"asynchronous": "yes"}, {"keep_output": "True"}, {"format": "xml"}], ids=str)
def test_statement_36_words_that_are_neither_true_nor_false_are_refused(form: dict[str, str], running: Relay) -> None:
    assert run(running, **form).status_code == 400


def test_statement_36_missing_nodes_are_refused(running: Relay) -> None:
    answer = run(running, "nodes", keep_output="true")

    assert (answer.status_code, answer.text) == (400, "Missing nodes")


def test_statement_41_a_relay_that_does_not_run_anything_answers_404(
    make: Make, agents: WaitingAgents, caplog: pytest.LogCaptureFixture
) -> None:
    relay = with_runs(make(), agents, enabled=False)

    for path in (f"nodes/{NEAR.node}", "nodes", "all"):
        with caplog.at_level(logging.WARNING):
            answer = run(relay, path, conditions="class~1")
        assert (answer.status_code, answer.text) == (404, "NOT FOUND")
        assert "switched off" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("path", [f"nodes/{NEAR.node}", "nodes", "all"])
def test_statement_8_unversioned_paths_are_the_same(path: str, running: Relay, agents: WaitingAgents) -> None:
    for prefix in ("/rudder/relay-api/1/remote-run", "/rudder/relay-api/remote-run"):
        agent = waiting(agents, "here")
        answer = running.ask("POST", f"{prefix}/{path}", at=LOOPBACK, data={"keep_output": "true", "nodes": NEAR.node})
        assert "here\n" in answer.text
        agent.join(5)


def test_some_nodes_run_and_unknown_ones_are_left_out(
    running: Relay, agents: WaitingAgents, caplog: pytest.LogCaptureFixture
) -> None:
    waiting(agents, "near")
    waiting(agents, "keyless", node=KEYLESS.node)

    answer = run(running, "nodes", nodes=f"{NEAR.node},ghost,{KEYLESS.node}", keep_output="true")

    assert sorted(answer.text.splitlines()) == ["keyless", "near"]
    assert "ghost" in caplog.text


def test_only_unknown_nodes_are_an_empty_success(running: Relay) -> None:
    for path, form in (("nodes/ghost", {}), ("nodes", {"nodes": "ghost,"}), ("nodes", {"nodes": ""})):
        answer = run(running, path, keep_output="true", **form)
        assert (answer.status_code, answer.content) == (200, b"")


def test_nodes_that_nothing_reaches_say_so(running: Relay) -> None:
    answer = run(running, keep_output="true")

    assert answer.status_code == 200
    assert answer.text.startswith(f"{NEAR.hostname}: there is no way to reach it: ")


def test_a_list_of_nodes_does_not_count_for_one_node_or_all(running: Relay, agents: WaitingAgents) -> None:
    waiting(agents, "near")

    assert run(running, nodes="ghost", keep_output="true").text == "near\n"


def test_lines_of_json_name_their_node(running: Relay, agents: WaitingAgents) -> None:
    waiting(agents, "near")

    answer = run(running, keep_output="true", format="json")

    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"node": NEAR.node, "hostname": NEAR.hostname, "text": "near"},
        {"node": NEAR.node, "hostname": NEAR.hostname, "status": 0, "via": "agent"},
    ]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/json", b"{}"), ("multipart/form-data; boundary=x", b"--x--"), (FORM["Content-Type"], b"a=\xff")],
)
def test_a_body_that_is_no_form_is_no_operation(kind: str, body: bytes, running: Relay) -> None:
    answer = running.ask("POST", "remote-run/all", at=LOOPBACK, content=body, headers={"Content-Type": kind})

    assert (answer.status_code, answer.text) == (404, "NOT FOUND")


def test_a_body_without_type_is_a_form_and_the_query_does_not_count(running: Relay, agents: WaitingAgents) -> None:
    agent = waiting(agents, "near")

    answer = running.ask(
        "POST",
        f"remote-run/nodes/{NEAR.node}?conditions=class~1&keep_output=false",
        at=LOOPBACK,
        content=b"keep_output=true&conditions=a",
    )

    assert (answer.status_code, answer.text) == (200, "near\n")
    assert agent.order["conditions"] == ["a"]


def test_a_body_over_a_megabyte_is_refused(running: Relay) -> None:
    assert run(running, "nodes", nodes="x" * 1024 * 1024).status_code == 413


def test_who_may_have_agents_run(make: Make, agents: WaitingAgents) -> None:
    def authorize(token: str, right: str) -> None:
        if (token, right) != ("good", "node.command"):
            raise Forbidden("no")

    relay = with_runs(make(upstream=(UPSTREAM,), authorize=authorize), agents)
    assert run(relay, "nodes", at=LOOPBACK, nodes="ghost").status_code == 200
    assert run(relay, "nodes", at=UPSTREAM, nodes="ghost").status_code == 200
    assert run(relay, "nodes", at=INSIDE, nodes="ghost").status_code == 403
    assert run(relay, "nodes", at=OUTSIDE, nodes="ghost").status_code == 403
    assert relay.signed(NEAR, "POST", "remote-run/all", b"").status_code == 403
    for token, status in (("good", 200), ("bad", 403)):
        answer = relay.ask(
            "POST", "remote-run/nodes", at=OUTSIDE, data={"nodes": "ghost"}, headers={"X-API-Token": token}
        )
        assert answer.status_code == status


def test_agents_that_wait_cost_no_thread(running: Relay, agents: WaitingAgents) -> None:
    async def story() -> None:
        async def wait(number: int) -> None:
            async for _ in agents.hold(NodeId(f"node-{number}")):
                pass

        before = threading.active_count()
        tasks = [asyncio.create_task(wait(number)) for number in range(500)]
        while agents.count < 500:  # noqa: ASYNC110  # nobody tells when an agent has come
            await asyncio.sleep(0)
        assert threading.active_count() <= before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())
