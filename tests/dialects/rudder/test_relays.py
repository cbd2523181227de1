# SPDX-License-Identifier: Apache-2.0
"""Promotion and demotion through the Rudder API: the role, the group of the nodes served, and who is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.agents import Agent
from tests.served import Served

from quarterdeck.core.ids import GroupId, NodeId
from quarterdeck.core.nodes import NodeKind, NodeStatus

ONE = Agent(hostname="one.example.com")
OTHER = Agent(hostname="other.example.com", key_number=1)
WAITING = Agent(hostname="waiting.example.com", key_number=2)


def ask(served: Served, role: str, node: str, who: str = "write") -> tuple[int, dict[str, Any]]:
    answer = served.client.post(
        f"/rudder/api/latest/scaleoutrelay/{role}/{node}", headers={"X-API-Token": served.tokens[who]}
    )
    return answer.status_code, answer.json()


def add(served: Served) -> None:
    with served.unit_of_work() as ctx:
        ctx.store.nodes.add(ONE.as_node())
        ctx.store.nodes.add(OTHER.as_node())
        ctx.store.nodes.add(WAITING.as_node(status=NodeStatus.PENDING))


def test_a_node_becomes_a_relay_and_a_node_again(served: Served) -> None:
    add(served)
    group = GroupId(f"hasPolicyServer-{ONE.node}")

    promoted = ask(served, "promote", ONE.node)
    with served.unit_of_work() as ctx:
        kind, made = ctx.store.nodes.get(ONE.node).kind, ctx.store.groups.get(group)
        latest = ctx.store.history.of("node", ONE.node)[-1]
    demoted = ask(served, "demote", ONE.node)

    assert promoted == (200, {"action": "promoteToRelay", "result": "success", "data": ONE.node})
    assert (kind, made.system, made.name) == (
        NodeKind.RELAY,
        True,
        "All nodes managed by one.example.com policy server",
    )
    assert latest.actor == "write"
    assert demoted == (200, {"action": "demoteToNode", "result": "success", "data": ONE.node})
    with served.unit_of_work() as ctx:
        assert ctx.store.nodes.get(ONE.node).kind is NodeKind.NODE
        assert ctx.store.groups.find(group) is None


def test_only_accepted_plain_nodes_are_promoted_and_only_relays_demoted(served: Served) -> None:
    add(served)
    ask(served, "promote", ONE.node)

    refusals = [
        ask(served, role, node)
        for role, node in (
            ("promote", ONE.node),
            ("promote", "root"),
            ("promote", WAITING.node),
            ("promote", "nobody"),
            ("demote", OTHER.node),
            ("demote", "root"),
        )
    ]

    assert {document["result"] for _, document in refusals} == {"error"}
    assert all(status >= 400 for status, _ in refusals)


def test_a_relay_that_serves_nodes_stays_one(served: Served) -> None:
    add(served)
    ask(served, "promote", ONE.node)
    with served.unit_of_work() as ctx:
        behind = Agent(hostname="behind.example.com", key_number=3).as_node()
        ctx.store.nodes.add(replace(behind, policy_server=NodeId(ONE.node)))

    status, document = ask(served, "demote", ONE.node)

    deleted = served.client.delete(
        f"/rudder/api/latest/nodes/{ONE.node}", headers={"X-API-Token": served.tokens["write"]}
    )

    assert status >= 400
    assert "serves 1 node: enrol it at another server first" in document["errorDetails"]
    assert "serves 1 node" in deleted.json()["errorDetails"]
    with served.unit_of_work() as ctx:
        assert ctx.store.nodes.get(ONE.node).kind is NodeKind.RELAY


def test_a_deleted_relay_leaves_nothing_and_may_come_again(served: Served) -> None:
    add(served)
    ask(served, "promote", ONE.node)

    deleted = served.client.delete(
        f"/rudder/api/latest/nodes/{ONE.node}", headers={"X-API-Token": served.tokens["write"]}
    )

    assert deleted.json()["data"]["nodes"][0]["status"] == "deleted"
    with served.unit_of_work() as ctx:
        assert ctx.store.groups.find(GroupId(f"hasPolicyServer-{ONE.node}")) is None
        ctx.store.nodes.add(ONE.as_node())
    assert ask(served, "promote", ONE.node)[0] == 200


def test_a_group_that_a_former_server_left_is_no_obstacle(served: Served) -> None:
    add(served)
    ask(served, "promote", ONE.node)
    with served.unit_of_work() as ctx:
        ctx.store.nodes.remove(NodeId(ONE.node))
        ctx.store.nodes.add(ONE.as_node())

    assert ask(served, "promote", ONE.node)[0] == 200


def test_reading_is_not_enough(served: Served) -> None:
    add(served)

    _, refused = ask(served, "promote", ONE.node, "read")

    assert refused["errorDetails"].startswith("Authorization error")
    with served.unit_of_work() as ctx:
        assert ctx.store.nodes.get(ONE.node).kind is NodeKind.NODE
