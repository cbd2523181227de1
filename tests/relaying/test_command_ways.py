# SPDX-License-Identifier: Apache-2.0
"""Ways to nodes by a command: real programs are started, read, counted, ended, and refused what they could misread."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.sshd import USER, Sshd, free_port, runs

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.core.remote_run_commands import Command
from quarterdeck.core.remote_runs import Form, Order, Wanted
from quarterdeck.relaying import command_ways
from quarterdeck.relaying.command_ways import CommandWay
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.waiting_agents import Ended, WaitingAgents

NODE = NodeId("1a000000-0000-4000-8000-000000000001")
HOST = "near.example.com"
#: The peer's command line as the documentation gives it, around a program of the test's own.
PEER = ("remote", "run", ("-D", "{conditions}"), "--", "{hostname}")


def way(*items: str | tuple[str, ...], at_once: int = 4, seconds: float = 20.0, name: str = "other") -> CommandWay:
    (made,) = command_ways.ways([Command(name=name, items=items)], at_once=at_once, seconds=seconds)
    return made


def python(code: str, *items: str | tuple[str, ...], **limits: Any) -> CommandWay:
    """A way over a program of Python."""
    return way(sys.executable, "-c", code, *(items or ("{hostname}",)), **limits)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 40))


async def told(one: CommandWay, order: Order | None = None, hostname: str = HOST) -> tuple[str, Ended | None]:
    """Everything that is printed, and the end."""
    output, end = b"", None
    async for piece in one.run(NODE, hostname, order or Order()):
        if isinstance(piece, Ended):
            end = piece
        else:
            output += piece
    return output.decode(), end


async def until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not look():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def remote(*ways: CommandWay) -> RemoteRuns:
    listed = {NODE: ListedNode(HOST, NodeId("root"))}
    nodes = NodesList(lambda: Listing(topology=Topology(NodeId("root"), listed)))
    return RemoteRuns(nodes=nodes, agents=WaitingAgents(), ways=ways)


async def everything(pieces: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in pieces]).decode()


# -- what is started -----------------------------------------------------------------------


def test_statement_30_the_peers_command_line_is_as_the_peer_has_it(tmp_path: Path) -> None:
    program = tmp_path / "rudder"
    program.write_text('#!/bin/sh\nfor one in "$@"; do echo "[$one]"; done\necho complaint >&2\n')
    program.chmod(0o755)
    one = remote(way(str(program), *PEER, name="rudder"))

    async def story() -> None:
        with_some = await everything(one.ask(Wanted(nodes=(NODE,), conditions=("a", "b"), keep_output=True)))
        without = await everything(one.ask(Wanted(nodes=(NODE,), keep_output=True)))

        assert with_some.split() == ["[remote]", "[run]", "[-D]", "[a,b]", "[--]", f"[{HOST}]"]
        assert without.split() == ["[remote]", "[run]", "[--]", f"[{HOST}]"]

    play(story())


def test_statement_31_the_first_line_comes_before_the_command_ends() -> None:
    async def story() -> None:
        one = remote(python("import sys, time; print('first', flush=True); sys.stdin.read(); time.sleep(30)"))
        async with one.working(), aclosing(one.ask(Wanted(nodes=(NODE,), keep_output=True))) as pieces:
            assert await anext(pieces) == b"first\n"

    play(story())


def test_statement_32_who_does_not_wait_is_answered_before_the_command_ends(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time, pathlib; time.sleep(0.3); pathlib.Path({str(mark)!r}).touch()"

    async def story() -> None:
        one = remote(python(code))
        async with one.working():
            assert await everything(one.ask(Wanted(nodes=(NODE,), asynchronous=True))) == ""
            assert not mark.exists()
            await until(mark.exists)

    play(story())


def test_statement_33_who_waits_without_output_is_answered_after_the_end(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time, pathlib; print('x'); time.sleep(0.3); pathlib.Path({str(mark)!r}).touch()"

    async def story() -> None:
        assert await everything(remote(python(code)).ask(Wanted(nodes=(NODE,)))) == ""
        assert mark.exists()

    play(story())


@pytest.mark.parametrize(
    "hostname",
    ["-oProxyCommand=touch x", "-D", "", "a b", "a,b", "root@a", "a;b", "a\nb", "$(a)", "a/../b", "ä.example.com", "*"],
)
def test_names_that_a_program_could_misread_are_refused(hostname: str) -> None:
    async def story() -> None:
        with pytest.raises(Unavailable, match="characters that are not put into a command"):
            await told(python("raise SystemExit(0)"), hostname=hostname)

    play(story())


def test_the_node_can_be_named_by_its_id_and_settings_of_ours_are_not_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUARTERDECK_DATABASE_URL", "postgresql://u:secret@h/d")
    code = "import os, sys; print(sys.argv[1], [name for name in os.environ if name.startswith('QUARTERDECK')])"

    async def story() -> None:
        assert await told(python(code, "id={node}")) == (f"id={NODE} []\n", Ended(status=0))

    play(story())


def test_what_a_command_cannot_do_is_refused_before_it_starts() -> None:
    async def story() -> None:
        one = python("print('ran')")
        with pytest.raises(Unavailable, match="takes no conditions"):
            await told(one, Order(conditions=("a",)))
        with pytest.raises(Unavailable, match="no more than have agents run"):
            await told(one, Order(audit=True))

    play(story())


@pytest.mark.parametrize(
    ("name", "items", "sentence"),
    [
        ("ssh", (), "has no program"),
        ("ssh", ("",), "has no program"),
        ("ssh", (("ssh", "{hostname}"),), "has no program"),
        ("ssh", ("ssh", "host"), "names no node"),
        ("ssh", ("ssh", "{host}"), r"has \{host\}: there are"),
        ("ssh", ("ssh", "{hostname}", "-D", "{conditions}"), r"has \{conditions\}: there are .* in a list of its own"),
        ("ssh", ("ssh", "{hostname}", ("-D", "{classes}")), r"has \{classes\}"),
        ("Over SSH", ("ssh", "{hostname}"), "is no name for a command"),
        ("agent", ("ssh", "{hostname}"), "is no name for a command"),
    ],
)
def test_commands_that_cannot_be_meant_so_are_refused(
    name: str, items: tuple[str | tuple[str, ...], ...], sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        Command(name=name, items=items)


# -- how it ends ---------------------------------------------------------------------------


def test_a_program_that_is_missing_reaches_nobody_and_the_next_way_is_tried() -> None:
    async def story() -> None:
        one = remote(way("/nowhere/ssh", "{hostname}", name="first"), python("print('second')", name="second"))

        output = await everything(one.ask(Wanted(nodes=(NODE,), keep_output=True, form=Form.JSON)))

        text, end = map(json.loads, output.splitlines())
        assert text["text"] == "second"
        assert (end["status"], end["via"]) == (0, "second")
        assert [one["way"] for one in end["tried"]] == ["agent", "first"]
        assert end["tried"][1]["problem"] == "/nowhere/ssh cannot be started: No such file or directory."

    play(story())


def test_the_last_complaint_says_why_a_node_was_not_reached() -> None:
    code = "import sys; sys.stderr.write('trying\\nno route\\x1b to host\\n'); sys.exit(255)"

    async def story() -> None:
        output = await everything(remote(python(code, name="ssh")).ask(Wanted(nodes=(NODE,), keep_output=True)))
        assert output.endswith("(quarterdeck-agent listen). By ssh: no route  to host\n")

    play(story())


def test_who_printed_something_was_reached_whatever_the_status() -> None:
    async def story() -> None:
        assert await told(python("print('here'); raise SystemExit(255)")) == ("here\n", Ended(status=255))
        assert await told(python("raise SystemExit(3)")) == ("", Ended(status=3))
        assert await told(python("import os; os.kill(os.getpid(), 9)")) == (
            "",
            Ended(problem="other was ended by signal 9."),
        )

    play(story())


def test_standard_error_is_logged_and_never_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quarterdeck.relaying.command_ways")

    async def story() -> None:
        code = "import sys; print('out'); sys.stderr.write('x' * 100000 + '\\nsecond')"
        assert await told(python(code)) == ("out\n", Ended(status=0))

    play(story())
    first, second = [one.getMessage() for one in caplog.records if "Run of node" in one.getMessage()]
    assert first.endswith("x" * 500)
    assert len(first) < 700
    assert second == f"Run of node {NODE} by other: second"


STUBBORN = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "time.sleep(300)\n"
)


def test_a_command_that_takes_too_long_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_ways, "_GRACE_SECONDS", 0.2)

    async def story() -> None:
        output, end = await told(python(STUBBORN, seconds=1.0))

        assert end == Ended(problem="other takes longer than 1 s.")
        for pid in map(int, output.split()):
            await until(lambda pid=pid: not runs(pid))  # type: ignore[misc]  # a lambda's default

    play(story())


def test_commands_end_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_ways, "_GRACE_SECONDS", 0.2)

    async def story() -> None:
        one = remote(python(STUBBORN))
        async with one.working():
            async with aclosing(one.ask(Wanted(nodes=(NODE,), keep_output=True))) as pieces:
                numbers = (await anext(pieces)).split()
            assert all(runs(int(pid)) for pid in numbers)
        for pid in map(int, numbers):
            await until(lambda pid=pid: not runs(pid))  # type: ignore[misc]  # a lambda's default

    play(story())


def test_who_goes_away_lets_the_command_go_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import pathlib, time\nprint('first', flush=True)\ntime.sleep(0.2)\n"
        f"print('x' * 1_000_000, flush=True)\npathlib.Path({str(mark)!r}).touch()"
    )

    async def story() -> None:
        one = python(code)
        async with aclosing(one.run(NODE, HOST, Order())) as pieces:
            await anext(pieces)
        await until(mark.exists)

    play(story())


def test_much_output_waits_for_its_reader_and_comes_whole_after_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        size = 0
        async for piece in python("print('x' * 999_999)").run(NODE, HOST, Order()):
            if isinstance(piece, Ended):
                assert piece == Ended(status=0)
            else:
                size += len(piece)
                await asyncio.sleep(0.02)
        assert size == 1_000_000

    play(story())


def test_a_command_that_cannot_be_followed_is_ended_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def full(pid: int, _flags: int = 0) -> int:
        pids.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", full)

    async def story() -> None:
        one = python("import time; time.sleep(60)", at_once=1)
        for _ in range(2):  # it gave its turn back
            output, end = await told(one)
            assert (output, end) == ("", Ended(problem="other cannot be followed: Too many open files."))
        assert not any(map(runs, pids))

    play(story())


def test_what_a_command_left_running_does_not_hold_up_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_ways, "_LINGER_SECONDS", 0.1)
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(child.pid)"
    )

    async def story() -> None:
        output, end = await told(python(code))
        assert end == Ended(status=0)
        await until(lambda: not runs(int(output)))

    play(story())


def test_only_so_many_run_at_the_same_time(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "mine = here / str(os.getpid()); mine.touch()\n"
        "print(len(list(here.iterdir())), flush=True); time.sleep(0.05); mine.unlink()\n"
    )

    async def story() -> None:
        one = python(code, at_once=2)
        found = await asyncio.gather(*(told(one) for _ in range(6)))
        assert max(int(output) for output, _ in found) <= 2
        assert all(end == Ended(status=0) for _, end in found)

    play(story())


# -- the real thing ------------------------------------------------------------------------


def test_a_node_is_reached_over_ssh_and_one_that_is_not_there_says_why(sshd: Sshd, tmp_path: Path) -> None:
    ssh = shutil.which("ssh")
    assert ssh is not None
    agent = tmp_path / "quarterdeck-agent"
    agent.write_text('#!/bin/sh\necho "$SSH_CONNECTION" | cut -d" " -f3\necho "agent: $*"\nexit 2\n')
    agent.chmod(0o755)
    options = [
        *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}"),
        *("-F", "none", "-i", str(sshd.key), "-l", USER),
    ]
    one = way(
        ssh,
        *options,
        "-p",
        str(sshd.address.port),
        "--",
        "{hostname}",
        str(agent),
        "run",
        ("-D", "{conditions}"),
        name="ssh",
    )
    closed = way(
        ssh, *options, "-p", str(free_port()), "--", "{hostname}", "true", ("-D", "{conditions}"), name="closed"
    )

    async def story() -> None:
        reached = await told(one, Order(conditions=("a", "b")), hostname="127.0.9.1")
        assert reached == ("127.0.9.1\nagent: run -D a,b\n", Ended(status=2))

        unreached = remote(closed)
        unreached.nodes = NodesList(
            lambda: Listing(topology=Topology(NodeId("root"), {NODE: ListedNode("127.0.9.1", NodeId("root"))}))
        )
        output = await everything(unreached.ask(Wanted(nodes=(NODE,), keep_output=True)))
        assert "By closed: ssh: connect to host 127.0.9.1 port" in output
        assert "Connection refused" in output

    play(story())
