# SPDX-License-Identifier: Apache-2.0
"""What a relay says of itself, and of the relays below it, in a header of each request for its nodes list.

It is for people who look after relays; nothing else follows from it, and what cannot be read is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

#: Web servers in between take no longer line. It is enough for some forty relays; those that come later are left out.
LONGEST = 6 * 1024


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """One relay: its version, how many files wait there to go up, and for how many seconds the oldest has."""

    version: str = ""
    waiting: int = 0
    oldest: float = 0.0


class Below(msgspec.Struct, frozen=True, omit_defaults=True):
    """A relay below the one that tells: its state, so many seconds ago, and where it is reached."""

    state: State
    ago: float
    address: str = ""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A relay's own state, and those of the relays below it at any depth, by id."""

    state: State = State()
    below: Mapping[str, Below] = {}


def written(told: Told) -> str:
    """As a header says it, in ASCII, with as many of the relays below as have room there."""
    below: dict[str, Below] = {}
    text = _text(told.state, below)
    for relay, one in told.below.items():
        longer = _text(told.state, {**below, relay: one})
        if len(longer) > LONGEST:
            break
        below[relay], text = one, longer
    return text


def _text(state: State, below: Mapping[str, Below]) -> str:
    return json.dumps(msgspec.to_builtins(Told(state, below)), separators=(",", ":"))


def read(text: str) -> Told:
    """The same back; an empty one for what cannot be meant so."""
    try:
        return msgspec.json.decode(text, type=Told)
    except msgspec.MsgspecError:
        return Told()
