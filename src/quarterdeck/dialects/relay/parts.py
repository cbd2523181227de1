# SPDX-License-Identifier: Apache-2.0
"""What handlers of this dialect get: the parts of one relay, made by wiring, and who calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quarterdeck.dialects.relay.callers import Caller, Door
from quarterdeck.relaying.metrics import Metrics
from quarterdeck.relaying.node_commands import NodeCommands
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.policy_files import PolicyFiles
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.shared_files import SharedFiles
from quarterdeck.relaying.shared_folder import SharedFolder

#: Raises an error of ours that says what is wrong.
Check = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One relay. `checks` are what its status tells of, by name; `reloads` is what a reload does beside the list."""

    nodes: NodesList
    folder: SharedFolder
    files: SharedFiles
    policies: PolicyFiles
    metrics: Metrics
    door: Door
    checks: Mapping[str, Check] = field(default_factory=dict)
    reloads: tuple[Callable[[], None], ...] = ()
    #: None where nobody can be asked to run
    remote_runs: RemoteRuns | None = None
    #: None where nodes carry out no commands
    commands: NodeCommands | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request's view of the relay."""

    parts: Parts
    caller: Caller
