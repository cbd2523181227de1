# SPDX-License-Identifier: Apache-2.0
"""What every way of running a command on a node has in common. The ways: `ssh.py`, `agents.py`, `local.py`.

A transport never raises for what happens on a node: every end is a `NodeResult`. It is given a sink for the output
and an event that says when to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quarterdeck.core.connections import Address

Stream = Literal["stdout", "stderr"]

#: After an abort: this long until a TERM is followed by KILL, and that again until the command is left behind.
TERM_SECONDS = 2.0
KILL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A line for the node's shell. `stdin` is given to it, then its input ends; `environment` is added to the node's.

    Scripts come in this form too: `engine/steps.py` makes a line that takes them from `stdin`.
    """

    line: str
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    #: 0: no limit
    run_seconds: float = 0.0

    def limit(self, way_seconds: float) -> float | None:
        """How long it may take on a way that has a limit of its own (0: none); None when there is no limit."""
        return min((seconds for seconds in (self.run_seconds, way_seconds) if seconds), default=None)

    @property
    def fault(self) -> str:
        """Why no process can be given it; empty when one can."""
        for text in (self.line, *self.environment, *self.environment.values()):
            if "\0" in text:
                return "A command line or its environment holds a NUL character."
            try:
                text.encode()
            except UnicodeEncodeError:
                return "A command line or its environment is not text."
        return ""


class Sink(Protocol):
    """Where output goes, in the order in which it came."""

    def write(self, stream: Stream, data: bytes) -> bool:
        """Take a piece of output. False asks to send nothing more until `ready` has returned; nothing is lost."""

    async def ready(self) -> None:
        """Wait until more may be written."""


#: How it ended: the command's own end (`exit_status` says which), or what kept it from having one.
Ending = Literal[
    "ended",
    "refused",  # it could not be begun: settings, keys, a full table of processes
    "unreachable",  # no connection to the node
    "login",  # the node does not take our key
    "host-key",  # the node shows a key that is not trusted
    "timeout",  # it took longer than it may
    "lost",  # the connection broke while it ran
    "aborted",  # ended because it was asked to
    "abandoned",  # asked to end, but it did not tell that it did
]


@dataclass(frozen=True, slots=True)
class HostKey:
    """A key that a host showed: the text of an OpenSSH public key, `ssh-ed25519 AAAA…`."""

    address: Address
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """What came of a command on a node. `reason` is a sentence for people, empty when the exit status says it all."""

    ending: Ending
    exit_status: int | None = None
    reason: str = ""
    #: keys of hosts that were seen for the first time on the way
    new_host_keys: tuple[HostKey, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the command ran and said that all is well."""
        return self.ending == "ended" and self.exit_status == 0


class Transport(Protocol):
    """One node and a way to it."""

    async def run(self, command: Command, sink: Sink, stop: asyncio.Event) -> NodeResult:
        """Run the command to its end. When `stop` is set: TERM, KILL, then leave it behind, within TERM + KILL."""
