# SPDX-License-Identifier: Apache-2.0
"""Dynamic groups: keeping their members what their queries say. Only changed member lists are saved.

A change of some nodes asks every group about these nodes only; a change of some groups asks these and the groups
that name them about every node; the periodic sweep asks everything. Saving a group is `services/groups.py`.
"""

from __future__ import annotations

import graphlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quarterdeck.core import events
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.events import Event, GroupMembersChanged
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import GroupId
from quarterdeck.services.context import Context
from quarterdeck.storage import node_queries, queue

log = logging.getLogger(__name__)

#: The queue's name of the task; payload: {"nodes": [...]}, {"groups": [...]} or nothing for everything.
TASK = "refresh groups"


def request_refresh(ctx: Context, happened: Sequence[Event]) -> None:
    """Let members follow from what happened, soon."""
    nodes: set[str] = set()
    groups: set[str] = set()
    for event in happened:
        match event:
            case events.GroupChanged() | events.GroupMembersChanged():
                groups.add(event.group)
            case events.NodeAccepted() | events.NodeChanged() | events.NodeRemoved() | events.InventoryChanged():
                nodes.add(event.node)
    if nodes:
        queue.defer(ctx.store, TASK, {"nodes": sorted(nodes)})
    if groups:
        queue.defer(ctx.store, TASK, {"groups": sorted(groups)})


def refresh(ctx: Context, payload: Mapping[str, Sequence[str]] | None) -> None:
    """What the task does; see `TASK`."""
    asked = payload or {}
    if "nodes" in asked:
        _refresh(ctx, _ordered(_dynamic(ctx)), only=list(asked["nodes"]))
    elif "groups" in asked:
        _refresh(ctx, _among(_dynamic(ctx), asked["groups"]), only=None)
    else:
        refresh_all(ctx)


def refresh_all(ctx: Context) -> list[GroupId]:
    """Compute the members of every dynamic group; returns the groups whose members changed."""
    return _refresh(ctx, _ordered(_dynamic(ctx)), only=None)


def _dynamic(ctx: Context) -> dict[GroupId, Group]:
    return {group.id: group for group in ctx.store.groups.having(dynamic=True) if group.query is not None}


def _refresh(ctx: Context, some: Iterable[Group], *, only: list[str] | None) -> list[GroupId]:
    changed = []
    for group in some:
        try:
            with ctx.store.connection.begin_nested():
                found = _match(ctx, group, only)
        except Unavailable:
            raise
        except QuarterdeckError as error:
            log.warning("the members of group %s (%s) stay as they are: %s", group.name, group.id, error.message)
            continue
        if ctx.store.memberships.set(group.id, found, only=only):
            changed.append(group.id)
            ctx.emit(GroupMembersChanged(group.id))
    return changed


def _match(ctx: Context, group: Group, only: list[str] | None) -> set[Any]:
    assert group.query is not None
    return set(node_queries.match(ctx.store.connection, group.query, only))


def _among(dynamic: Mapping[GroupId, Group], changed: Iterable[str]) -> list[Group]:
    """The groups named and those whose queries name them, directly or not, in order."""
    wanted = {GroupId(group) for group in changed}
    chosen = []
    for group in _ordered(dynamic):
        if group.id in wanted or _named(group, dynamic) & wanted:
            wanted.add(group.id)
            chosen.append(group)
    return chosen


def _ordered(dynamic: Mapping[GroupId, Group]) -> list[Group]:
    """Groups after those that their queries name. Groups in a circle are left out, with a word in the log."""
    graph = {group.id: _named(group, dynamic) for group in dynamic.values()}
    while True:
        try:
            return [dynamic[group] for group in graphlib.TopologicalSorter(graph).static_order() if group in graph]
        except graphlib.CycleError as error:
            circle = set(error.args[1])
            names = ", ".join(sorted(f"{dynamic[group].name} ({group})" for group in circle))
            log.warning("groups that name each other keep their members: %s", names)
            graph = {group: named - circle for group, named in graph.items() if group not in circle}


def _named(group: Group, dynamic: Mapping[GroupId, Group]) -> set[GroupId]:
    """The dynamic groups that this one's query depends on."""
    named: set[GroupId] = set()
    for criterion in group.query.criteria if group.query is not None else ():
        if criterion.object_type != "group":
            continue
        if criterion.comparator in ("eq", "notEq"):
            named.add(GroupId(criterion.value))
        else:  # any group that does not look at groups itself
            named |= {other.id for other in dynamic.values() if not _looks_at_groups(other)}
    return named & dynamic.keys()


def _looks_at_groups(group: Group) -> bool:
    return group.query is not None and any(one.object_type == "group" for one in group.query.criteria)
