# SPDX-License-Identifier: Apache-2.0
"""Commands that nodes carry out over their agents: what is ordered of one node, and what is told of it.

How they look on the wire: `formats/node_commands.py`. How agents are reached: `relaying/node_commands.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.core.ids import NodeId

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")

#: How it ended. After `refused` and `unreachable` it certainly did not begin, whoever tells it.
Ending = Literal[
    "ended",  # by itself; the exit status says how
    "refused",  # the node does not carry it out
    "unreachable",  # it did not get to the node, and will not any more
    "timeout",  # it took longer than it may, and was ended
    "aborted",  # it was ended because somebody asked for it
    "lost",  # it may have begun, and nobody knows what became of it
]
ENDINGS: tuple[Ending, ...] = ("ended", "refused", "unreachable", "timeout", "aborted", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command for one node. `expires` is a Unix time; `user` "" is the agent's own; 0 seconds are no limit."""

    id: str
    node: NodeId
    expires: int
    line: str
    stdin: bytes = field(default=b"", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    user: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """The node begins."""


@dataclass(frozen=True, slots=True)
class Output:
    """Something that the command printed."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The last that is told. `reason` is a sentence, empty when the exit status says it all."""

    ending: Ending
    status: int | None = None
    reason: str = ""


Event = Begun | Output | End
