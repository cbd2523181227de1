# SPDX-License-Identifier: Apache-2.0
"""Open SSH connections of this process, kept and shared: who may use which, and when one is closed.

Commands with the same route and keys share a connection, up to eight at a time. It is closed when it idles, gets old,
breaks, or its host's key is not the approved one any more. Running commands is `ssh.py`'s, SSH itself `ssh_links.py`'s.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import OrderedDict
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from quarterdeck.core.connections import Address
from quarterdeck.engine import ssh_access
from quarterdeck.engine.ssh_access import Access, Credential, NoWay, Route
from quarterdeck.engine.ssh_host_keys import KnownHosts
from quarterdeck.engine.transports import HostKey

if TYPE_CHECKING:
    from quarterdeck.engine.ssh_links import Identities, Link

#: sshd's MaxSessions is 10; two are left to people.
SESSIONS = 8
#: Connections that pass through one connection to a jump host.
TUNNELS = 64
#: Connections that are being opened to one address.
OPENING = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long connections live, and how many there are.

    One without commands is closed after `idle_seconds`, any after `life_seconds`. When there are as many as
    `connections`, a new one closes the one that was not used for longest; only those with commands may be more.
    A peer that is silent for `keepalive_seconds` is asked whether it is there, and is gone after four times that.
    """

    idle_seconds: float = 120.0
    life_seconds: float = 3600.0
    connections: int = 512
    keepalive_seconds: float = 15.0


class Shared:
    """A connection of the pool. `users`: commands on it; `tunnels`: connections that pass through it."""

    def __init__(self, route: Route, approved: tuple[str, ...], generation: int) -> None:
        self.route, self.approved, self.generation = route, approved, generation
        self.born = asyncio.get_running_loop().time()
        self.opening: asyncio.Task[Link]
        self.users = self.tunnels = 0
        self.room = SESSIONS
        self.retired = False
        #: the connection to the jump host that this one passes through
        self.outer: Shared | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def link(self) -> Link | None:
        """The connection, once it is open."""
        opening = self.opening
        return None if not opening.done() or opening.cancelled() or opening.exception() else opening.result()

    @property
    def is_lost(self) -> bool:
        """Whether there was a connection, or an attempt at one, and there is none any more."""
        return self.opening.done() and (self.link is None or self.link.is_lost)

    def chain(self) -> Iterator[Shared]:
        """Itself, and those that it passes through."""
        yield self
        if self.outer is not None:
            yield from self.outer.chain()

    def new_host_keys(self, access: Access) -> tuple[HostKey, ...]:
        """The keys on the way that were trusted at first sight, and of which the caller does not know yet."""
        keys = (shared.link.new_host_key for shared in self.chain() if shared.link is not None)
        return tuple(key for key in keys if key is not None and not access.trusted.get(key.address))

    def suits(self, access: Access) -> bool:
        """Whether no host on the way has shown a key other than those that are approved now."""
        return all(shared.shows_approved(access) for shared in self.chain())

    def shows_approved(self, access: Access) -> bool:
        """The same of its own host alone."""
        approved = access.trusted.get(self.route.hop.address, ())
        return approved == self.approved or self.link is None or self.link.shows_one_of(approved)


class Connections:
    """All connections of a process."""

    def __init__(self, known_hosts: Sequence[Path], bounds: Bounds) -> None:
        self._known_hosts = KnownHosts(known_hosts)
        self._bounds = bounds
        self._kept: dict[Route, list[Shared]] = {}
        #: those without users, the longest without first
        self._idle: OrderedDict[Shared, None] = OrderedDict()
        self._gates: WeakValueDictionary[Address, asyncio.Semaphore] = WeakValueDictionary()
        #: the keys that hosts showed first, trusted where the policy is to trust those
        self._shown: dict[Address, str] = {}
        self._importing: asyncio.Task[object] | None = None
        self._identities: Identities | None = None
        self._finishing: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.open = 0
        self.opened = 0

    def reserve(self, access: Access, keys: Credential, *, fresh: bool = False) -> Shared:
        """A connection with room for one more command, counted as its user; it may still be being opened."""
        route = ssh_access.route(access, keys)
        shared = None if fresh else self._with_room(route, access, tunnel=False)
        shared = shared or self._begin(route, access, keys)
        shared.users += 1
        return shared

    def release(self, shared: Shared) -> None:
        """The command has ended."""
        shared.users -= 1
        self._rest(shared)

    def retire(self, shared: Shared) -> None:
        """Let nobody else use it; it is closed when its last user has left."""
        self._remove(shared)
        shared.retired = True
        if not shared.users and not shared.tunnels:
            self._end(shared)

    def finish(self, work: Coroutine[None, None, None]) -> None:
        """Do something short that nobody waits for, other than `close`."""
        finishing = asyncio.ensure_future(work)
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    def forget(self, address: Address) -> None:
        """No more trust the key that the host showed first, and leave all connections to and through it."""
        self._shown.pop(address, None)
        for shared in self._all():
            if any(each.route.hop.address == address for each in shared.chain()):
                self.retire(shared)

    async def close(self) -> None:
        """Close all connections; commands that still run are lost."""
        self._closed = True
        while self._finishing:
            await asyncio.wait(self._finishing)
        kept = self._all()
        for shared in kept:
            self._remove(shared)
            shared.opening.cancel()
        if kept:
            await asyncio.wait([shared.opening for shared in kept])
        for shared in kept:
            self._end(shared)
        while self._closing:
            await asyncio.wait(self._closing)
        if self._identities is not None:
            await self._identities.close()
        if self._importing is not None:
            await asyncio.wait({self._importing})

    def _all(self) -> list[Shared]:
        return [shared for kept in self._kept.values() for shared in kept]

    def _with_room(self, route: Route, access: Access, *, tunnel: bool) -> Shared | None:
        generation = self._known_hosts.refresh()
        oldest = asyncio.get_running_loop().time() - self._bounds.life_seconds
        for shared in tuple(self._kept.get(route, ())):
            if shared.born < oldest or shared.generation != generation or not shared.suits(access):
                self.retire(shared)
            elif shared.tunnels < TUNNELS if tunnel else shared.users < shared.room:
                self._wake(shared)
                return shared
        return None

    def _begin(self, route: Route, access: Access, keys: Credential) -> Shared:
        if self._closed:
            raise NoWay("aborted", "The server is stopping.")
        while self.open >= self._bounds.connections and self._idle:
            self.retire(next(iter(self._idle)))
        approved = tuple(access.trusted.get(route.hop.address, ()))
        shared = Shared(route, approved, self._known_hosts.refresh())
        shared.opening = asyncio.ensure_future(self._open(shared, access, keys))
        shared.opening.add_done_callback(lambda _: self._opened(shared))
        self._kept.setdefault(route, []).append(shared)
        self.open += 1
        return shared

    async def _open(self, shared: Shared, access: Access, keys: Credential) -> Link:
        if self._importing is None:
            # On a thread, so that the worker's other work goes on meanwhile.
            name = f"{__package__}.ssh_links"
            self._importing = asyncio.ensure_future(asyncio.to_thread(importlib.import_module, name))
        await asyncio.shield(self._importing)
        from quarterdeck.engine import ssh_links

        if self._identities is None:
            self._identities = ssh_links.Identities()
        pairs = await self._identities.offered(access, keys)
        connection, address = access.connection, access.connection.hop.address
        through = await self._through(shared, access.of_jump(), keys) if connection.jumps else None
        trust = ssh_links.Trust(
            address=address,
            policy=connection.host_keys,
            approved=shared.approved,
            known_hosts=self._known_hosts.text_for(address),
            shown_before=self._shown.get(address, ""),
        )
        target = ssh_links.Target(
            hop=connection.hop,
            trust=trust,
            connect_seconds=connection.connect_seconds,
            keepalive_seconds=self._bounds.keepalive_seconds,
            through=through,
        )
        gate = self._gates.setdefault(address, asyncio.Semaphore(OPENING))
        link = await ssh_links.connect(target, pairs, gate)
        self._remember(link)
        self.opened += 1
        return link

    async def _through(self, shared: Shared, access: Access, keys: Credential) -> Link:
        """A connection to the last jump host, kept as long as the one that passes through it."""
        route = ssh_access.route(access, keys)
        outer = self._with_room(route, access, tunnel=True) or self._begin(route, access, keys)
        outer.tunnels += 1
        shared.outer = outer
        return await asyncio.shield(outer.opening)

    def _remember(self, link: Link) -> None:
        """The key that a host shows first is the one it must show from now on, whatever the database knows by then."""
        first = link.new_host_key
        if first is not None and self._shown.setdefault(first.address, first.key) != first.key:
            link.close()
            raise NoWay("host-key", f"{first.address} showed two different host keys at the same time.")

    def _opened(self, shared: Shared) -> None:
        link = shared.link
        if link is None or link.is_lost:
            self._lost(shared)
        else:
            link.when_lost(lambda: self._lost(shared))

    def _lost(self, shared: Shared) -> None:
        self._remove(shared)
        outer, shared.outer = shared.outer, None
        if outer is not None:
            outer.tunnels -= 1
            self._rest(outer)

    def _rest(self, shared: Shared) -> None:
        if shared.users or shared.tunnels:
            return
        if not shared.opening.done():
            # Everybody who waited for it has given up; nobody may come to wait for it any more.
            self._remove(shared)
            shared.opening.cancel()
        elif shared.retired:
            self._end(shared)
        elif not shared.is_lost:
            self._idle[shared] = None
            shared.timer = asyncio.get_running_loop().call_later(self._bounds.idle_seconds, self.retire, shared)

    def _wake(self, shared: Shared) -> None:
        self._idle.pop(shared, None)
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None

    def _remove(self, shared: Shared) -> None:
        self._wake(shared)
        kept = self._kept.get(shared.route, [])
        if shared in kept:
            kept.remove(shared)
            self.open -= 1
            if not kept:
                del self._kept[shared.route]

    def _end(self, shared: Shared) -> None:
        """Close the connection; it tells `_lost` when that is done."""
        link = shared.link
        if link is not None and not link.is_lost:
            closing = asyncio.ensure_future(link.close_and_wait())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
