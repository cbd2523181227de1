# SPDX-License-Identifier: Apache-2.0
"""Parcels waiting on disk until the server has acknowledged them: oldest first, bounded, each sent as often as needed.

A parcel keeps its run id however often it is sent, so the server can tell a second delivery.
"""

from __future__ import annotations

import base64
import os
import time
from typing import Any, Callable, List, NamedTuple

from quarterdeck_agent import documents, keys, storing
from quarterdeck_agent.errors import Refused, Unreachable
from quarterdeck_agent.keys import Key

MAX_PARCELS = 300
MAX_BYTES = 64 * 1024 * 1024
MAX_REFUSED = 20

PATHS = {"report": documents.PATH_REPORTS, "inventory": documents.PATH_INVENTORIES}

#: Refusals that say the parcel itself is at fault; sending it again cannot help.
_FINAL_CODES = ("invalid",)


class Flushed(NamedTuple):
    """What sending the queue came to."""

    sent: int
    waiting: int
    #: one sentence per parcel refused for good, and why sending stopped
    problems: List[str]


class Queue:
    """The queue of one state directory."""

    def __init__(self, path: str, refused: str) -> None:
        self._path = path
        self._refused = refused

    def add(self, kind: str, node: str, key: Key, payload: Any) -> List[str]:
        """Sign and keep a payload of `kind`; the sentences say what had to be dropped to make room."""
        body = documents.pack_payload(payload)
        signature = base64.b64encode(key.sign(documents.parcel_message(kind, node, body))).decode()
        name = f"{time.time_ns():020d}-{kind}.parcel"
        storing.write(os.path.join(self._path, name), documents.wrap_parcel(kind, node, signature, body))
        return self._make_room()

    def waiting(self) -> List[str]:
        """Names of the parcels, oldest first."""
        return sorted(name for name in os.listdir(self._path) if name.endswith(".parcel"))

    def set_aside_foreign(self, node: str, public_pem: str) -> List[str]:
        """Put away parcels that another id or another key signed: no server will ever take them. Their names."""
        foreign = [name for name in self.waiting() if not self._is_signed_by(name, node, public_pem)]
        for name in foreign:
            self._set_aside(name)
        return foreign

    def flush(self, send: Callable[[str, bytes], None]) -> Flushed:
        """Give every parcel to `send(path, parcel)`, oldest first, until the server cannot take more."""
        problems: List[str] = []
        sent = 0
        for name in self.waiting():
            try:
                sent += self._deliver(name, send)
            except Refused as error:
                if error.code not in _FINAL_CODES:
                    problems.append(f"Reports are kept for later: {error}")
                    break
                self._set_aside(name)
                problems.append(f"The server refused {name} for good, kept in {self._refused}: {error}")
            except (Unreachable, documents.BadDocument) as error:
                problems.append(f"Reports are kept for later: {error}")
                break
        return Flushed(sent, len(self.waiting()), problems)

    def _deliver(self, name: str, send: Callable[[str, bytes], None]) -> int:
        path = os.path.join(self._path, name)
        with open(path, "rb") as stream:
            parcel = stream.read()
        try:
            kind = documents.open_parcel(parcel).kind
            target = PATHS[kind]
        except (documents.BadDocument, KeyError) as error:
            raise Refused(f"not a parcel ({error})", "invalid", 0) from error
        send(target, parcel)
        storing.remove(path)
        return 1

    def _is_signed_by(self, name: str, node: str, public_pem: str) -> bool:
        try:
            with open(os.path.join(self._path, name), "rb") as stream:
                parcel = documents.open_parcel(stream.read())
            signature = base64.b64decode(parcel.signature)
        except ValueError:
            return False
        return parcel.node == node and keys.verify(public_pem, parcel.message(), signature)

    def _set_aside(self, name: str) -> None:
        os.replace(os.path.join(self._path, name), os.path.join(self._refused, name))
        for old in sorted(os.listdir(self._refused))[:-MAX_REFUSED]:
            storing.remove(os.path.join(self._refused, old))

    def _make_room(self) -> List[str]:
        """Drop the oldest parcels beyond the bounds."""
        names = self.waiting()
        sizes = [os.path.getsize(os.path.join(self._path, name)) for name in names]
        dropped = 0
        while len(names) - dropped > 1 and (len(names) - dropped > MAX_PARCELS or sum(sizes[dropped:]) > MAX_BYTES):
            storing.remove(os.path.join(self._path, names[dropped]))
            dropped += 1
        return [f"The queue is full: the {dropped} oldest parcel(s) were dropped."] if dropped else []
