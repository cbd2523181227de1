# SPDX-License-Identifier: Apache-2.0
"""What follows from what: one table, event -> functions. History needs no entry here, storage keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quarterdeck.core import events
from quarterdeck.core.events import Event
from quarterdeck.services import group_refresh, notifications, policies
from quarterdeck.services.context import Context

Reaction = Callable[[Context, list[Event]], None]

#: A reaction gets all events of its kinds in one call, so that ten changes ask for one generation.
REACTIONS: tuple[tuple[tuple[type, ...], Reaction], ...] = (
    (
        (
            events.RuleChanged,
            events.DirectiveChanged,
            events.TechniqueChanged,
            events.GroupChanged,
            events.GroupMembersChanged,
            events.ParameterChanged,
            events.SettingsChanged,
            events.NodeAccepted,
            events.NodeChanged,
            events.NodeRemoved,
            events.InventoryChanged,
        ),
        policies.request_generation_for,
    ),
    (
        (
            events.GroupChanged,
            events.NodeAccepted,
            events.NodeChanged,
            events.NodeRemoved,
            events.InventoryChanged,
        ),
        group_refresh.request_refresh,
    ),
    ((events.ExecutionEnded,), notifications.request),
)


def follow(ctx: Context) -> None:
    """Let everything follow from the events emitted so far, and from those emitted meanwhile."""
    while ctx.events:
        happened, ctx.events = ctx.events, []
        for kinds, reaction in REACTIONS:
            _react(ctx, reaction, [event for event in happened if isinstance(event, kinds)])


def _react(ctx: Context, reaction: Reaction, relevant: Iterable[Event]) -> None:
    chosen = list(relevant)
    if chosen:
        reaction(ctx, chosen)
