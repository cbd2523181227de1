# SPDX-License-Identifier: Apache-2.0
"""What people do with nodes: look at them, let them in or not, set what may be set on them, remove them.

Making nodes without an agent is `node_creation.py`, asking agents to run `node_runs.py`; what agents send is
`inventories.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.core import properties
from quarterdeck.core.errors import Conflict, Invalid, NotFound
from quarterdeck.core.events import NodeAccepted, NodeChanged, NodeRemoved
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.inheritance import Inheritance, Inherited
from quarterdeck.core.node_queries import NodeQuery
from quarterdeck.core.nodes import AgentKey, AgentSchedule, KeyStatus, Node, NodeKind, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.formats import signature
from quarterdeck.services import relays
from quarterdeck.services.context import Context
from quarterdeck.storage.nodes import Stamp

_MINUTES_OF_HOUR = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChanges:
    """What an administrator wants changed; what is absent from `fields` and None elsewhere stays."""

    #: mode, state, documentation, schedule: as the core calls them
    fields: Mapping[str, Any]
    properties: tuple[Property, ...] = ()
    key_pem: str | None = None
    key_status: KeyStatus | None = None


# -- looking ------------------------------------------------------------------------


def stamps(ctx: Context, status: NodeStatus, query: NodeQuery | None = None) -> list[Stamp]:
    """Which nodes of this status there are, or which of them a query matches, sorted by id."""
    if query is None:
        return ctx.store.nodes.stamps(status)
    return ctx.store.nodes.stamps(status, only=ctx.store.nodes.match(query, status))


def stamp(ctx: Context, node_id: str) -> Stamp | None:
    """One node's present version, whatever its status; None when there is no such node."""
    return ctx.store.nodes.stamp(node_id)


def load(ctx: Context, ids: Sequence[str], *, with_bulk: bool, with_software: bool) -> Iterator[tuple[Node, int]]:
    """Nodes with their versions, without the parts of the inventory that nobody will look at."""
    return ctx.store.nodes.load(ids, with_bulk=with_bulk, with_software=with_software)


def get(ctx: Context, node_id: str) -> Node:
    """A node that is accepted or pending. Raises NotFound."""
    node = ctx.store.nodes.get(node_id)
    if node.status is NodeStatus.DELETED:
        raise NotFound(f"Node with id '{node_id}' was not found")
    return node


def pending(ctx: Context, node_id: str) -> Node:
    """A node that waits for acceptance. Raises NotFound."""
    node = ctx.store.nodes.find(node_id)
    if node is None or node.status is not NodeStatus.PENDING:
        raise NotFound(f"Could not find pending Node {node_id}")
    return node


def statuses(ctx: Context, ids: Iterable[str]) -> dict[str, NodeStatus | None]:
    """The status of each id in the order asked; None where it is not known."""
    wanted = list(dict.fromkeys(ids))
    known = ctx.store.nodes.statuses(wanted)
    return {one: known.get(NodeId(one)) for one in wanted}


def inherited(ctx: Context, node_id: str) -> tuple[Inherited, ...]:
    """All properties that hold on an accepted node, with where they come from. Raises NotFound, Conflict."""
    node = ctx.store.nodes.find(node_id)
    if node is None or node.status is not NodeStatus.ACCEPTED:
        raise NotFound(f"Node with ID '{node_id}' was not found.'")
    levels = Inheritance(ctx.store.parameters.all(), ctx.store.groups.all())
    return levels.of_node(node.properties, frozenset(ctx.store.groups.of_node(node.id)))


# -- letting in, or not ----------------------------------------------------------------


def accept(ctx: Context, ids: Iterable[str]) -> list[Node]:
    """Let pending nodes in, all or none. Raises NotFound, Conflict."""
    waiting = [_waiting(ctx, one) for one in dict.fromkeys(ids)]
    _require_distinct_hostnames(waiting)
    settings = ctx.store.settings.get()
    if not settings.node_accept_duplicated_hostname:
        for node in waiting:
            _require_free_hostname(ctx, node)
    accepted = []
    for node in waiting:
        after = replace(
            node,
            status=NodeStatus.ACCEPTED,
            state=settings.node_onaccept_default_state,
            mode=settings.node_onaccept_default_policy_mode,
            schedule=None,
            accepted_at=ctx.now,
        )
        ctx.store.nodes.set_by_administrator(after)
        ctx.emit(NodeAccepted(node.id))
        accepted.append(after)
    return accepted


def refuse(ctx: Context, ids: Iterable[str]) -> list[Node]:
    """Turn pending nodes away, all or none; a tombstone of each stays. Raises NotFound."""
    waiting = [_waiting(ctx, one) for one in dict.fromkeys(ids)]
    for node in waiting:
        ctx.store.nodes.bury(node)
    return waiting


def _waiting(ctx: Context, node_id: str) -> Node:
    node = ctx.store.nodes.find(node_id, lock=True)
    if node is None or node.status is not NodeStatus.PENDING:
        raise NotFound(f"Missing inventory for node with ID: '{node_id}'")
    return node


def _require_distinct_hostnames(nodes: Iterable[Node]) -> None:
    twice = [name for name, times in Counter(node.hostname for node in nodes).items() if times > 1]
    if twice:
        named = "', '".join(sorted(twice))
        raise Conflict(f"You can not accept two nodes with the same hostname: '{named}'")


def _require_free_hostname(ctx: Context, node: Node) -> None:
    others = ctx.store.nodes.accepted_with(node.hostname)
    if len(others) == 1:
        raise Conflict(f"There is already a node with hostname '{node.hostname}' in Rudder. You can not add it again.")
    if others:
        raise Conflict(
            f"There are already {len(others)} nodes with hostname '{node.hostname}' in Rudder."
            " You can not add it again."
        )


# -- removing ------------------------------------------------------------------------------


def delete(ctx: Context, node_id: str, *, keep_tombstone: bool) -> Node | None:
    """Remove a node with everything that hangs on it; None when there was none.

    Raises Conflict for the root, and for a relay that serves nodes: nothing would reach them any more.

    A pending node counts as refused. The tombstone only answers that the node is deleted.
    """
    if node_id == ROOT:
        raise Conflict("The root node cannot be deleted.")
    node = ctx.store.nodes.find(node_id, lock=True)
    if node is None or (node.status is NodeStatus.DELETED and keep_tombstone):
        return None
    if node.kind is NodeKind.RELAY and node.status is NodeStatus.ACCEPTED:
        relays.retire(ctx, node)
    if keep_tombstone:
        ctx.store.nodes.bury(node)
    else:
        ctx.store.nodes.remove(node.id)
    if node.status is NodeStatus.ACCEPTED:
        ctx.emit(NodeRemoved(node.id))
    return node if node.status is not NodeStatus.DELETED else None


# -- setting -------------------------------------------------------------------------------------


def update(ctx: Context, node_id: str, changes: NodeChanges) -> Node:
    """Change what may be set on an accepted node. Raises NotFound, Invalid, Conflict."""
    before = ctx.store.nodes.find(node_id, lock=True)
    if before is None or before.status is not NodeStatus.ACCEPTED:
        raise NotFound(f"Node with id '{node_id}' was not found")
    fields = dict(changes.fields)
    if fields.get("schedule") is not None:
        _check_schedule(before, fields["schedule"])
    if changes.properties:
        fields["properties"] = properties.update(before.properties, changes.properties)
    fields["key"] = _changed_key(before, changes)
    after = replace(before, **fields)
    if after != before:
        ctx.store.nodes.set_by_administrator(after)
        ctx.emit(NodeChanged(after.id))
    return after


def _changed_key(node: Node, changes: NodeChanges) -> AgentKey:
    """The key after the change: a new one counts as certified unless its status says otherwise."""
    if changes.key_pem is None:
        return replace(node.key, status=changes.key_status or node.key.status)
    check_key(changes.key_pem, node.id)
    return AgentKey(pem=changes.key_pem, status=changes.key_status or KeyStatus.CERTIFIED)


def check_key(pem: str, node_id: str) -> None:
    """A key must be readable, and a certificate must be the node's own. Raises Invalid."""
    signature.public_key(pem)
    if "BEGIN CERTIFICATE" in pem and (named := signature.certified_node(pem)) != node_id:
        raise Invalid(
            f"The subject of the certificate must contain the node id '{node_id}' in its UID attribute, not '{named}'"
        )


def _check_schedule(node: Node, schedule: AgentSchedule) -> None:
    """What an agent can be scheduled at. Raises Invalid, Conflict."""
    if node.is_policy_server:
        raise Conflict("Policy servers run every 5 minutes; they have no schedule of their own.")
    minutes = schedule.interval_minutes
    if minutes < 1 or (minutes >= _MINUTES_OF_HOUR and minutes % _MINUTES_OF_HOUR):
        raise Invalid(
            "Agent execution interval can only be defined as minutes (less than 60) or complete hours,"
            f" ({minutes // 60} hours {minutes % 60} minutes is not supported)"
        )
    if not 0 <= schedule.start_hour < 24 or not 0 <= schedule.start_minute < _MINUTES_OF_HOUR:
        raise Invalid("The first run of an agent is at an hour from 0 to 23 and a minute from 0 to 59.")
    if not 0 <= schedule.splay_minutes <= minutes:
        raise Invalid(f"The splay time of an agent is between 0 and its interval, here {minutes} minutes.")
