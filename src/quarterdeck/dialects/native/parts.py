# SPDX-License-Identifier: Apache-2.0
"""What the handlers of this dialect need beside a unit of work: made by wiring, carried by each request."""

from __future__ import annotations

import base64
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quarterdeck.core.accounts import Account
from quarterdeck.formats import agent, agent_file
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.quarantine import Quarantine
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.following import Event
from quarterdeck.web.operation import Request

_KEY = "parts"

#: Everything that happens to an execution from an offset of its output on, as the account sees it, until it ends.
Follow = Callable[[Account, int, int], AsyncIterator[Event]]


@dataclass(kw_only=True)
class Parts:
    """`facts` is what the server says about itself, beside its version and since when it runs."""

    signing_key: SigningKey
    spool: Spool
    started_at: datetime
    gate: Gate = field(default_factory=Gate)
    facts: Mapping[str, str] = field(default_factory=dict)
    #: what relays mirror; None where there is no shared folder
    folder: FolderTree | None = None
    #: files of single nodes and common ones, which relays mirror as well
    share: FolderTree | None = None
    #: where relays say that they are reached; None where nobody asks
    addresses: Addresses | None = None
    #: None where nobody listens to what executions do
    follow: Follow | None = None
    #: None where nothing is set aside
    quarantine: Quarantine | None = None
    #: None where agents cannot wait for orders
    waiting_agents: WaitingAgents | None = None
    #: None where agents are given no commands
    waiting_commands: WaitingCommands | None = None

    @functools.cached_property
    def agent_file(self) -> bytes:
        """The agent as one file."""
        return agent_file.agent_file()

    @functools.cached_property
    def agent_file_digest(self) -> str:
        """SHA-256 of the agent's file."""
        return agent.digest(self.agent_file)

    @functools.cached_property
    def agent_file_signature(self) -> str:
        """What relays know by that it is this server's; base64."""
        return base64.b64encode(self.signing_key.sign(agent.agent_file_message(self.agent_file_digest))).decode()


def give(request: Request, parts: Parts) -> None:
    """Let a request carry the parts."""
    request.memo[_KEY] = parts


def of(request: Request) -> Parts:
    """The parts that a request carries."""
    found = request.memo[_KEY]
    assert isinstance(found, Parts)
    return found
