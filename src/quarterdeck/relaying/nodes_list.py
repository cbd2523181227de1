# SPDX-License-Identifier: Apache-2.0
"""The nodes below this policy server and their keys, as they are known here now: read from files, or given by wiring.

Reading anew replaces everything at once; what cannot be read leaves what was there before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import Topology
from quarterdeck.formats import nodes_list

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One state of the list. `keys` are public keys or certificates, PEM, of those nodes that have any.

    `relays` are those that may serve others, and `server` is who stands above us, where that is known.
    """

    topology: Topology
    keys: Mapping[NodeId, tuple[str, ...]] = field(default_factory=dict)
    relays: frozenset[NodeId] = frozenset()
    server: NodeId | None = None

    def knows(self, node: NodeId) -> bool:
        """Whether a node stands on the list, or is one whose key is known."""
        return node in self.topology or node in self.keys

    def keys_of(self, node: NodeId) -> tuple[str, ...]:
        """The keys of a node, PEM; none when none are known."""
        return self.keys.get(node, ())

    def is_key_of(self, node: NodeId, public: bytes) -> bool:
        """Whether a public key (DER, SubjectPublicKeyInfo) is this node's, by its listed hash or by a known key."""
        listed = self.topology.nodes.get(node)
        if listed is not None and listed.key_hash is not None and nodes_list.fits(listed.key_hash, public):
            return True
        known = (nodes_list.hash_of(pem) for pem in self.keys_of(node))
        return any(one is not None and nodes_list.fits(one, public) for one in known)


class NodesList:
    """The present listing. Safe for threads.

    `load` makes a listing; with `fresh_seconds` one that is older is made anew when somebody asks, and a failure then
    is logged only.
    """

    def __init__(
        self,
        load: Callable[[], Listing],
        *,
        fresh_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._loading = threading.Lock()
        self._loaded_at = 0.0
        self._listing: Listing | None = None

    def current(self) -> Listing:
        """The listing now. Raises the errors of `load` as long as it never succeeded."""
        listing = self._listing
        if listing is None:
            self._reload_once()
        elif self._is_stale() and self._loading.acquire(blocking=False):
            try:
                self._keep(self._load())
            except QuarterdeckError as error:
                log.warning("The nodes list stays as it is: %s", error.message)
                self._loaded_at = self._clock()
            finally:
                self._loading.release()
        assert self._listing is not None
        return self._listing

    def reload(self) -> None:
        """Make the listing anew; when this returns it is in use. Raises what `load` raises; then the old one stays."""
        with self._loading:
            self._keep(self._load())

    def _reload_once(self) -> None:
        with self._loading:
            if self._listing is None:
                self._keep(self._load())

    def _is_stale(self) -> bool:
        return self._fresh_seconds is not None and self._clock() - self._loaded_at >= self._fresh_seconds

    def _keep(self, listing: Listing) -> None:
        self._listing, self._loaded_at = listing, self._clock()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFiles:
    """Where a relay's list and the certificates of its nodes lie; a file that is not there is empty."""

    me: NodeId
    nodes: Path
    certificates: Path

    def load(self) -> Listing:
        """Read both. Raises Invalid, which names the file."""
        listed = nodes_list.parse(_content(self.nodes) or b"{}")
        certificates = nodes_list.parse_certificates(_content(self.certificates))
        for node in certificates.keys() - listed.keys():
            log.warning("A certificate of %s, which is not on the nodes list, is left out.", node)
        return Listing(
            topology=Topology(self.me, listed),
            keys={node: pems for node, pems in certificates.items() if node in listed},
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.") from error
