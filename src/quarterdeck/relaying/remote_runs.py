# SPDX-License-Identifier: Apache-2.0
"""Runs of agents on demand, over the whole tree: nodes served here by the first way that reaches them, the others by
the relay they are behind; everything at the same time, and the output put together line by line.

The order of tries for a node is: its agent, when it waits here; then the other ways, as they were given; then a line
that says that there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from quarterdeck.core import remote_runs
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Split, Topology
from quarterdeck.core.remote_runs import Form, Order, Wanted
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.waiting_agents import Ended, WaitingAgents

log = logging.getLogger(__name__)

#: Pieces of output that wait to be read, of all nodes together; a piece is no longer than what an agent buffers.
_PIECES = 64
#: Agents of one request that are told to run and have not begun yet. If all began at the same moment, all would ask for
#: their policies before anybody saw a line; who does not begin soon lets the next one go first.
_BEGINNING = 16
_BEGIN_SECONDS = 0.25
_LONGEST_LINE = 64 * 1024
#: Nodes that a line of the log names.
_NAMED = 10
_NO_WAY = "there is no way to reach it: {}"
#: What the first way is called: the agent that waits here.
AGENT = "agent"
_UNKNOWN = "it is not below this server."
_SWITCHED_OFF = "remote runs are switched off here."
_BY_ITSELF = "It runs by itself at its next interval."

#: Asks a neighbouring relay for runs: the relay, its line of the list, the end of the path (`all` or `nodes`), the
#: form; what it answers, piece by piece. Raises an error of ours when it does not answer, or refuses.
Hop = Callable[[NodeId, ListedNode, Literal["all", "nodes"], Mapping[str, str]], AsyncGenerator[bytes, None]]


class Way(Protocol):
    """A way to nodes whose agents do not wait here."""

    @property
    def name(self) -> str:
        """What it is called."""

    def run(self, node: NodeId, hostname: str, order: Order) -> AsyncGenerator[bytes | Ended, None]:
        """What the agent prints, and at last how it ended.

        Raises Unavailable before anything else when it does not reach the node.
        """

    async def close(self) -> None:
        """End what still runs over it."""


@dataclass(frozen=True, slots=True)
class _Over:
    """The end of a run: over which way it went, and why those before did not reach the node."""

    end: Ended
    via: str = ""
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def problem(self) -> str:
        """What went wrong; empty when nothing did."""
        if self.via or not self.tried:
            return self.end.problem
        reasons = [reason if way == AGENT else f"By {way}: {reason}" for way, reason in self.tried]
        return _NO_WAY.format(" ".join(reasons))

    def told(self) -> dict[str, Any]:
        """The same for a line of JSON."""
        told: dict[str, Any] = {"problem": self.problem} if self.problem else {"status": self.end.status}
        if self.via:
            told["via"] = self.via
        if self.tried:
            told["tried"] = [{"way": way, "problem": reason} for way, reason in self.tried]
        return told


class _Telling:
    """How what happens is told in one of the forms, each piece whole lines."""

    def __init__(self, form: Form) -> None:
        self._json = form is Form.JSON

    def output(self, node: NodeId, hostname: str, lines: bytes) -> bytes:
        if not self._json:
            return lines
        texts = lines.decode(errors="replace").split("\n")[:-1]
        return b"".join(_line(node, hostname, text=text) for text in texts)

    def end(self, node: NodeId, hostname: str, over: _Over) -> bytes:
        if self._json:
            return _line(node, hostname, **over.told())
        return f"{hostname}: {over.problem}\n".encode() if over.problem else b""

    def relay_failed(self, relay: NodeId, hostname: str, problem: str) -> bytes:
        """Peers say nothing of it."""
        return _line(relay, hostname, problem=problem) if self._json else b""


class _Round:
    """What the runs of one request share: whose turn it is to begin, and which nodes nothing reached."""

    def __init__(self, nodes: int) -> None:
        self.turns = asyncio.Semaphore(_BEGINNING)
        self._nodes = self._left = nodes
        self._unreached: list[NodeId] = []

    def over(self, node: NodeId, over: _Over) -> None:
        """Write down how a run ended; one line for all nodes that were not reached, for they may be very many."""
        if over.problem and over.via:
            log.warning("Run of node %s: %s", node, over.problem)
        elif over.problem:
            log.debug("Run of node %s: %s", node, over.problem)
            self._unreached.append(node)
        self._left -= 1
        if not self._left and (unreached := self._unreached):
            some = ", ".join(sorted(unreached)[:_NAMED]) + (" …" if len(unreached) > _NAMED else "")
            log.warning("%d of %d nodes here were not reached for a run: %s", len(unreached), self._nodes, some)


def _line(node: NodeId, hostname: str, **told: Any) -> bytes:
    return msgspec.json.encode({"node": node, "hostname": hostname, **told}) + b"\n"


@dataclass(kw_only=True)
class RemoteRuns:
    """What this server or relay does for those who want agents to run. Calls are safe for threads.

    Without a `hop`, nodes behind relays are not reached.
    """

    nodes: NodesList
    agents: WaitingAgents
    hop: Hop | None = None
    ways: Sequence[Way] = ()
    enabled: bool = True
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Meanwhile, runs may be started that nobody waits for; those of other ways end with this."""
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._loop = None
            await _cancelled(self._tasks)
            await asyncio.gather(*(way.close() for way in self.ways))

    def told(self) -> dict[str, Any]:
        """The ways to nodes in the order in which they are tried, and how many agents wait."""
        names = [AGENT, *(way.name for way in self.ways)] if self.enabled else []
        return {"ways": names, "waitingAgents": self.agents.count}

    # -- the relay API --------------------------------------------------------------------

    def ask(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """Have agents run; what is told of it. Of unknown nodes only JSON tells; else they are logged and left out."""
        topology = self.nodes.current().topology
        split = topology.split_all() if wanted.nodes is None else topology.split(wanted.nodes)
        for node in split.unknown:
            log.warning("Node %s is not asked to run: %s", node[:80], _UNKNOWN)
        sources = self._sources(split, topology, wanted)
        if wanted.keep_output and wanted.form is Form.JSON:
            sources += [_told_unknown(node) for node in split.unknown]
        return self._asked(sources, wanted)

    async def _asked(
        self, sources: Sequence[AsyncGenerator[bytes, None]], wanted: Wanted
    ) -> AsyncGenerator[bytes, None]:
        if wanted.asynchronous and not wanted.keep_output:
            for source in sources:
                self._keep(_drained(source))
            return
        async with aclosing(_merged(sources)) as pieces:
            async for piece in pieces:
                yield piece

    def _sources(self, split: Split, topology: Topology, wanted: Wanted) -> list[AsyncGenerator[bytes, None]]:
        together = _Round(len(split.here))
        listed = topology.nodes
        here = [self._run_here(node, listed[node].hostname, wanted.order, wanted.form, together) for node in split.here]
        return here + [self._run_behind(relay, listed[relay], some, wanted) for relay, some in split.behind.items()]

    # -- one node, and one relay ----------------------------------------------------------

    async def _run_here(
        self, node: NodeId, hostname: str, order: Order, form: Form, together: _Round
    ) -> AsyncGenerator[bytes, None]:
        """Output and end of one node's run; nothing when no output is wanted."""
        telling = _Telling(form)
        async with aclosing(self._first_way(node, hostname, order, together.turns)) as pieces:
            async for piece in pieces:
                if isinstance(piece, _Over):
                    together.over(node, piece)
                    if order.output:
                        yield telling.end(node, hostname, piece)
                elif order.output:
                    yield telling.output(node, hostname, piece)

    async def _first_way(
        self, node: NodeId, hostname: str, order: Order, turns: asyncio.Semaphore
    ) -> AsyncGenerator[bytes | _Over, None]:
        tried: tuple[tuple[str, str], ...] = ()
        ways = [
            (AGENT, self._over_agent(node, order, turns)),
            *((way.name, way.run(node, hostname, order)) for way in self.ways),
        ]
        for name, way in ways:
            answered = False
            try:
                async with aclosing(_lines(way)) as pieces:
                    async for piece in pieces:
                        answered = True
                        yield _Over(piece, name, tried) if isinstance(piece, Ended) else piece
            except Unavailable as error:
                if answered:
                    yield _Over(Ended(problem=error.message), name, tried)
                    return
                tried += ((name, error.message),)
            else:
                return
        yield _Over(Ended(), tried=tried)

    async def _over_agent(
        self, node: NodeId, order: Order, turns: asyncio.Semaphore
    ) -> AsyncGenerator[bytes | Ended, None]:
        async with turns:
            run = self.agents.wake(node, order)
            try:
                await self.agents.begins(run, _BEGIN_SECONDS)
            except BaseException:
                self.agents.leave(run)
                raise
        async with aclosing(self.agents.follow(run)) as pieces:
            async for piece in pieces:
                yield piece
        yield run.end or Ended(problem="its end is not known.")

    async def _run_behind(
        self, relay: NodeId, listed: ListedNode, nodes: Sequence[NodeId], wanted: Wanted
    ) -> AsyncGenerator[bytes, None]:
        """What a relay answers. One that does not answer adds nothing."""
        try:
            if self.hop is None:
                raise Unavailable("this server has no way to relays.")
            where: Literal["all", "nodes"] = "all" if wanted.nodes is None else "nodes"
            async with aclosing(_lines(self.hop(relay, listed, where, wanted.fields(nodes)))) as pieces:
                async for piece in pieces:
                    assert isinstance(piece, bytes)
                    yield piece
        except QuarterdeckError as error:
            log.warning("Relay %s does not pass a remote run on: %s", relay, error.message)
            yield _Telling(wanted.form).relay_failed(relay, listed.hostname, error.message)

    # -- the Rudder API -------------------------------------------------------------------

    def start(self, nodes: Mapping[NodeId, str], classes: Sequence[str]) -> dict[NodeId, str]:
        """Have the agents of these nodes (hostnames by id) run; for those that do not start, why. Raises Invalid."""
        if not self.enabled:
            return dict.fromkeys(nodes, f"{_SWITCHED_OFF} {_BY_ITSELF}")
        wanted = Wanted(nodes=tuple(nodes), conditions=remote_runs.check_conditions(classes), asynchronous=True)
        topology = self.nodes.current().topology
        split = topology.split(nodes)
        here = (*split.here, *split.unknown)
        problems = self._refused(here)
        together = _Round(len(here) - len(problems))
        for node in [node for node in here if node not in problems]:
            if not self._spawn(_drained(self._run_here(node, nodes[node], wanted.order, Form.TEXT, together))):
                problems[node] = f"this server is about to end. {_BY_ITSELF}"
        for relay, some in split.behind.items():
            if self.hop is None or not self._spawn(
                _drained(self._run_behind(relay, topology.nodes[relay], some, wanted))
            ):
                problems |= dict.fromkeys(some, f"it is behind relay {relay}, which is not reached. {_BY_ITSELF}")
        return problems

    def follow(self, node: NodeId, hostname: str, classes: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Have one agent run; what it prints. Raises Unavailable when nothing reaches it, and Invalid."""
        if not self.enabled:
            raise _unreachable(node, _SWITCHED_OFF)
        conditions = remote_runs.check_conditions(classes)
        wanted = Wanted(nodes=(node,), conditions=conditions, asynchronous=True, keep_output=True)
        topology = self.nodes.current().topology
        for relay in topology.split([node]).behind:
            if self.hop is None:
                raise _unreachable(node, f"it is behind relay {relay}, which is not reached.")
            return _merged([self._run_behind(relay, topology.nodes[relay], (node,), wanted)])
        if not self.ways and not self.agents.reaches(node):
            raise _unreachable(node, "its agent does not wait here for orders (quarterdeck-agent listen).")
        return _merged([self._run_here(node, hostname, wanted.order, wanted.form, _Round(1))])

    def _refused(self, nodes: Iterable[NodeId]) -> dict[NodeId, str]:
        """Which of these nodes nothing reaches, as far as that is known before it is tried, and why."""
        if self.ways:
            return {}
        refusals = {node: self.agents.refusal(node) for node in nodes}
        return {node: f"{_NO_WAY.format(refusal)} {_BY_ITSELF}" for node, refusal in refusals.items() if refusal}

    # -- what nobody waits for ------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let it go on by itself; from any thread. Whether it does."""
        loop = self._loop
        if loop is None:
            work.close()
            return False
        loop.call_soon_threadsafe(self._keep, work)
        return True

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unreachable(node: NodeId, why: str) -> Unavailable:
    return Unavailable(f"Node '{node}' can not be asked to run: {why} {_BY_ITSELF}")


async def _told_unknown(node: NodeId) -> AsyncGenerator[bytes, None]:
    yield _line(node, "", problem=_UNKNOWN)


async def _drained(source: AsyncGenerator[bytes, None]) -> None:
    async for _ in source:
        pass


async def _merged(sources: Sequence[AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    """All that the sources give, as it comes; when nobody reads any more, they are closed."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
    tasks = {asyncio.create_task(_fed(source, pieces)) for source in sources}
    left = len(tasks)
    try:
        while left:
            piece = await pieces.get()
            if piece is None:
                left -= 1
            elif piece:
                yield piece
    finally:
        await _cancelled(tasks)


async def _fed(source: AsyncGenerator[bytes, None], pieces: asyncio.Queue[bytes | None]) -> None:
    try:
        async with aclosing(source) as given:
            async for piece in given:
                await pieces.put(piece)
    except Exception:
        # One source's fault must not cost the others'.
        log.exception("A remote run broke off")
    await pieces.put(None)


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _lines(source: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The same text cut behind line feeds, so that lines of several nodes never mix; what is no text passes."""
    rest = b""
    async with aclosing(source) as given:
        async for piece in given:
            if not isinstance(piece, bytes):
                if rest:
                    yield rest + b"\n"
                    rest = b""
                yield piece
                continue
            whole, feed, rest = (rest + piece).rpartition(b"\n")
            if feed:
                yield whole + feed
            if len(rest) > _LONGEST_LINE:
                yield rest + b"\n"
                rest = b""
    if rest:
        yield rest + b"\n"
