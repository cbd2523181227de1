# SPDX-License-Identifier: Apache-2.0
"""What is new about an execution since somebody last looked: output, states of nodes, its own state, its end.

Each look is short and bounded; waiting between two of them is `engine/following.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from quarterdeck.core import node_states
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.executions import Execution
from quarterdeck.core.logs import LogEntry
from quarterdeck.core.node_states import NodeState
from quarterdeck.services import execution_output, executions
from quarterdeck.services.context import Context
from quarterdeck.services.execution_output import Page

#: Text that one look brings at most.
LOOK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Output:
    """`offset` is where reading goes on behind this entry."""

    entry: LogEntry
    offset: int


@dataclass(frozen=True, slots=True)
class State:
    """The execution has its nodes, is to end, or is merely still there."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes."""

    execution: Execution


Event = Output | NodeState | State | End


@dataclass(frozen=True, slots=True)
class Position:
    """How far somebody has followed an execution."""

    execution_id: int
    offset: int = 0
    shown: tuple[object, ...] = ()
    nodes: dict[str, NodeState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """`more`: there is more output already."""

    execution: Execution
    events: list[Event]
    position: Position
    more: bool

    @property
    def is_last(self) -> bool:
        """Whether the end was seen."""
        return self.execution.ended is not None and not self.more


def as_now(ctx: Context) -> Context:
    """The context of somebody who began to follow earlier, rights as of now. Raises Unauthenticated, Forbidden."""
    account = ctx.store.accounts.find(ctx.account.id)
    if account is None or not account.usable(ctx.now):
        raise Unauthenticated(f"'{ctx.account.name}' may not act any more.")
    now = replace(ctx, account=account)
    now.require("execution.read")
    return now


def look(ctx: Context, position: Position) -> Look:
    """What is new. Raises NotFound, Forbidden."""
    # The execution first: what it had written before it ended is there when the end is seen.
    execution = executions.readable(ctx, str(position.execution_id)).execution
    states = node_states.of_nodes(execution.nodes or (), ctx.store.executions.steps(execution.id))
    changed = [one for one in states if position.nodes.get(one.node) != one]
    page = execution_output.read(ctx, execution.id, offset=position.offset, most_bytes=LOOK_BYTES)
    events: list[Event] = [*_outputs(page), *changed]
    shown = (execution.nodes, execution.abort_at)
    if shown != position.shown:
        events.insert(0, State(execution))
    more = page.next_offset < execution_output.extent(ctx, execution.id).size
    nodes = position.nodes | {one.node: one for one in changed}
    found = Look(execution, events, Position(execution.id, page.next_offset, shown, nodes), more)
    if found.is_last:
        events.append(End(execution))
    return found


def _outputs(page: Page) -> Iterator[Output]:
    # From its end: what is before a page may be gone.
    offset = page.next_offset - sum(len(one.text) for one in page.entries)
    for one in page.entries:
        offset += len(one.text)
        yield Output(one, offset)
