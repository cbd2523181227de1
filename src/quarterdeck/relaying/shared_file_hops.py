# SPDX-License-Identifier: Apache-2.0
"""Shared files on their way to another server: up to the one above, or down to the relay that leads to the target.

Each hop is a request of the relay API, signed by who passes it on; the file keeps the signature of its source.
"""

from __future__ import annotations

import threading
from urllib.parse import quote, quote_plus

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import nodes_list
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import Link, Signer
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.shared_files import Passing

_PATH = "/rudder/relay-api/1/shared-files"


class Hops:
    """The links from one server to those around it. Safe for threads. `up` is None on the root."""

    def __init__(self, nodes: NodesList, addresses: Addresses, signer: Signer, up: Link | None = None) -> None:
        self._nodes = nodes
        self._addresses = addresses
        self._signer = signer
        self._up = up
        self._down: dict[NodeId, Link] = {}
        self._lock = threading.Lock()

    def pass_on(self, passing: Passing) -> int:
        """Ask the next server the same; the status of its answer. Raises Unavailable."""
        link = self._link(passing.to)
        address = passing.address
        path = "/".join(quote(one, safe="") for one in (address.target, address.source, address.file))
        if passing.body is None:
            return link.ask("HEAD", f"{_PATH}/{path}?hash={quote_plus(passing.word)}").status
        return link.ask("PUT", f"{_PATH}/{path}?ttl={quote_plus(passing.word)}", passing.body).status

    def link(self, relay: NodeId) -> Link:
        """The way to a relay just below. Raises Unavailable when it never said where it is, or has no known key."""
        return self._link(relay)

    def _link(self, relay: NodeId | None) -> Link:
        if relay is None:
            if self._up is None:
                raise Unavailable("There is no server above this one.")
            return self._up
        listed = self._nodes.current().topology.nodes.get(relay)
        url = self._addresses.of(relay)
        if listed is None or listed.key_hash is None or url is None:
            raise Unavailable(f"The relay {relay} has not said yet where it is reached.")
        pin = nodes_list.notation(listed.key_hash)  # a relay's node key is the key of its HTTPS server, too
        with self._lock:
            known = self._down.get(relay)
            if known is None or (known.url, known.pin) != (url, pin):
                if known is not None:
                    known.close()  # what goes on over it ends, and nothing begins there
                known = self._down[relay] = Link(url=url, pin=pin, signer=self._signer)
            return known
