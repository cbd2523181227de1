# SPDX-License-Identifier: Apache-2.0
"""Agents that wait for commands, what these print, and how orders and stops find their node."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quarterdeck.core.errors import AlreadyExists, Conflict, NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.node_commands import Begun, End, Event, Output
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.formats import node_commands as lines
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import streams, waiting_commands
from quarterdeck.relaying.links import Signer
from quarterdeck.relaying.node_commands import NodeCommands, own
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import Command, Times, Verdict, WaitingCommands

ROOT, NEAR, RELAY, FAR = (NodeId(name) for name in ("root", "near", "relay", "far"))
QUICK = Times(hold=5, back=0.05, room=0.1, silence=0.4, line=0.5, begin=0.4, again=0.1, stop=0.3, kept=5, look=0.02)
LISTENER = "a"
PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


async def asks(agents: WaitingCommands, room: int = 8, listener: str = LISTENER) -> dict[str, Any]:
    """One request of NEAR's agent, and its answer."""
    found = [json.loads(piece) async for piece in agents.hold(NEAR, listener, room)]
    assert len(found) == 1
    return dict(found[0])


async def waiting(agents: WaitingCommands) -> None:
    while not agents.count:  # noqa: ASYNC110  # nobody tells when an agent has come
        await asyncio.sleep(0.005)


async def given(agents: WaitingCommands, order: str = "1", parcel: bytes = b"sealed") -> Command:
    """An order that NEAR's agent has got."""
    asking = asyncio.create_task(asks(agents))
    await waiting(agents)
    command = agents.order(NEAR, order, parcel)
    answer = await asking
    assert (answer["status"], answer["command"], base64.b64decode(answer["order"])) == ("command", order, parcel)
    return command


async def begun(agents: WaitingCommands, order: str = "1") -> Command:
    """The same, begun."""
    command = await given(agents, order)
    assert (await agents.put(agents.belongs(NEAR, order), 0, None, None)).received
    return command


async def everything(agents: WaitingCommands, command: Command) -> list[Event]:
    return [event async for event in agents.follow(command) if event is not None]


def test_an_order_gets_to_the_agent_and_what_it_prints_comes_back() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        await agents.put(command, 1, Output("stdout", b"one\n"), None)
        await agents.put(command, 2, Output("stdout", b"two\n"), None)
        await agents.put(command, 3, Output("stderr", b"\xff"), None)
        await agents.put(command, 4, None, End("ended", 3))

        assert await everything(agents, command) == [
            Begun(),
            Output("stdout", b"one\ntwo\n"),
            Output("stderr", b"\xff"),
            End("ended", 3),
        ]

    play(story())


def test_an_agent_that_refuses_has_not_begun() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await given(agents)
        await agents.put(command, 0, None, End("refused", None, "Not signed."))

        assert await everything(agents, command) == [End("refused", None, "Not signed.")]

    play(story())


def test_an_agent_gets_no_more_than_it_has_room_for() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        await begun(agents, "1")
        asking = asyncio.create_task(asks(agents, room=0))
        await waiting(agents)
        late = agents.order(NEAR, "2", b"")

        assert await everything(agents, late) == [End("unreachable", reason="its agent is busy with other commands.")]
        assert not asking.done()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    play(story())


def test_an_order_that_waits_is_given_when_another_command_ends_while_the_agent_waits() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        first = await begun(agents, "1")
        asking = asyncio.create_task(asks(agents, room=0))
        await waiting(agents)
        agents.order(NEAR, "2", b"")
        await agents.put(first, 1, None, End("ended", 0))

        assert (await asyncio.wait_for(asking, 1))["command"] == "2"

    play(story())


def test_a_beginning_that_comes_after_the_end_is_told_to_stop() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await given(agents)
        await agents.put(command, 0, None, End("refused", None, "The command came before."))

        assert await agents.put(command, 0, None, None) == Verdict(received=True, stop=True)

    play(story())


def test_nobody_is_given_an_order_whose_agent_is_not_there() -> None:
    with pytest.raises(Unavailable, match="listen --commands"):
        WaitingCommands(QUICK).order(NEAR, "1", b"")


def test_an_order_is_taken_once() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        await begun(agents)
        asking = asyncio.create_task(asks(agents))
        await waiting(agents)
        with pytest.raises(AlreadyExists):
            agents.order(NEAR, "1", b"")
        agents.let_go()
        await asking

    play(story())


def test_an_order_that_did_not_arrive_is_given_again_and_one_that_began_never() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await given(agents)

        assert (await asks(agents))["command"] == "1"
        await agents.put(command, 0, None, None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asks(agents), 0.3)

    play(story())


def test_an_order_that_the_agent_never_begins_is_given_up_and_may_not_begin_later() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await given(agents)
        holding = asyncio.create_task(asks(agents, room=0))

        (end,) = await everything(agents, command)

        assert isinstance(end, End)
        assert end.ending == "unreachable"
        with pytest.raises(NotFound):
            agents.check(agents.belongs(NEAR, "1"), 0)
        holding.cancel()

    play(story())


def test_a_silent_command_hears_at_once_that_it_is_to_stop() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        asking = asyncio.create_task(asks(agents))
        await waiting(agents)

        agents.stop(NEAR, "1")

        assert await asking == {"status": "stop", "command": "1"}
        assert (await asks(agents))["status"] == "stop"  # it is told again until it has ended
        verdict = await agents.put(command, 1, None, End("aborted", 143))
        assert (verdict.received, verdict.stop) == (True, True)
        assert (await everything(agents, command))[-1] == End("aborted", 143)

    play(story())


def test_a_command_that_is_stopped_before_it_began_does_not_begin() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await given(agents)

        agents.stop(NEAR, "1")

        assert await everything(agents, command) == [End("aborted", reason="Stopped before it began.")]
        with pytest.raises(NotFound):
            agents.check(agents.belongs(NEAR, "1"), 0)

    play(story())


def test_a_command_that_nobody_follows_any_more_is_stopped_and_its_output_dropped() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        async with aclosing(agents.follow(command)) as events:
            assert await anext(events) == Begun()

        for number in range(1, 4):
            large = Output("stdout", b"x" * waiting_commands.BUFFER_BYTES)
            verdict = await agents.put(command, number, large, None)
            assert (verdict.received, verdict.stop) == (True, True)

    play(story())


def test_output_that_nobody_reads_is_sent_again_and_never_left_out() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        full = Output("stdout", b"x" * waiting_commands.BUFFER_BYTES)
        assert (await agents.put(command, 1, full, None)).received
        assert not (await agents.put(command, 2, Output("stdout", b"y"), None)).received

        async with aclosing(agents.follow(command)) as events:
            assert [await anext(events), await anext(events)] == [Begun(), full]
            assert (await agents.put(command, 2, Output("stdout", b"y"), None)).received
            assert await anext(events) == Output("stdout", b"y")

    play(story())


def test_a_piece_that_comes_again_counts_once_and_one_that_is_too_early_not_at_all() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        for _ in range(2):
            assert (await agents.put(command, 1, Output("stdout", b"a"), None)).received
        with pytest.raises(Conflict):
            agents.check(command, 3)
        await agents.put(command, 2, None, End("ended", 0))

        assert await everything(agents, command) == [Begun(), Output("stdout", b"a"), End("ended", 0)]

    play(story())


@pytest.mark.parametrize("stopped", [False, True])
def test_a_command_of_which_nothing_more_is_heard_is_lost(*, stopped: bool) -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        if stopped:
            agents.stop(NEAR, "1")

        end = (await everything(agents, command))[-1]

        assert isinstance(end, End)
        assert (end.ending, bool(end.reason)) == ("lost", True)

    play(story())


def test_commands_of_a_process_that_was_started_anew_are_lost() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)
        anew = asyncio.create_task(asks(agents, listener="b"))

        assert (await everything(agents, command))[-1] == End("lost", reason="its agent was started anew.")
        anew.cancel()

    play(story())


def test_a_server_that_ends_keeps_nobody_waiting_for_the_end_of_a_command() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        command = await begun(agents)

        agents.let_go()

        first, end = await everything(agents, command)
        assert (first, isinstance(end, End) and end.ending) == (Begun(), "lost")
        with pytest.raises(NotFound):
            agents.check(command, 1)
        assert await asks(agents) == {"status": "idle"}

    play(story())


def test_another_node_knows_nothing_of_a_command() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        await begun(agents)

        with pytest.raises(NotFound):
            agents.belongs(FAR, "1")
        with pytest.raises(NotFound):
            agents.stop(FAR, "1")

    play(story())


# -- over the tree ------------------------------------------------------------------------


def commands(agents: WaitingCommands | None = None, others: WaitingAgents | None = None) -> NodeCommands:
    """NEAR and RELAY are served by the root, FAR by RELAY."""
    servers = {ROOT: ROOT, NEAR: ROOT, RELAY: ROOT, FAR: RELAY}
    topology = Topology(ROOT, {node: ListedNode(f"{node}.test", of) for node, of in servers.items()})
    listing = Listing(topology=topology)
    nodes = NodesList(lambda: listing)
    return NodeCommands(nodes=nodes, agents=agents or WaitingCommands(QUICK), others=others or WaitingAgents())


async def told(of: NodeCommands, node: NodeId) -> list[Event]:
    text = b"".join([piece async for piece in of.order(node, "1", b"sealed")])
    return [event for line in text.splitlines() if (event := lines.decode(line)) is not None]


@pytest.mark.parametrize(
    ("node", "why"),
    [(NEAR, "does not wait here for commands"), (FAR, "no way to the relay"), (NodeId("gone"), "not below")],
    ids=["here", "behind a relay", "unknown"],
)
def test_what_does_not_get_to_a_node_says_so_in_the_answer(node: NodeId, why: str) -> None:
    async def story() -> None:
        (end,) = await told(commands(), node)
        assert isinstance(end, End)
        assert end.ending == "unreachable"
        assert why in end.reason

    play(story())


def test_of_an_agent_that_waits_for_runs_only_it_is_said_that_it_takes_no_commands() -> None:
    async def story() -> None:
        others = WaitingAgents()
        holding = asyncio.ensure_future(anext(others.hold(NEAR)))
        while not others.count:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.005)

        (end,) = await told(commands(others=others), NEAR)

        assert isinstance(end, End)
        assert "takes no commands" in end.reason
        others.let_go()
        await holding

    play(story())


def test_who_stops_reading_the_answer_has_the_command_stopped() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        asking = asyncio.create_task(asks(agents))
        await waiting(agents)
        async with aclosing(commands(agents).order(NEAR, "1", b"sealed")) as pieces:
            reading = asyncio.ensure_future(anext(pieces))
            await asking
            await agents.put(agents.belongs(NEAR, "1"), 0, None, None)
            assert lines.decode(await reading) == Begun()

        assert await asks(agents) == {"status": "stop", "command": "1"}

    play(story())


def test_an_answer_that_nobody_ever_reads_orders_nothing() -> None:
    async def story() -> None:
        agents = WaitingCommands(QUICK)
        asking = asyncio.create_task(asks(agents))
        await waiting(agents)

        await commands(agents).order(NEAR, "1", b"sealed").aclose()

        agents.let_go()
        assert await asking == {"status": "idle"}

    play(story())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"started": true}\n', "What is told of a command cannot be read"),
        (b"x" * (streams.LONGEST_LINE + 1), "says a line that has no end"),
    ],
    ids=["unknown", "endless"],
)
def test_a_relay_that_says_what_nobody_understands_may_have_had_the_command_begin(said: bytes, why: str) -> None:
    class Saying(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(said)

        def log_message(self, *_: object) -> None: ...

    async def story(url: str) -> None:
        signer = Signer(node=ROOT, key=SigningKey(rsa.generate_private_key(65537, 2048).private_bytes(*PEM)))
        below = own(url, "", signer)
        (end,) = [event async for event in below.order(NEAR, "1", b"sealed")]
        assert isinstance(end, End)
        assert end.ending == "lost"
        assert why in end.reason

    with ThreadingHTTPServer(("127.0.0.1", 0), Saying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        play(story(f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()


@pytest.mark.parametrize(
    "event", [Begun(), Output("stderr", bytes(range(256))), End("ended", 7), End("lost", reason="Why?")], ids=str
)
def test_what_is_told_is_read_as_it_was_written(event: Event) -> None:
    assert lines.decode(lines.encode(event)) == event
