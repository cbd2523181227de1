# SPDX-License-Identifier: Apache-2.0
"""Commands over real SSH: their output and their ends, how they are stopped, and which connections they share."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.sshd import USER, Kept, Sshd, generate_key, runs

from quarterdeck.core import job_context
from quarterdeck.core.connections import Address, Hop
from quarterdeck.core.jobs import Script
from quarterdeck.engine import steps
from quarterdeck.engine.ssh import Access, Bounds, Pool
from quarterdeck.engine.transports import KILL_SECONDS, TERM_SECONDS, Command, NodeResult, Sink, Stream

T = TypeVar("T")
StartSshd = Callable[..., Sshd]


def with_pool(work: Callable[[Pool], Awaitable[T]], bounds: Bounds | None = None) -> T:
    """Work with a pool and close it; nothing that it began may be left, and no failure untold."""
    told: list[object] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        pool = Pool(bounds=bounds)
        try:
            return await work(pool)
        finally:
            await pool.close()
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left
            assert pool.open == 0

    result = asyncio.run(main())
    assert told == []
    return result


async def run_in(pool: Pool, access: Access, line: str, sink: Sink | None = None, **command: object) -> NodeResult:
    wanted = Command(line=line, **command)  # type: ignore[arg-type]  # the test names fields
    return await pool.transport(access).run(wanted, sink or Kept(), asyncio.Event())


def run(access: Access, line: str, **command: object) -> tuple[NodeResult, Kept]:
    kept = Kept()
    return with_pool(lambda pool: run_in(pool, access, line, kept, **command)), kept


def stopped(access: Access, line: str, *, after: Callable[[Kept], Awaitable[object]]) -> tuple[NodeResult, float]:
    """The result of a command that is stopped at some moment, and how long it took from then."""

    async def work(pool: Pool) -> tuple[NodeResult, float]:
        kept, stop = Kept(), asyncio.Event()
        running = asyncio.ensure_future(pool.transport(access).run(Command(line=line), kept, stop))
        await after(kept)
        begun = time.monotonic()
        stop.set()
        return await running, time.monotonic() - begun

    return with_pool(work)


async def first_output(kept: Kept) -> None:
    await asyncio.wait_for(kept.came.wait(), 20)


def until_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


# Ends and output


def test_a_command_runs_on_the_node_and_says_how_it_ended(sshd: Sshd) -> None:
    result, kept = run(sshd.access(), "echo hello; exit 3")

    assert result == NodeResult(ending="ended", exit_status=3)
    assert kept.stdout == b"hello\n"


def test_errors_come_apart_from_output(sshd: Sshd) -> None:
    _, kept = run(sshd.access(), "echo out; echo err >&2")

    assert (kept.stdout, kept.stderr) == (b"out\n", b"err\n")


def test_bytes_arrive_unchanged_both_ways(sshd: Sshd) -> None:
    every_byte = bytes(range(256)) * 5000

    result, kept = run(sshd.access(), "cat", stdin=every_byte)

    assert result.succeeded
    assert kept.stdout == every_byte


def test_without_input_a_command_finds_its_end_at_once(sshd: Sshd) -> None:
    result, kept = run(sshd.access(), "wc -c")

    assert result.succeeded
    assert kept.stdout.strip() == b"0"


def test_the_node_gets_the_environment_that_it_accepts(sshd: Sshd) -> None:
    environment = {"RD_OPTION_COLOR": "räd\n;", "SOMETHING": "else"}

    _, kept = run(sshd.access(), 'printf %s "$RD_OPTION_COLOR$SOMETHING"', environment=environment)

    assert kept.stdout.decode() == "räd\n;"


def test_a_command_that_a_signal_ended_says_so(sshd: Sshd) -> None:
    result, _ = run(sshd.access(), "kill -SEGV $$")

    assert (result.ending, result.exit_status, result.reason) == ("ended", 139, "ended by signal SEGV")


def test_command_lines_are_not_logged(sshd: Sshd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    run(sshd.access(), "echo secret", environment={"RD_OPTION_X": "secret"})

    assert "secret" not in caplog.text


def test_a_nul_in_a_command_is_refused(sshd: Sshd) -> None:
    result, _ = run(sshd.access(), "echo \0")

    assert (result.ending, "NUL" in result.reason) == ("refused", True)


class Slow:
    """Takes a megabyte, then asks to wait a moment."""

    def __init__(self) -> None:
        self.size = self.room = 0
        self.waits = 0

    def write(self, stream: Stream, data: bytes) -> bool:
        self.size += len(data)
        self.room -= len(data)
        return self.room > 0

    async def ready(self) -> None:
        self.waits += 1
        await asyncio.sleep(0.001)
        self.room = 1 << 20


def test_huge_output_is_held_back_and_takes_no_memory(sshd: Sshd) -> None:
    slow = Slow()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    result = with_pool(lambda pool: run_in(pool, sshd.access(), "head -c 64000000 /dev/zero", slow))

    assert result.succeeded
    assert slow.size == 64_000_000
    assert slow.waits > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB


def test_a_hundred_nodes_at_once(sshd: Sshd) -> None:
    async def work(pool: Pool) -> list[tuple[NodeResult, bytes]]:
        async def on(number: int) -> tuple[NodeResult, bytes]:
            kept = Kept()
            access = sshd.access(f"127.0.9.{number}")
            return await run_in(pool, access, "echo ${SSH_CONNECTION% *}", kept), kept.stdout

        return await asyncio.gather(*(on(number) for number in range(1, 101)))

    for number, (result, output) in enumerate(with_pool(work), 1):
        assert result.succeeded, result
        assert output.split()[-1].decode() == f"127.0.9.{number}"


def test_a_script_runs_on_a_node_and_leaves_nothing_there(sshd: Sshd, tmp_path: Path) -> None:
    values = job_context.context({"name": "it's $HOME"}, {})
    step = Script('#!/bin/bash\necho "$0|$1|$RD_OPTION_NAME"; ls -A "${0%/*}" | wc -l; exit 5\n', "${option.name}")
    command = steps.command_of(step, values, copy_directory=str(tmp_path))
    kept = Kept()

    result = with_pool(lambda pool: pool.transport(sshd.access()).run(command, kept, asyncio.Event()))

    assert result == NodeResult(ending="ended", exit_status=5)
    path, argument, environment = kept.stdout.decode().splitlines()[0].split("|")
    assert (argument, environment) == ("it's $HOME", "it's $HOME")
    assert path.startswith(f"{tmp_path}/.quarterdeck-")
    assert kept.stdout.decode().splitlines()[1].strip() == "1"
    assert list(tmp_path.iterdir()) == []


def test_a_script_that_is_stopped_leaves_nothing_on_the_node(sshd: Sshd, tmp_path: Path) -> None:
    command = steps.command_of(Script("echo begun; sleep 300\n"), {}, copy_directory=str(tmp_path))

    async def work(pool: Pool) -> NodeResult:
        kept, stop = Kept(), asyncio.Event()
        running = asyncio.ensure_future(pool.transport(sshd.access()).run(command, kept, stop))
        await first_output(kept)
        stop.set()
        return await running

    assert with_pool(work).ending == "aborted"
    assert list(tmp_path.iterdir()) == []


# Keys


def offering(sshd: Sshd, key: Path, **access: object) -> Access:
    connection = sshd.connection(key_path=str(key))
    trusted = {sshd.address: (sshd.host_key,)}
    return Access(connection=connection, trusted=trusted, **access)  # type: ignore[arg-type]  # the test names fields


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_of_all_kinds_open_a_node(kind: str, sshd: Sshd, tmp_path: Path) -> None:
    sshd.allow(generate_key(tmp_path / "key", kind=kind))

    result, _ = run(offering(sshd, tmp_path / "key"), "true")

    assert result.succeeded, result


def test_a_passphrase_opens_the_key(sshd: Sshd, tmp_path: Path) -> None:
    sshd.allow(generate_key(tmp_path / "key", kind="ecdsa", passphrase="open sesame", form="PKCS8"))

    right, _ = run(offering(sshd, tmp_path / "key", passphrase="open sesame"), "true")
    wrong, _ = run(offering(sshd, tmp_path / "key", passphrase="open"), "true")
    none, _ = run(offering(sshd, tmp_path / "key"), "true")

    assert right.succeeded, right
    assert (wrong.ending, none.ending) == ("refused", "refused")
    assert wrong.reason == f"The passphrase does not open the SSH key {tmp_path / 'key'}."
    assert none.reason == f"No passphrase is set for the SSH key {tmp_path / 'key'}."


def test_a_passphrase_opens_a_key_in_the_form_of_ssh_keygen(sshd: Sshd, tmp_path: Path) -> None:
    pytest.importorskip("bcrypt", reason="asyncssh needs it for this form")
    sshd.allow(generate_key(tmp_path / "key", passphrase="open sesame"))

    result, _ = run(offering(sshd, tmp_path / "key", passphrase="open sesame"), "true")

    assert result.succeeded, result


def test_the_key_itself_may_be_given(sshd: Sshd) -> None:
    connection = sshd.connection(key_path="/nowhere")
    access = Access(connection=connection, private_key=sshd.key.read_bytes(), trusted={sshd.address: (sshd.host_key,)})

    result, _ = run(access, "true")

    assert result.succeeded, result
    assert "PRIVATE" not in repr(access)


def test_a_missing_key_file_is_told(sshd: Sshd) -> None:
    result, _ = run(offering(sshd, Path("/nowhere/key")), "true")

    assert result == NodeResult(ending="refused", reason="SSH Keyfile does not exist: /nowhere/key")


def test_a_file_that_is_no_key_is_told(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hello")

    result, _ = run(offering(sshd, tmp_path / "key"), "true")

    assert (result.ending, str(tmp_path / "key") in result.reason) == ("refused", True)


def test_without_any_key_nothing_begins(sshd: Sshd) -> None:
    result, _ = run(sshd.access(key_path=""), "true")

    assert result == NodeResult(ending="refused", reason="No SSH key is set for node 'node'.")


def test_a_wrong_key_is_told(sshd: Sshd, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")

    result, _ = run(offering(sshd, tmp_path / "key"), "true")

    assert result.ending == "login"
    assert f"user '{USER}'" in result.reason


@pytest.fixture
def agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running ssh-agent that holds a key which the nodes let in; its socket."""
    sshd.allow(generate_key(tmp_path / "agents"))
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 10
        while not Path(path).exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        subprocess.run(["ssh-add", "-q", str(tmp_path / "agents")], check=True)
        (tmp_path / "agents").unlink()
        yield path
        process.terminate()


@pytest.mark.usefixtures("agent")
def test_the_agent_of_the_server_is_asked_when_the_node_wants_it(sshd: Sshd, tmp_path: Path) -> None:
    generate_key(tmp_path / "other")

    asked, _ = run(sshd.access(key_path="", agent=True), "test -z $SSH_AUTH_SOCK")
    not_asked, _ = run(sshd.access(key_path=str(tmp_path / "other")), "true")

    assert asked.succeeded, asked
    assert not_asked.ending == "login"


def test_a_missing_agent_is_told(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere/agent")

    result, _ = run(sshd.access(key_path="", agent=True), "true")

    assert (result.ending, "/nowhere/agent" in result.reason) == ("refused", True)


# No connection


def test_a_closed_port_is_told(sshd: Sshd) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hop = Hop(Address("127.0.0.1", closed.getsockname()[1]), USER)

        result, _ = run(sshd.access(hop=hop), "true")

    assert result.ending == "unreachable"
    assert str(hop.address) in result.reason


@pytest.fixture
def silent() -> Iterator[Hop]:
    """A host that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield Hop(Address("127.0.0.1", listening.getsockname()[1]), USER)


def test_a_host_that_does_not_answer_is_given_up(sshd: Sshd, silent: Hop) -> None:
    result, _ = run(sshd.access(hop=silent, connect_seconds=0.3), "true")

    assert result == NodeResult(ending="unreachable", reason=f"No connection to {silent.address} within 0.3 seconds.")


def test_stopping_while_connecting_gives_up_at_once(sshd: Sshd, silent: Hop) -> None:
    result, seconds = stopped(sshd.access(hop=silent), "true", after=lambda _: asyncio.sleep(0.2))

    assert (result.ending, seconds < 1) == ("aborted", True)


def test_a_command_that_is_stopped_before_does_not_begin(sshd: Sshd, tmp_path: Path) -> None:
    result, _ = stopped(sshd.access(), f"touch {tmp_path}/begun", after=lambda _: asyncio.sleep(0))

    assert result.ending == "aborted"
    assert not (tmp_path / "begun").exists()


# Stopping


def test_stopping_ends_all_processes_of_a_command(sshd: Sshd) -> None:
    line = "sleep 300 & echo $!; wait"
    kept = Kept()

    async def noting(seen: Kept) -> None:
        await first_output(seen)
        kept.stdout = seen.stdout

    result, seconds = stopped(sshd.access(), line, after=noting)

    assert (result.ending, seconds < TERM_SECONDS) == ("aborted", True)
    until_gone(int(kept.stdout))


def test_stopping_kills_what_ignores_a_first_request(sshd: Sshd) -> None:
    line = "trap '' TERM; echo begun; while :; do sleep 300; done"

    result, seconds = stopped(sshd.access(), line, after=first_output)

    assert result.ending == "aborted"
    assert TERM_SECONDS <= seconds < TERM_SECONDS + KILL_SECONDS


def test_stopping_finds_what_has_left_its_session(sshd: Sshd) -> None:
    line = "setsid sh -c 'echo begun; exec sleep 10' & wait"

    result, seconds = stopped(sshd.access(), line, after=first_output)

    assert (result.ending, seconds < TERM_SECONDS) == ("aborted", True)


def test_stopping_leaves_behind_what_got_away(sshd: Sshd) -> None:
    """A process in a session of its own, without the mark of the command, keeps the channel open."""
    line = "setsid env -i sh -c 'echo $$; exec sleep 10' & wait"

    result, seconds = stopped(sshd.access(), line, after=first_output)

    assert result.ending == "abandoned"
    assert "may still run" in result.reason
    assert TERM_SECONDS + KILL_SECONDS <= seconds < TERM_SECONDS + KILL_SECONDS + 1


@pytest.mark.parametrize(("of_node", "of_command"), [(0.3, 0), (0, 0.3), (300, 0.3)])
def test_a_command_that_takes_too_long_is_ended(of_node: float, of_command: float, sshd: Sshd) -> None:
    begun = time.monotonic()

    result, _ = run(sshd.access(run_seconds=of_node), "sleep 300", run_seconds=of_command)

    assert (result.ending, result.reason) == ("timeout", "The command took longer than it may.")
    assert time.monotonic() - begun < 0.3 + TERM_SECONDS


def test_a_run_that_is_cancelled_takes_its_command_with_it(sshd: Sshd) -> None:
    async def work(pool: Pool) -> int:
        kept = Kept()
        running = asyncio.ensure_future(run_in(pool, sshd.access(), "echo $$; exec sleep 300", kept))
        await first_output(kept)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return int(kept.stdout)

    until_gone(with_pool(work))


# Broken connections


def test_a_connection_that_breaks_is_told_and_the_command_not_sent_again(sshds: StartSshd, tmp_path: Path) -> None:
    sshd = sshds("127.0.8.1")

    async def work(pool: Pool) -> NodeResult:
        kept = Kept()
        line = f"echo begun >>{tmp_path}/log; echo begun; sleep 5"
        running = asyncio.ensure_future(run_in(pool, sshd.access(), line, kept))
        await first_output(kept)
        sshd.kill_sessions()
        return await running

    result = with_pool(work)

    assert result.ending == "lost"
    assert result.reason.startswith("The connection broke while the command ran")
    assert (tmp_path / "log").read_text() == "begun\n"


def test_a_kept_connection_that_broke_is_replaced(sshds: StartSshd) -> None:
    sshd = sshds("127.0.8.2")

    async def work(pool: Pool) -> list[NodeResult]:
        first = await run_in(pool, sshd.access(), "true")
        sshd.kill_sessions()
        # At once: this process has not heard of it yet.
        second = await run_in(pool, sshd.access(), "true")
        assert pool.opened == 2
        return [first, second]

    assert all(result.succeeded for result in with_pool(work))


def test_a_kept_connection_that_does_not_answer_is_replaced(sshds: StartSshd) -> None:
    sshd = sshds("127.0.8.10")

    async def work(pool: Pool) -> NodeResult:
        access = sshd.access(connect_seconds=1)
        await run_in(pool, access, "true")
        sshd.freeze_sessions()
        return await run_in(pool, access, "true")

    assert with_pool(work).succeeded


def test_a_peer_that_falls_silent_is_noticed(sshds: StartSshd) -> None:
    sshd = sshds("127.0.8.11")

    async def work(pool: Pool) -> NodeResult:
        kept = Kept()
        running = asyncio.ensure_future(run_in(pool, sshd.access(), "echo begun; sleep 5", kept))
        await first_output(kept)
        sshd.freeze_sessions()
        return await running

    result = with_pool(work, Bounds(keepalive_seconds=0.1))

    assert (result.ending, "keepalive" in result.reason) == ("lost", True)


def test_closing_the_pool_ends_what_runs(sshd: Sshd) -> None:
    async def work(pool: Pool) -> list[NodeResult]:
        kept = Kept()
        running = asyncio.ensure_future(run_in(pool, sshd.access(), "echo begun; sleep 5", kept))
        await first_output(kept)
        await pool.close()
        return [await running, await run_in(pool, sshd.access(), "true")]

    assert [result.ending for result in with_pool(work)] == ["lost", "aborted"]


# Sharing


def test_commands_share_a_connection_one_after_another(sshd: Sshd) -> None:
    async def work(pool: Pool) -> int:
        for _ in range(5):
            assert (await run_in(pool, sshd.access("127.0.8.3"), "true")).succeeded
        return pool.opened

    assert with_pool(work) == 1


def test_many_commands_at_once_share_few_connections(sshd: Sshd) -> None:
    async def work(pool: Pool) -> int:
        access = sshd.access("127.0.8.4")
        results = await asyncio.gather(*(run_in(pool, access, "sleep 0.2") for _ in range(20)))
        assert all(result.succeeded for result in results), results
        return pool.opened

    assert with_pool(work) == 3


def test_a_node_that_takes_one_command_at_a_time_gets_more_connections(sshds: StartSshd) -> None:
    sshd = sshds("127.0.8.5", extra="MaxSessions 1")

    async def work(pool: Pool) -> None:
        results = await asyncio.gather(*(run_in(pool, sshd.access(), "sleep 0.3") for _ in range(3)))
        assert all(result.succeeded for result in results), results

    with_pool(work)


def test_a_node_that_takes_no_commands_is_told(sshds: StartSshd) -> None:
    result, _ = run(sshds("127.0.8.6", extra="MaxSessions 0").access(), "true")

    assert result.ending == "refused", result
    assert "does not begin the command" in result.reason


def test_projects_and_keys_do_not_share_connections(sshd: Sshd, tmp_path: Path) -> None:
    sshd.allow(generate_key(tmp_path / "key"))

    async def work(pool: Pool) -> int:
        host = "127.0.8.7"
        other_project, other_key = sshd.access(host, project="Q"), sshd.access(host, key_path=str(tmp_path / "key"))
        for access in (sshd.access(host), other_project, other_key, other_project):
            assert (await run_in(pool, access, "true")).succeeded
        return pool.opened

    assert with_pool(work) == 3


@pytest.mark.parametrize("bounds", [Bounds(idle_seconds=0.05), Bounds(life_seconds=0.05)])
def test_idle_and_old_connections_are_closed(bounds: Bounds, sshd: Sshd) -> None:
    async def work(pool: Pool) -> int:
        await run_in(pool, sshd.access("127.0.8.8"), "true")
        await asyncio.sleep(0.2)
        await run_in(pool, sshd.access("127.0.8.8"), "true")
        return pool.opened

    assert with_pool(work, bounds) == 2


def test_there_are_never_more_idle_connections_than_allowed(sshd: Sshd) -> None:
    async def work(pool: Pool) -> None:
        for number in range(1, 6):
            await run_in(pool, sshd.access(f"127.0.7.{number}"), "true")
            assert pool.open <= 2
        opened = pool.opened
        await run_in(pool, sshd.access("127.0.7.5"), "true")
        assert pool.opened == opened

    with_pool(work, Bounds(connections=2))


def test_a_host_that_turns_many_away_at_once_is_tried_again(sshds: StartSshd) -> None:
    sshd = sshds("127.0.8.9", extra="MaxStartups 2:100:3")

    async def work(pool: Pool) -> None:
        accesses = [sshd.access(project=f"P{number}") for number in range(8)]
        results = await asyncio.gather(*(run_in(pool, access, "true") for access in accesses))
        assert all(result.succeeded for result in results), results

    with_pool(work)
    assert "drop connection" in sshd.log()


def test_a_node_behind_jump_hosts_is_reached_through_one_connection_to_each(sshds: StartSshd) -> None:
    outer, inner = sshds("127.0.6.1"), sshds("127.0.6.2")
    inner.allow(outer.key.with_suffix(".pub").read_text())
    target = outer.access("127.0.6.1")

    async def work(pool: Pool) -> None:
        jumps = (Hop(outer.address, USER), Hop(inner.address, USER))
        trusted = {outer.address: (outer.host_key,), inner.address: (inner.host_key,)}
        for project in ("P", "P", "Q"):
            connection = outer.connection(jumps=jumps, hop=target.connection.hop, project=project)
            result = await run_in(pool, Access(connection=connection, trusted=trusted), "echo hello")
            assert result.succeeded, result
        assert pool.opened == 6

    with_pool(work)


def test_the_keys_of_jump_hosts_are_checked(sshds: StartSshd) -> None:
    outer, inner = sshds("127.0.6.3"), sshds("127.0.6.4")
    inner.allow(outer.key.with_suffix(".pub").read_text())
    connection = outer.connection(jumps=(Hop(outer.address, USER),), hop=Hop(inner.address, USER))
    wrong = {outer.address: (inner.host_key,), inner.address: (inner.host_key,)}

    refused, _ = run(Access(connection=connection, trusted=wrong), "true")
    accepted, _ = run(Access(connection=connection), "true")

    assert (refused.ending, str(outer.address) in refused.reason) == ("host-key", True)
    assert accepted.succeeded, accepted
    assert {seen.address: seen.key for seen in accepted.new_host_keys} == {
        outer.address: outer.host_key,
        inner.address: inner.host_key,
    }


def test_ssh_is_loaded_only_when_a_command_runs() -> None:
    code = "import sys, quarterdeck.engine.ssh; sys.exit('asyncssh' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
