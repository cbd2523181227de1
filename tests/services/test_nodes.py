# SPDX-License-Identifier: Apache-2.0
"""What people do with nodes, and what follows from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from tests.common import genuine

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.errors import Conflict, Invalid, NotFound, Unavailable
from quarterdeck.core.events import NodeAccepted, NodeChanged, NodeRemoved
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import ROOT, GroupId, NodeId, ParameterName
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.nodes import AgentKey, AgentSchedule, KeyStatus, Node, NodeKind, NodeState, NodeStatus
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.properties import Property
from quarterdeck.services import node_runs, nodes
from quarterdeck.services.context import Context
from quarterdeck.services.nodes import NodeChanges
from quarterdeck.storage.database import Database, Provenance

ID = NodeId("11111111-aaaa-4444-8888-000000000001")
OTHER = NodeId("11111111-aaaa-4444-8888-000000000002")
ACCEPTED = Node(id=ID, hostname="node1.example.com", properties=(Property(name="env", value="prod"),))
WAITING = replace(ACCEPTED, status=NodeStatus.PENDING)


@pytest.fixture
def ctx(postgres_url: str) -> Iterator[Context]:
    """A unit of work with the root server, that nobody commits."""
    database = Database(postgres_url, pool_size=1)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        store.nodes.add(Node(id=ROOT, hostname="server.example.com", kind=NodeKind.ROOT))
        yield Context(account=SYSTEM, store=store)
    database.close()


def test_accepting_takes_the_defaults_of_the_settings(ctx: Context) -> None:
    ctx.store.settings.set("node_onaccept_default_state", NodeState.INITIALIZING)
    ctx.store.settings.set("node_onaccept_default_policy_mode", PolicyMode.AUDIT)
    ctx.store.nodes.add(WAITING)

    [accepted] = nodes.accept(ctx, [ID])

    assert ctx.store.nodes.get(ID) == accepted
    assert (accepted.status, accepted.state, accepted.mode) == (
        NodeStatus.ACCEPTED,
        NodeState.INITIALIZING,
        PolicyMode.AUDIT,
    )
    assert accepted.accepted_at == ctx.now
    assert ctx.events == [NodeAccepted(ID)]


def test_one_hostname_is_accepted_once_unless_the_settings_allow_it(ctx: Context) -> None:
    ctx.store.nodes.add(replace(ACCEPTED, id=OTHER))
    ctx.store.nodes.add(WAITING)

    with pytest.raises(Conflict, match="There is already a node with hostname"):
        nodes.accept(ctx, [ID])

    ctx.store.settings.set("node_accept_duplicated_hostname", value=True)
    assert len(nodes.accept(ctx, [ID])) == 1


@pytest.mark.parametrize("status", [NodeStatus.ACCEPTED, NodeStatus.DELETED])
def test_only_what_waits_is_accepted_or_refused(status: NodeStatus, ctx: Context) -> None:
    ctx.store.nodes.add(replace(ACCEPTED, status=status))

    for function in (nodes.accept, nodes.refuse):
        with pytest.raises(NotFound, match=f"Missing inventory for node with ID: '{ID}'"):
            function(ctx, [ID])
    assert ctx.events == []


def test_refusing_leaves_a_tombstone_and_concerns_nobody(ctx: Context) -> None:
    ctx.store.nodes.add(WAITING)

    nodes.refuse(ctx, [ID])

    assert nodes.statuses(ctx, [ID, OTHER]) == {ID: NodeStatus.DELETED, OTHER: None}
    assert ctx.events == []


@pytest.mark.parametrize("keep_tombstone", [True, False])
def test_deleting_takes_the_node_out_of_its_groups(keep_tombstone: bool, ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    ctx.store.groups.add(Group(id=GroupId("g"), name="Some group", dynamic=False))
    ctx.store.memberships.set("g", [ID])

    deleted = nodes.delete(ctx, ID, keep_tombstone=keep_tombstone)

    assert deleted == ACCEPTED
    assert ctx.store.groups.members("g") == []
    assert ctx.events == [NodeRemoved(ID)]
    assert nodes.statuses(ctx, [ID])[ID] is (NodeStatus.DELETED if keep_tombstone else None)
    assert nodes.delete(ctx, ID, keep_tombstone=keep_tombstone) is None


def test_erasing_a_tombstone_removes_it(ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    nodes.delete(ctx, ID, keep_tombstone=True)

    assert nodes.delete(ctx, ID, keep_tombstone=False) is None

    assert nodes.statuses(ctx, [ID]) == {ID: None}


def test_the_root_cannot_be_deleted(ctx: Context) -> None:
    with pytest.raises(Conflict, match="The root node cannot be deleted"):
        nodes.delete(ctx, ROOT, keep_tombstone=False)


def test_a_deleted_node_asks_for_its_key_anew(ctx: Context) -> None:
    key = AgentKey(pem=genuine.certificate(ID), status=KeyStatus.CERTIFIED)
    ctx.store.nodes.add(replace(ACCEPTED, key=key))

    nodes.delete(ctx, ID, keep_tombstone=True)

    assert ctx.store.nodes.get(ID).key.status is KeyStatus.UNDEFINED


def test_a_change_of_nothing_concerns_nobody(ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)

    nodes.update(ctx, ID, NodeChanges(fields={"mode": None}, properties=ACCEPTED.properties))
    assert ctx.events == []

    nodes.update(ctx, ID, NodeChanges(fields={"mode": PolicyMode.AUDIT}))
    assert ctx.events == [NodeChanged(ID)]


def test_a_new_key_is_certified_unless_told_otherwise(ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    pem = genuine.certificate(ID)

    assert nodes.update(ctx, ID, NodeChanges(fields={}, key_pem=pem)).key == AgentKey(
        pem=pem, status=KeyStatus.CERTIFIED
    )
    reset = nodes.update(ctx, ID, NodeChanges(fields={}, key_status=KeyStatus.UNDEFINED))
    assert reset.key == AgentKey(pem=pem, status=KeyStatus.UNDEFINED)
    both = nodes.update(ctx, ID, NodeChanges(fields={}, key_pem=pem, key_status=KeyStatus.UNDEFINED))
    assert both.key.status is KeyStatus.UNDEFINED


@pytest.mark.parametrize("pem", ["", "text", genuine.certificate(OTHER)], ids=["empty", "text", "another node's"])
def test_a_key_must_be_one_and_a_certificate_the_nodes_own(pem: str, ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)

    with pytest.raises(Invalid):
        nodes.update(ctx, ID, NodeChanges(fields={}, key_pem=pem))


@pytest.mark.parametrize(
    ("schedule", "fits"),
    [
        (AgentSchedule(interval_minutes=5), True),
        (AgentSchedule(interval_minutes=59), True),
        (AgentSchedule(interval_minutes=60), True),
        (AgentSchedule(interval_minutes=1440), True),
        (AgentSchedule(interval_minutes=61), False),
        (AgentSchedule(interval_minutes=0, splay_minutes=0), False),
        (AgentSchedule(interval_minutes=5, splay_minutes=6), False),
        (AgentSchedule(interval_minutes=120, start_hour=24), False),
        (AgentSchedule(interval_minutes=120, start_minute=60), False),
    ],
)
def test_agents_run_every_few_minutes_or_whole_hours(schedule: AgentSchedule, fits: bool, ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    changes = NodeChanges(fields={"schedule": schedule})

    if fits:
        assert nodes.update(ctx, ID, changes).schedule == schedule
    else:
        with pytest.raises(Invalid):
            nodes.update(ctx, ID, changes)


@pytest.mark.parametrize("status", [NodeStatus.PENDING, NodeStatus.DELETED])
def test_only_accepted_nodes_are_updated(status: NodeStatus, ctx: Context) -> None:
    ctx.store.nodes.add(replace(ACCEPTED, status=status))

    with pytest.raises(NotFound):
        nodes.update(ctx, ID, NodeChanges(fields={}))


def test_groups_and_parameters_bring_properties(ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    ctx.store.parameters.add(Parameter(name=ParameterName("env"), value="dev"))
    ctx.store.groups.add(
        Group(id=GroupId("g"), name="Some group", properties=(Property(name="zone", value={"a": 1}),), dynamic=False)
    )
    ctx.store.memberships.set("g", [ID])

    found = {one.name: one for one in nodes.inherited(ctx, ID)}

    assert (found["env"].value, found["env"].provider, found["env"].original) == ("prod", "overridden", "prod")
    assert [(level.kind, level.value) for level in found["env"].hierarchy] == [("global", "dev")]
    assert (found["zone"].provider, found["zone"].hierarchy[0].id) == ("inherited", "g")


class Reaches:
    """A transport that reaches one node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.asked: list[tuple[str, Sequence[str]]] = []

    def start(self, nodes: Mapping[NodeId, str], classes: Sequence[str]) -> Mapping[NodeId, str]:
        self.asked += [(hostname, classes) for node, hostname in nodes.items() if node == self.node]
        return {node: "It is away." for node in nodes if node != self.node}

    async def follow(self, node: NodeId, hostname: str, classes: Sequence[str]) -> AsyncIterator[bytes]:
        yield b"Start execution\n"


def test_every_accepted_node_is_asked_to_run_and_each_has_its_own_outcome(ctx: Context) -> None:
    ctx.store.nodes.add(ACCEPTED)
    ctx.store.nodes.add(replace(WAITING, id=OTHER))
    transport = Reaches(ID)

    asked = node_runs.start_all(ctx, transport, ["audit"])

    assert asked == [(ID, "node1.example.com", ""), (ROOT, "server.example.com", "It is away.")]
    assert transport.asked == [("node1.example.com", ["audit"])]


def test_only_an_accepted_node_is_followed(ctx: Context) -> None:
    ctx.store.nodes.add(WAITING)

    with pytest.raises(NotFound, match=f"Node with id '{ID}' was not found"):
        node_runs.follow(ctx, Reaches(ID), ID)
    with pytest.raises(Unavailable, match="runs by itself"):
        node_runs.follow(ctx, node_runs.NoTransport(), ROOT)
