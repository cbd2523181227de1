# SPDX-License-Identifier: Apache-2.0
"""Where the relays just below this server are reached, as they say themselves when they ask for their nodes list.

Whom one finds there is not believed: `links.py` pins the key that the nodes list has of the relay.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from quarterdeck.core.ids import NodeId
from quarterdeck.relaying import kept_files
from quarterdeck.relaying.contacts import Contacts

log = logging.getLogger(__name__)

_LONGEST = 300


class Addresses:
    """The addresses kept in one file, and beside it when each relay was heard of. Safe for threads."""

    def __init__(self, path: Path) -> None:
        self.contacts = Contacts(path.with_name("relay-contacts.json"))
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path)

    def of(self, relay: NodeId) -> str | None:
        """Where a relay is reached, https://HOST:PORT; None when it never said."""
        return self._known.get(relay)

    def learn(self, relay: NodeId, address: str, state: str = "") -> None:
        """Keep what a relay says, when it can be meant so: where it is reached, and in which state it is."""
        self.contacts.hear(relay, state)
        if self._known.get(relay) == address or not _is_usable(address):
            return
        with self._lock:
            known = {**self._known, str(relay): address}
            try:
                kept_files.replace(self._path, msgspec.json.encode(known, order="sorted"))
            except OSError as error:
                log.warning("The address of the relay %s is not kept: %s", relay, error)
            self._known = known


def _is_usable(address: str) -> bool:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    return len(address) <= _LONGEST and parts.scheme == "https" and bool(parts.hostname) and port != 0 and plain


def _read(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(kept_files.content(path) or b"{}", type=dict[str, str])
    except msgspec.MsgspecError as error:
        log.warning("%s cannot be read, so relays have to say again where they are: %s", path, error)
        return {}
