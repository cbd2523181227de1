# SPDX-License-Identifier: Apache-2.0
"""Commands on the server itself: `/bin/sh -c LINE` as a user of the system, in a process group of its own.

    begin (waits) ── guard told ── go ── output ── end of the command ── end of its output, or a second later

Nothing of the daemon's environment reaches a command. What a command leaves in the background when it ends by itself
lives on; its output is read for one second more. An abort, a timeout or the end of the worker ends the whole group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.engine.transports import (
    KILL_SECONDS,
    TERM_SECONDS,
    Command,
    Ending,
    NodeResult,
    Sink,
    Stream,
)

#: How long output is read after the command itself has ended, if somebody in the background keeps it open.
GRACE_SECONDS = 1.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The line begins when a byte comes in, after the guard knows; it never does when the worker dies before.
_PROLOGUE = 'IFS= read -r _ || exit 126; cd "$2" 2>/dev/null; unset OLDPWD; exec /bin/sh -c "$1"'
_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_POLL_SECONDS = 0.05
_REST_BYTES = 1024 * 1024


class Guard:
    """Ends local commands when this process is killed. Starts its process at the first command. One event loop's."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def begin(self, group: int) -> None:
        """A process group is there from now on. Raises OSError when no guard can be started."""
        self._groups.add(group)
        if self._process is None or not self._tell(f"+{group}\n"):
            self._start()

    def end(self, group: int) -> None:
        """The command of a process group has ended; what is left of it is left alone."""
        self._groups.discard(group)
        if self._process is not None:
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, and with it every command that still runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("local_guard.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={},
            bufsize=0,
            start_new_session=True,
        )
        self._tell("".join(f"+{group}\n" for group in sorted(self._groups)))

    def _tell(self, text: str) -> bool:
        """What is written here is read by the guard even when this process is killed right afterwards."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
        except BrokenPipeError:  # somebody killed it
            return False
        return True


class LocalTransport:
    """The server as a node. `user`: the system user that commands run as, "" for the daemon's own."""

    def __init__(self, guard: Guard, *, user: str = "") -> None:
        self._guard = guard
        self._user = user

    async def run(self, command: Command, sink: Sink, stop: asyncio.Event) -> NodeResult:
        """Run the command to its end; see `transports.Transport`."""
        if stop.is_set():
            return NodeResult(ending="aborted", reason="It was to end before it began.")
        running = None
        try:
            account = await asyncio.to_thread(_account, self._user)
            running = await _begin(command, sink, account)
            self._guard.begin(running.group)
            await running.go(command.stdin)
        except (LookupError, ValueError, OSError) as error:
            if running is not None:
                running.close()
            return NodeResult(ending="refused", reason=_reason(error))
        try:
            return await _to_its_end(running, command.run_seconds, stop)
        finally:
            running.close()
            self._guard.end(running.group)


@dataclass(frozen=True, slots=True)
class _Account:
    """`identity`: what `subprocess` needs to become the user; empty when it is the daemon's own."""

    entry: pwd.struct_passwd
    identity: Mapping[str, Any]


def _account(user: str) -> _Account:
    """Raises LookupError, in a sentence, when the user is unknown or cannot be become."""
    own = os.geteuid()
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(own)
    except KeyError:
        raise LookupError(f"There is no user {user or own} on the server.") from None
    if entry.pw_uid == own:
        return _Account(entry, {})
    if own != 0:
        raise LookupError(f"Only a server that runs as root can run commands as the user {user}.")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return _Account(entry, {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups})


def _environment(account: _Account) -> dict[str, str]:
    entry = account.entry
    known = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **known,
        "PATH": _PATH,
        "HOME": entry.pw_dir or "/",
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell or "/bin/sh",
    }


async def _begin(command: Command, sink: Sink, account: _Account) -> _Running:
    """A process that is there but waits. Raises OSError, ValueError."""
    environment = _environment(account)
    home = environment["HOME"]
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        _, running = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Running(sink, writing),
            *("/bin/sh", "-c", _PROLOGUE, "sh", command.line, home),
            stdin=reading,
            cwd="/",
            env={**environment, **command.environment},
            start_new_session=True,
            umask=0o022,
            **account.identity,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return running


class _Feed(asyncio.BaseProtocol):
    """The input of a process, while it is being given."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is there."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything is given, or nobody reads it."""
        self._transport = None

    def abort(self) -> None:
        """Give nothing more."""
        if self._transport is not None:
            self._transport.abort()


class _Running(asyncio.SubprocessProtocol):
    """A process and where its output goes."""

    def __init__(self, sink: Sink, stdin: int) -> None:
        self._sink = sink
        self._stdin: int | None = stdin
        self._transport: asyncio.SubprocessTransport
        self._open: dict[int, asyncio.ReadTransport] = {}
        self._resuming: asyncio.Task[None] | None = None
        self._feed: _Feed | None = None
        loop = asyncio.get_running_loop()
        #: the process itself has ended; everything that it and others wrote has been read
        self.ended: asyncio.Future[None] = loop.create_future()
        self.read: asyncio.Future[None] = loop.create_future()
        self.group = 0

    # -- called by asyncio ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process is there."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self.group = transport.get_pid()
        for number in _STREAMS:
            pipe = transport.get_pipe_transport(number)
            assert isinstance(pipe, asyncio.ReadTransport)
            self._open[number] = pipe

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Output has come."""
        if not self._sink.write(_STREAMS[fd], data) and self._resuming is None:
            for pipe in self._open.values():
                pipe.pause_reading()
            self._resuming = asyncio.get_running_loop().create_task(self._resume())

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Nobody has this stream open any longer."""
        self._open.pop(fd, None)
        if not self._open and not self.read.done():
            self.read.set_result(None)

    def process_exited(self) -> None:
        """The process itself has ended."""
        if not self.ended.done():
            self.ended.set_result(None)

    # -- called by the transport ----------------------------------------------------------

    async def go(self, data: bytes) -> None:
        """Let the line begin, with this as its input."""
        assert self._stdin is not None
        pipe, self._stdin = os.fdopen(self._stdin, "wb", buffering=0), None
        data = b"\n" + data
        try:
            written = pipe.write(data) or 0
        except BrokenPipeError:  # it was killed meanwhile
            written = len(data)
        if written == len(data):
            pipe.close()
            return
        loop = asyncio.get_running_loop()
        transport, self._feed = await loop.connect_write_pipe(_Feed, pipe)
        transport.write(data[written:])
        transport.write_eof()

    def signal(self, number: int) -> bool:
        """Send a signal to the whole group; whether there is still somebody in it."""
        try:
            os.killpg(self.group, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def settled(self) -> None:
        """Wait until the sink takes more."""
        if self._resuming is not None:
            await asyncio.wait([self._resuming])

    def read_rest(self) -> None:
        """Read what lies in the pipes now, and no more."""
        for number, pipe in tuple(self._open.items()):
            pipe.pause_reading()
            with contextlib.suppress(OSError):  # nothing there, or closed this moment
                if rest := os.read(pipe.get_extra_info("pipe").fileno(), _REST_BYTES):
                    self._sink.write(_STREAMS[number], rest)

    @property
    def exit_status(self) -> int | None:
        """As a shell says it; None while it has none."""
        status = self._transport.get_returncode()
        return status if status is None or status >= 0 else 128 - status

    @property
    def fatal_signal(self) -> int:
        """The signal that ended it; 0 when none did."""
        return max(0, -(self._transport.get_returncode() or 0))

    def close(self) -> None:
        """Let go of everything; a process that has not ended is killed."""
        if not self.ended.done():
            self.signal(signal.SIGKILL)
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None
        if self._feed is not None:
            self._feed.abort()
        if self._resuming is not None:
            self._resuming.cancel()
        self._transport.close()

    async def _resume(self) -> None:
        await self._sink.ready()
        self._resuming = None
        for pipe in self._open.values():
            pipe.resume_reading()


async def _to_its_end(running: _Running, run_seconds: float, stop: asyncio.Event) -> NodeResult:
    stopping = asyncio.create_task(stop.wait())
    try:
        await _first(running.ended, stopping, seconds=run_seconds or None)
        if running.ended.done():
            await _read_to_the_end(running, stopping)
            return _ended(running)
        if stopping.done():
            return await _stopped(running, "aborted", "It was aborted.")
        return await _stopped(running, "timeout", f"It took longer than {run_seconds:g} s.")
    finally:
        stopping.cancel()


async def _read_to_the_end(running: _Running, stopping: asyncio.Task[Any]) -> None:
    await _first(running.read, stopping, seconds=GRACE_SECONDS)
    if running.read.done():
        return
    settling = asyncio.create_task(running.settled())
    await _first(settling, stopping)
    settling.cancel()
    running.read_rest()


def _ended(running: _Running) -> NodeResult:
    number = running.fatal_signal
    reason = f"It was ended by signal {number} ({signal.strsignal(number)})." if number else ""
    return NodeResult(ending="ended", exit_status=running.exit_status, reason=reason)


async def _stopped(running: _Running, ending: Ending, reason: str) -> NodeResult:
    """TERM, KILL, leave behind. A member of the group that outlives its command counts, too."""
    running.signal(signal.SIGTERM)
    if not await _is_gone(running, TERM_SECONDS):
        running.signal(signal.SIGKILL)
        await asyncio.wait({running.ended}, timeout=KILL_SECONDS)
    if not running.ended.done():
        return NodeResult(ending="abandoned", reason=f"{reason} It did not end when it was killed.")
    running.read_rest()
    return NodeResult(ending=ending, exit_status=running.exit_status, reason=reason)


async def _is_gone(running: _Running, seconds: float) -> bool:
    """Whether nobody is left in the group, after this long at most."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    await asyncio.wait({running.ended}, timeout=seconds)
    while running.signal(0) and await asyncio.to_thread(_has_living_member, running.group):
        if loop.time() >= end:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _has_living_member(group: int) -> bool:
    """Not counting those that only wait for init to notice their end: in a container that may take for ever."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):  # it ends at this moment
                state, _, its_group = (directory / "stat").read_bytes().rpartition(b")")[2].split()[:3]
                if int(its_group) == group and state not in b"ZX":
                    return True
    return False


async def _first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of these is done, or the time is over."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"It could not be begun: {error.strerror}."
    return str(error) if isinstance(error, LookupError) else f"It could not be begun: {error}."
