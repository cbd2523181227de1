# SPDX-License-Identifier: Apache-2.0
"""When the relays below this server were heard of last, and what they said of themselves; kept in one file.

It is for people: what goes where is decided by the nodes list and `addresses.py` alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from quarterdeck.core.ids import NodeId
from quarterdeck.formats import relay_states
from quarterdeck.formats.relay_states import Below, State, Told
from quarterdeck.relaying import kept_files

log = logging.getLogger(__name__)

#: Relays ask every half a minute, and a restart must not cost more than this of what is known.
_WRITE_SECONDS = 60.0


class Contact(NamedTuple):
    """A relay was heard of `at` (Unix time); where it is reached, if it told another relay and not this server."""

    at: float
    state: State
    address: str = ""


class _Heard(msgspec.Struct, frozen=True):
    at: float
    told: Told


class Contacts:
    """Safe for threads."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._heard = _read(path)
        self._written_at = 0.0

    def hear(self, relay: NodeId, text: str) -> None:
        """A relay just below has asked for its nodes list, and says this of itself."""
        now = self._clock()
        with self._lock:
            self._heard[relay] = _Heard(now, relay_states.read(text) if text else Told())
            if abs(now - self._written_at) >= _WRITE_SECONDS:
                self._written_at = now
                self._write()

    def of(self, relay: NodeId, through: NodeId | None = None) -> Contact | None:
        """The last contact with a relay; `through` is the relay just below this server that it is behind, if any."""
        if through is None:
            heard = self._heard.get(relay)
            return Contact(heard.at, heard.told.state) if heard is not None else None
        between = self._heard.get(through)
        below = between.told.below.get(relay) if between is not None else None
        if between is None or below is None:
            return None
        return Contact(between.at - below.ago, below.state, below.address)

    def below(self, address_of: Callable[[NodeId], str | None]) -> dict[str, Below]:
        """All that is known, as a relay tells it to the server above; who was heard of last comes first."""
        now = self._clock()
        heard = dict(self._heard)
        told = {
            relay: Below(one.told.state, max(0.0, now - one.at), address_of(NodeId(relay)) or "")
            for relay, one in heard.items()
        }
        for one in heard.values():
            for relay, deeper in one.told.below.items():
                ago = max(0.0, now - one.at) + deeper.ago
                if relay not in told or ago < told[relay].ago:  # it has moved
                    told[relay] = Below(deeper.state, ago, deeper.address)
        return dict(sorted(told.items(), key=lambda item: item[1].ago))

    def _write(self) -> None:
        try:
            kept_files.replace(self._path, msgspec.json.encode(self._heard, order="sorted"))
        except OSError as error:  # only a look is lost
            log.warning("When relays were heard of is not kept: %s", error)


def _read(path: Path) -> dict[str, _Heard]:
    try:
        return msgspec.json.decode(kept_files.content(path) or b"{}", type=dict[str, _Heard])
    except (OSError, msgspec.MsgspecError):
        return {}  # they are heard of again within a minute
