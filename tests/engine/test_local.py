# SPDX-License-Identifier: Apache-2.0
"""Commands on the server itself, with real processes: how they begin, what they get and say, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.engine import local
from quarterdeck.engine.local import Guard, LocalTransport
from quarterdeck.engine.transports import KILL_SECONDS, TERM_SECONDS, Command, NodeResult, Stream

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
ENDED = NodeResult(ending="ended", exit_status=0)


@dataclass
class Heard:
    """A sink that keeps everything. With `rest_seconds` it asks to wait after each piece."""

    rest_seconds: float = 0.0
    pieces: list[tuple[Stream, bytes]] = field(default_factory=list)
    size: int = 0
    keeps: bool = True

    def write(self, stream: Stream, data: bytes) -> bool:
        self.size += len(data)
        if self.keeps:
            self.pieces.append((stream, data))
        return not self.rest_seconds

    async def ready(self) -> None:
        await asyncio.sleep(self.rest_seconds)

    def text(self, wanted: Stream = "stdout") -> bytes:
        return b"".join(data for stream, data in self.pieces if stream == wanted)


@dataclass(frozen=True)
class Server:
    """What a test does: run commands with one guard, on one event loop."""

    guard: Guard

    async def run(
        self,
        line: str,
        heard: Heard | None = None,
        *,
        user: str = "",
        stop: asyncio.Event | None = None,
        stdin: bytes = b"",
        environment: dict[str, str] | None = None,
        run_seconds: float = 0.0,
    ) -> NodeResult:
        command = Command(line=line, stdin=stdin, environment=environment or {}, run_seconds=run_seconds)
        transport = LocalTransport(self.guard, user=user)
        return await transport.run(command, heard or Heard(), stop or asyncio.Event())

    async def output(self, line: str, **options: Any) -> str:
        heard = Heard()
        assert await self.run(line, heard, **options) == ENDED
        return heard.text().decode()

    async def aborted(self, line: str, heard: Heard | None = None) -> tuple[NodeResult, float]:
        """Abort a command once it has said "ready"; its result, and how many seconds that took."""
        heard, stop = heard or Heard(), asyncio.Event()
        running = asyncio.create_task(self.run(line, heard, stop=stop))
        await until(lambda: b"ready" in heard.text())
        begun = time.monotonic()
        stop.set()
        return await running, time.monotonic() - begun


def tell(story: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        guard = Guard()
        try:
            await story(Server(guard))
        finally:
            guard.close()

    asyncio.run(told())


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def number_in(path: Path) -> int | None:
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else None


# -- what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"), [("true", 0), ("false", 1), ("exit 77", 77), ("no-such-program-here", 127)]
)
def test_the_exit_status_is_the_commands_own(line: str, status: int) -> None:
    async def story(server: Server) -> None:
        assert await server.run(line) == NodeResult(ending="ended", exit_status=status)

    tell(story)


def test_a_command_that_a_signal_ended_says_which() -> None:
    async def story(server: Server) -> None:
        result = await server.run("kill -9 $$")
        assert (result.ending, result.exit_status) == ("ended", 137)
        assert "signal 9" in result.reason

    tell(story)


def test_the_two_streams_are_told_apart() -> None:
    async def story(server: Server) -> None:
        heard = Heard()
        await server.run("echo good; echo bad >&2", heard)
        assert (heard.text("stdout"), heard.text("stderr")) == (b"good\n", b"bad\n")

    tell(story)


def test_binary_output_comes_as_it_is() -> None:
    data = bytes(range(256)) * 1000

    async def story(server: Server) -> None:
        heard = Heard()
        await server.run("cat", heard, stdin=data)
        assert heard.text() == data

    tell(story)


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_input_is_given_whole_and_then_ends(size: int) -> None:
    async def story(server: Server) -> None:
        assert (await server.output("wc -c; test -p /dev/stdin", stdin=b"i" * size)).strip() == str(size)

    tell(story)


def test_input_that_nobody_reads_is_no_error() -> None:
    async def story(server: Server) -> None:
        assert await server.run("exec true", stdin=b"i" * 3_000_000) == ENDED

    tell(story)


def test_many_commands_at_once_each_get_their_own() -> None:
    async def story(server: Server) -> None:
        found = await asyncio.gather(*(server.output(f"read it; echo {n} $it", stdin=b"%d\n" % n) for n in range(30)))
        assert found == [f"{n} {n}\n" for n in range(30)]

    tell(story)


# -- what a command gets -----------------------------------------------------------------------


def test_nothing_of_the_daemons_environment_reaches_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_SECRET", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")

    async def story(server: Server) -> None:
        shown = await server.output("env", environment={"RD_JOB_NAME": "two words\nand 'a' line"})
        names = {line.partition("=")[0] for line in shown.splitlines() if "=" in line}
        assert names - {"TZ", "_", "SHLVL"} == {
            *("HOME", "LANG", "LOGNAME", "PATH", "PWD", "RD_JOB_NAME", "SHELL", "USER")
        }
        assert "RD_JOB_NAME=two words\nand 'a' line\n" in shown
        assert "LANG=de_DE.UTF-8\n" in shown

    tell(story)


def test_a_command_begins_at_home_with_a_usual_umask_and_no_open_files(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        with (tmp_path / "open").open("w") as opened:
            os.set_inheritable(opened.fileno(), True)
            shown = await server.output('test "$PWD" = "$HOME" && echo home; umask; ls /proc/self/fd | tr "\\n" " "')
        assert shown == "home\n0022\n0 1 2 3 "

    tell(story)


def test_a_command_has_a_session_of_its_own() -> None:
    async def story(server: Server) -> None:
        pid, session = (await server.output("ps -o pid=,sid= -p $$")).split()
        assert pid == session != str(os.getsid(0))

    tell(story)


@as_root
def test_a_command_runs_as_another_user_with_nothing_of_roots() -> None:
    async def story(server: Server) -> None:
        shown = await server.output("id -un; id -G; echo $USER $LOGNAME $PWD; cat /etc/shadow 2>&1 || :", user="nobody")
        name, groups, rest, refusal = shown.splitlines()
        assert (name, rest) == ("nobody", "nobody nobody /")
        assert "0" not in groups.split()
        assert "denied" in refusal

    tell(story)


# -- what does not begin -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "user", "reason"),
    [
        ("true", "no-such-user", "There is no user no-such-user on the server."),
        ("x" * 3_000_000, "", "It could not be begun: Argument list too long."),
        ("a\0b", "", "It could not be begun: embedded null byte."),
        ("\udcff\ud800", "", "It could not be begun: "),
    ],
)
def test_what_cannot_be_begun_is_refused_with_a_reason(line: str, user: str, reason: str) -> None:
    async def story(server: Server) -> None:
        result = await server.run(line, user=user)
        assert result.ending == "refused"
        assert result.reason.startswith(reason)

    tell(story)


def test_without_a_guard_nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))

    async def story(server: Server) -> None:
        result = await server.run(f"touch {tmp_path}/begun")
        assert result.ending == "refused"
        await asyncio.sleep(0.1)
        assert not (tmp_path / "begun").exists()

    tell(story)


def test_what_is_aborted_before_it_began_never_begins(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        stop = asyncio.Event()
        stop.set()
        assert (await server.run(f"touch {tmp_path}/begun", stop=stop)).ending == "aborted"
        assert not (tmp_path / "begun").exists()

    tell(story)


# -- background and output ---------------------------------------------------------------------


def test_what_a_command_leaves_in_the_background_lives_on_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        heard = Heard()
        begun = time.monotonic()
        result = await server.run(f"(echo $$ ; sleep 0.2; echo late; exec sleep 60) & echo $! > {tmp_path}/pid", heard)
        took = time.monotonic() - begun
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        try:
            assert result == ENDED
            assert b"late\n" in heard.text()
            assert local.GRACE_SECONDS <= took < local.GRACE_SECONDS + 10
            await asyncio.sleep(0.1)
            assert lives(pid)
        finally:
            os.kill(pid, signal.SIGKILL)

    tell(story)


def test_a_background_that_writes_for_ever_keeps_nobody_waiting_either(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        heard = Heard(rest_seconds=0.2, keeps=False)
        result = await asyncio.wait_for(server.run(f"yes & echo $! > {tmp_path}/pid", heard), 30)
        assert result == ENDED
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        await until(lambda: not lives(pid))  # nobody reads: its next line ends it

    tell(story)


def test_much_output_with_a_slow_sink_is_whole_and_takes_little_memory() -> None:
    size = 64 * 1024 * 1024

    async def story(server: Server) -> None:
        await server.run("true")
        heard = Heard(rest_seconds=0.000_1, keeps=False)
        tracemalloc.start()
        result = await server.run(f"head -c {size} /dev/zero", heard)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (result, heard.size) == (ENDED, size)
        assert peak < 4_000_000

    tell(story)


def test_output_that_a_slow_sink_takes_after_the_end_is_whole() -> None:
    async def story(server: Server) -> None:
        heard = Heard(rest_seconds=1.5)
        assert await server.run("head -c 100 /dev/zero; sleep 0.1; head -c 60000 /dev/zero", heard) == ENDED
        assert heard.size == 60_100

    tell(story)


# -- timeouts and aborts -----------------------------------------------------------------------


def test_a_command_that_takes_too_long_is_ended() -> None:
    async def story(server: Server) -> None:
        result = await server.run("sleep 60", run_seconds=0.2)
        assert result == NodeResult(ending="timeout", exit_status=143, reason="It took longer than 0.2 s.")

    tell(story)


def test_a_command_that_is_fast_enough_is_not_ended() -> None:
    async def story(server: Server) -> None:
        assert await server.run("true", run_seconds=60) == ENDED

    tell(story)


def test_an_abort_lets_a_command_tidy_up() -> None:
    async def story(server: Server) -> None:
        heard = Heard()
        result, took = await server.aborted("trap 'echo tidy; exit 5' TERM; echo ready; sleep 60 & wait", heard)
        assert (result.ending, result.exit_status) == ("aborted", 5)
        assert heard.text() == b"ready\ntidy\n"
        assert took < TERM_SECONDS

    tell(story)


def test_an_abort_ends_what_ignores_it() -> None:
    async def story(server: Server) -> None:
        result, took = await server.aborted("trap '' TERM; echo ready; while :; do sleep 1; done")
        assert (result.ending, result.exit_status) == ("aborted", 137)
        assert TERM_SECONDS <= took < TERM_SECONDS + KILL_SECONDS

    tell(story)


def test_an_abort_ends_the_whole_group_even_if_the_command_itself_obeys(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        stubborn = f"(trap '' TERM; echo ready; while :; do sleep 0.1; done) & echo $! > {tmp_path}/pid; wait"
        result, took = await server.aborted(stubborn)
        assert result.ending == "aborted"
        assert took < TERM_SECONDS + KILL_SECONDS
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        await until(lambda: not lives(pid))

    tell(story)


def test_an_abort_does_not_wait_for_a_daemon_that_left_the_group(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        line = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & sleep 0.2; echo ready; sleep 60"
        result, took = await server.aborted(line)
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert result.ending == "aborted"
        assert took < TERM_SECONDS

    tell(story)


def test_an_abort_does_not_wait_for_a_sink_that_takes_nothing() -> None:
    async def story(server: Server) -> None:
        heard = Heard(rest_seconds=60)
        result, took = await server.aborted("echo ready; sleep 0.1; yes", heard)
        assert result.ending == "aborted"
        assert took < TERM_SECONDS + KILL_SECONDS

    tell(story)


def test_a_run_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        running = asyncio.create_task(server.run(f"echo $$ > {tmp_path}/pid; exec sleep 60"))
        await until(lambda: number_in(tmp_path / "pid") is not None)
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await until(lambda: not lives(pid))

    tell(story)


# -- the guard ---------------------------------------------------------------------------------

WORKER = """
import asyncio, os, sys
from quarterdeck.engine.local import Guard, LocalTransport
from quarterdeck.engine.transports import Command

class Sink:
    def write(self, stream, data):
        return True
    async def ready(self):
        pass

async def main():
    guard = Guard()
    lines = sys.argv[1:]
    await asyncio.gather(*(
        LocalTransport(guard).run(Command(line=line), Sink(), asyncio.Event()) for line in lines
    ))

asyncio.run(main())
"""


@pytest.fixture
def worker() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*lines: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(Path(local.__file__).parents[2])}
        begun.append(subprocess.Popen([sys.executable, "-c", WORKER, *lines], env=environment))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_when_the_worker_is_killed_its_commands_end(
    worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    async def story() -> None:
        process = worker(
            f"echo $$ > {tmp_path}/1; exec sleep 60",
            f"trap '' TERM; echo $$ > {tmp_path}/2; while :; do sleep 0.1; done",
            f"sleep 60 & echo $! > {tmp_path}/3; wait",
        )
        files = [tmp_path / str(number) for number in (1, 2, 3)]
        await until(lambda: all(number_in(path) is not None for path in files))
        pids = [pid for path in files if (pid := number_in(path)) is not None]

        process.kill()
        process.wait()

        await until(lambda: not any(lives(pid) for pid in pids))

    asyncio.run(story())


def test_killing_a_worker_at_any_moment_leaves_nothing(
    worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    mark = f"{tmp_path}/mark"

    def marked() -> bool:
        found = subprocess.run(["pgrep", "-f", f"tail -f {mark}"], stdout=subprocess.PIPE, check=False)
        return bool(found.stdout)

    async def story() -> None:
        for delay in (0.15, 0.25, 0.3, 0.35, 0.45):
            process = worker(*[f"tail -f {mark}"] * 20)
            await asyncio.sleep(delay)
            process.kill()
            process.wait()
        await until(lambda: not marked())

    Path(mark).touch()
    asyncio.run(story())


def test_a_guard_that_was_killed_is_replaced_and_knows_what_runs(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        running = asyncio.create_task(server.run(f"echo $$ > {tmp_path}/pid; exec sleep 60"))
        await until(lambda: number_in(tmp_path / "pid") is not None)
        pid = number_in(tmp_path / "pid")
        assert pid is not None
        assert server.guard._process is not None
        server.guard._process.kill()
        await asyncio.sleep(0.05)
        assert await server.output("echo still") == "still\n"

        server.guard.close()

        assert (await running).exit_status == 143
        assert not lives(pid)

    tell(story)


def test_a_local_command_costs_a_few_milliseconds() -> None:
    async def story(server: Server) -> None:
        await server.run("true")
        took = []
        for _ in range(30):
            begun = time.perf_counter()
            await server.run("true")
            took.append(time.perf_counter() - begun)
        assert min(took) < 0.05, "the fastest of 30, also on a busy machine"

    tell(story)
