# SPDX-License-Identifier: Apache-2.0
"""Ways to nodes by a command that was set up here, such as ssh, or the command line of another agent's server.

What a command is made of: `core/remote_run_commands.py`. No shell sees it. What it prints is the node's output, line by
line; what it complains of goes to our log. Only so many run at the same time, and none for longer than it may. Who
stops reading only stops reading: the command goes on, and its output is left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.remote_run_commands import Command
from quarterdeck.core.remote_runs import Order
from quarterdeck.relaying.waiting_agents import Ended

log = logging.getLogger(__name__)

#: Pieces of one command's output that wait to be read; while they do, the command waits, too.
_PIECES = 4
_PIECE = 64 * 1024
#: The longest complaint of a command that is told, in bytes.
_COMPLAINT = 500
#: How long a command may take to end when it is told to.
_GRACE_SECONDS = 2.0
#: What a command left running may hold its output open; it is not waited for any longer than so.
_LINGER_SECONDS = 1.0
#: Settings of ours, which may be secrets, are nobody's business.
_OURS = "QUARTERDECK_"


def ways(commands: Iterable[Command], *, at_once: int, seconds: float) -> tuple[CommandWay, ...]:
    """Ways over these commands, in their order, of which so many run at the same time, together."""
    turns = asyncio.Semaphore(at_once)
    return tuple(CommandWay(command=command, turns=turns, seconds=seconds) for command in commands)


@dataclass(kw_only=True)
class CommandWay:
    """A `Way` of `remote_runs.py`. Serves one event loop."""

    command: Command
    turns: asyncio.Semaphore
    #: how long one command may take
    seconds: float
    _going: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    @property
    def name(self) -> str:
        """What the way is called."""
        return self.command.name

    async def run(self, node: NodeId, hostname: str, order: Order) -> AsyncGenerator[bytes | Ended, None]:
        """What the command prints, and at last how it ended. Raises Unavailable when it does not reach the node."""
        if order != Order(conditions=order.conditions, output=order.output):
            raise Unavailable("it can do no more than have agents run.")
        argv = self.command.argv(node, hostname, order.conditions)
        await self.turns.acquire()
        going = _Going(command=self.command, node=node, seconds=self.seconds)
        task = asyncio.create_task(going.carry_out(argv))
        self._going.add(task)
        task.add_done_callback(self._over)
        try:
            while (piece := await going.pieces.get()) is not None:
                yield piece
        finally:
            going.leave()
        yield going.ended()

    async def close(self) -> None:
        """End what still runs over it."""
        for task in list(self._going):
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._going.discard(task)
        self.turns.release()


@dataclass(kw_only=True)
class _Going:
    """One command at work for one node. None is the end of its pieces."""

    command: Command
    node: NodeId
    seconds: float
    pieces: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_PIECES))
    _read: bool = True
    _putting: bool = False
    _pieces_read: int = 0
    _complaint: str = ""
    _refusal: str = ""
    _end: Ended = field(default_factory=lambda: Ended(problem="it was broken off."))

    async def carry_out(self, argv: Sequence[str]) -> None:
        """Start it and stay until its end."""
        log.debug("Node %s is asked to run by %s", self.node, self.command.name)
        try:
            await self._carry_out(argv)
        except asyncio.CancelledError:
            self._drop_pieces()
            self.pieces.put_nowait(None)
            raise
        except OSError as error:  # this process has as many files open as it may
            log.error("%s cannot be followed: %s", self.command.name, error)  # noqa: TRY400  # no bug
            self._end = Ended(problem=f"{self.command.name} cannot be followed: {error.strerror}.")
        await self._put(None)

    async def _carry_out(self, argv: Sequence[str]) -> None:
        try:
            process = _start(argv)
        except (OSError, ValueError) as error:
            self._refusal = f"{argv[0]} cannot be started: {getattr(error, 'strerror', None) or error}."
            return
        assert process.stdout is not None
        assert process.stderr is not None
        async with _kept_in_hand(process) as over, _reading(process.stdout) as out, _reading(process.stderr) as err:
            readers = {asyncio.create_task(self._pass_on(out)), asyncio.create_task(self._log(err))}
            try:
                async with asyncio.timeout(self.seconds):
                    await over.wait()
                    await self._finish_reading(readers)
            except TimeoutError:
                pass
            finally:
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)
            if over.is_set():
                self._settle(process.wait())
            else:
                self._end = Ended(problem=f"{self.command.name} takes longer than {self.seconds:.0f} s.")

    async def _finish_reading(self, readers: set[asyncio.Task[None]]) -> None:
        """The rest of what was printed. What a command left running may hold its output open for ever."""
        before, left = -1, readers
        while left and (self._putting or self._pieces_read != before):
            before = self._pieces_read
            _, left = await asyncio.wait(left, timeout=_LINGER_SECONDS)

    def _settle(self, status: int) -> None:
        if status in self.command.unreached and not self._pieces_read:
            self._refusal = self._complaint or f"it ended with status {status}."
        elif status < 0:
            self._end = Ended(problem=f"{self.command.name} was ended by signal {-status}.")
        else:
            self._end = Ended(status=status)

    def ended(self) -> Ended:
        """How it ended. Raises Unavailable when it did not reach the node."""
        if self._refusal:
            raise Unavailable(self._refusal)
        return self._end

    def leave(self) -> None:
        """Nobody reads any more."""
        self._read = False
        self._drop_pieces()

    def _drop_pieces(self) -> None:
        while not self.pieces.empty():
            self.pieces.get_nowait()

    async def _put(self, piece: bytes | None) -> None:
        if self._read:
            self._putting = True
            await self.pieces.put(piece)
            self._putting = False

    async def _pass_on(self, out: asyncio.StreamReader) -> None:
        while piece := await out.read(_PIECE):
            self._pieces_read += 1
            await self._put(piece)

    async def _log(self, err: asyncio.StreamReader) -> None:
        async for line in _complaints(err):
            self._complaint = line
            log.info("Run of node %s by %s: %s", self.node, self.command.name, line)


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # its children end with it
    )


async def _complaints(err: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines that say something, each no longer than is told."""
    rest = b""
    while piece := await err.read(_PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        rest = rest[:_COMPLAINT]
        for line in lines:
            if text := _printable(line):
                yield text
    if text := _printable(rest):
        yield text


def _printable(line: bytes) -> str:
    text = line[:_COMPLAINT].decode(errors="replace")
    return "".join(one if one.isprintable() else " " for one in text).strip()


@asynccontextmanager
async def _kept_in_hand(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.Event]:
    """An event for the end of a process; it is ended with whatever it started, kindly first."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        _signal(process, signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
        raise

    def notice() -> None:
        loop.remove_reader(descriptor)
        process.wait()
        over.set()

    loop.add_reader(descriptor, notice)
    try:
        yield over
    finally:
        try:
            if not over.is_set():
                _signal(process, signal.SIGTERM)
                await _within_grace(over)
        finally:
            _signal(process, signal.SIGKILL)
            if not over.is_set() and not await _within_grace(over):
                log.warning("Process %d belongs to another user and cannot be ended from here", process.pid)
                loop.remove_reader(descriptor)
            os.close(descriptor)


async def _within_grace(over: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await over.wait()
    return over.is_set()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # what sudo started belongs to another user
        os.killpg(process.pid, number)


@asynccontextmanager
async def _reading(pipe: IO[bytes]) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader(limit=_PIECE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        yield reader
    finally:
        transport.close()
