# SPDX-License-Identifier: Apache-2.0
"""The SSH transport: a command on a node, from the connection that it takes to its end, or to where it is left behind.

A command that may have begun is never sent twice. How connections are kept and shared is `ssh_pool.py`'s; the protocol
is `ssh_links.py`'s, imported when the first command runs.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarterdeck.core.connections import Address
from quarterdeck.engine import ssh_access
from quarterdeck.engine.ssh_access import Access, NoWay
from quarterdeck.engine.ssh_pool import Bounds, Connections, Shared
from quarterdeck.engine.transports import KILL_SECONDS, TERM_SECONDS, Command, NodeResult, Sink, Stream, Transport

if TYPE_CHECKING:
    from quarterdeck.engine.ssh_links import Link, Session

_logger = logging.getLogger(__name__)

__all__ = ["Access", "Bounds", "Pool"]

#: How long a node may take to open a channel where connecting to it has no limit.
ANSWER_SECONDS = 30.0
#: sshd may not send signals (it refuses to for root), and they miss processes in sessions of their own. Each command
#: therefore carries a mark in its environment, by which what is left of it can be found; a node takes variables with
#: names like this unless its AcceptEnv was changed.
MARK = "LC_QUARTERDECK"
_SIGNAL_SECONDS = 0.2
_SEEK = (
    "exec /bin/sh -c 'for _i in 1 2 3; do for _f in $(grep -ls {mark} /proc/[0-9]*/environ); do "
    "_f=${{_f%/environ}}; kill -{name} ${{_f#/proc/}}; done; done' 2>/dev/null"
)


class Pool:
    """The SSH connections of this process. `known_hosts` names files with keys of hosts and of authorities."""

    def __init__(self, *, known_hosts: Sequence[Path] = (), bounds: Bounds | None = None) -> None:
        self._connections = Connections(known_hosts, bounds or Bounds())

    @property
    def open(self) -> int:
        """How many connections are open or being opened."""
        return self._connections.open

    @property
    def opened(self) -> int:
        """How many connections have been opened since the start."""
        return self._connections.opened

    def transport(self, access: Access) -> Transport:
        """The way to a node."""
        return _Way(self._connections, access)

    def forget(self, address: Address) -> None:
        """Trust the key no more that this host showed first; for when its approval is taken back."""
        self._connections.forget(address)

    async def close(self) -> None:
        """Close all connections; commands that still run are lost."""
        await self._connections.close()


class _Unused(Exception):
    """A connection on which the command has certainly not begun."""


class _Way:
    """A node that is reached over SSH."""

    def __init__(self, connections: Connections, access: Access) -> None:
        self._connections, self._access = connections, access

    async def run(self, command: Command, sink: Sink, stop: asyncio.Event) -> NodeResult:
        """As `transports.Transport`."""
        if command.fault:  # a NUL has sshd end the connection, with everything else that runs on it
            return NodeResult(ending="refused", reason=command.fault)
        stopping = asyncio.ensure_future(stop.wait())
        try:
            if stop.is_set():
                raise _stopped()
            return await self._run(command, sink, stopping)
        except NoWay as error:
            return error.result
        finally:
            stopping.cancel()

    async def _run(self, command: Command, sink: Sink, stopping: asyncio.Task[bool]) -> NodeResult:
        keys = ssh_access.credential(self._access)
        try:
            return await self._run_on(self._connections.reserve(self._access, keys), command, sink, stopping)
        except _Unused:
            # The kept connection had broken, or the node takes fewer commands at a time than we thought.
            fresh = self._connections.reserve(self._access, keys, fresh=True)
        try:
            return await self._run_on(fresh, command, sink, stopping)
        except _Unused as error:
            raise NoWay("refused", f"The node does not begin the command: {error}") from error

    async def _run_on(self, shared: Shared, command: Command, sink: Sink, stopping: asyncio.Task[bool]) -> NodeResult:
        try:
            link = await _ready(shared, stopping)
            # Now: when the connection breaks it forgets what it passed through.
            new_host_keys = shared.new_host_keys(self._access)
            try:
                result = await self._exchange(shared, link, command, sink, stopping)
            except NoWay as error:
                result = error.result
            return replace(result, new_host_keys=new_host_keys)
        finally:
            self._connections.release(shared)

    async def _exchange(
        self, shared: Shared, link: Link, command: Command, sink: Sink, stopping: asyncio.Task[bool]
    ) -> NodeResult:
        from quarterdeck.engine import ssh_links  # there is a link, so it has been imported

        session, mark = ssh_links.Session(sink), secrets.token_hex(16)
        marked = replace(command, environment={**command.environment, MARK: mark})
        beginning = asyncio.ensure_future(link.begin(session, marked))
        try:
            answer_seconds = self._access.connection.connect_seconds or ANSWER_SECONDS
            await _first(beginning, stopping, seconds=answer_seconds)
            if not session.begun:
                raise self._not_begun(shared, beginning, stopping)
            if beginning.done() and (error := beginning.exception()) is not None and not link.is_lost:
                return NodeResult(ending="refused", reason=f"The node refuses the command: {error}")
            await _first(session.ended, stopping, seconds=command.limit(self._access.connection.run_seconds))
            if session.ended.done():
                return session.result()
            ended = await self._end(link, session, mark)
            if not ended:
                # sshd keeps the channel until the command has ended.
                self._connections.retire(shared)
            return _ended(session, "aborted" if stopping.done() else "timeout")
        except asyncio.CancelledError:
            session.signal("TERM")
            if session.begun and not session.ended.done():
                self._connections.finish(_seek(link, mark, "TERM"))
            raise
        finally:
            session.close()
            self._leave(shared, beginning)

    def _not_begun(
        self, shared: Shared, beginning: asyncio.Task[None], stopping: asyncio.Task[bool]
    ) -> NoWay | _Unused:
        """Why the command has not begun; the connection may have room for fewer commands than we thought."""
        if stopping.done():
            return _stopped()
        if not beginning.done():
            return _Unused("it does not answer")
        if not shared.is_lost:
            shared.room = max(1, shared.users - 1)
        return _Unused(str(beginning.exception()))

    def _leave(self, shared: Shared, beginning: asyncio.Task[None]) -> None:
        if beginning.done():
            beginning.exception()  # has been told of
            return
        beginning.cancel()
        # The channel may open yet and would stay so: it goes with its connection.
        self._connections.retire(shared)

    async def _end(self, link: Link, session: Session, mark: str) -> bool:
        """TERM, then KILL; whether it has ended."""
        for name, seconds in (("TERM", TERM_SECONDS), ("KILL", KILL_SECONDS)):
            session.signal(name)
            if await _within(_SIGNAL_SECONDS, session.ended):
                return True
            self._connections.finish(_seek(link, mark, name))
            if await _within(seconds - _SIGNAL_SECONDS, session.ended):
                return True
        return False


class _Nowhere:
    """Output that nobody wants."""

    def write(self, stream: Stream, data: bytes) -> bool:
        return True

    async def ready(self) -> None:
        raise AssertionError("never asked to wait")


async def _seek(link: Link, mark: str, name: str) -> None:
    """Send a signal to all processes that carry the mark, over the connection that the command came by."""
    from quarterdeck.engine import ssh_links  # as above

    session = ssh_links.Session(_Nowhere())
    try:
        async with asyncio.timeout(TERM_SECONDS):
            await link.begin(session, Command(line=_SEEK.format(mark=mark, name=name)))
            await session.ended
    except (ssh_links.NotBegun, TimeoutError):
        _logger.info("No room on a connection to send %s to a command", name)
    finally:
        session.close()


def _ended(session: Session, ending: str) -> NodeResult:
    """The result of a command that was asked to end."""
    result = session.result()
    told = session.ended.done() and result.ending == "ended"
    left = "" if told else "It did not end when it was asked to, and may still run on the node."
    if ending == "timeout":
        reason = f"The command took longer than it may. {left}".strip()
        return NodeResult(ending="timeout", exit_status=result.exit_status, reason=reason)
    return NodeResult(ending="aborted" if told else "abandoned", exit_status=result.exit_status, reason=left)


async def _within(seconds: float, event: asyncio.Future[None]) -> bool:
    await asyncio.wait({event}, timeout=seconds)
    return event.done()


async def _first(one: asyncio.Future[None], other: asyncio.Future[Any], *, seconds: float | None) -> None:
    if not one.done():
        await asyncio.wait({one, other}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _ready(shared: Shared, stopping: asyncio.Task[bool]) -> Link:
    opening = shared.opening
    if not opening.done():
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        raise _stopped()
    if opening.cancelled():
        raise NoWay("aborted", "The server is stopping.")
    error = opening.exception()
    if error is not None and not isinstance(error, NoWay):
        _logger.error("A connection over SSH could not be opened", exc_info=error)
        raise NoWay("refused", "Internal error; the server's log says more.")
    return opening.result()


def _stopped() -> NoWay:
    return NoWay("aborted", "Stopped before it began.")
