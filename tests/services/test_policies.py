# SPDX-License-Identifier: Apache-2.0
"""Asking for policies: who may, what joins what, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from tests.common.fleets import TECHNIQUE, World

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.events import (
    DirectiveChanged,
    Event,
    GroupChanged,
    InventoryChanged,
    NodeAccepted,
    NodeChanged,
    RuleChanged,
    SettingsChanged,
    TechniqueChanged,
)
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, RuleId
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.properties import Property
from quarterdeck.core.targets import Exclusion, Simple, Union
from quarterdeck.services import fleet, policies
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database, Provenance


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6)
    yield World(database)
    database.close()


def _rows(world: World) -> list[tuple[str, Any]]:
    return [(row.state, row.concerns) for row in world.do(lambda ctx: ctx.store.generations.latest())]


def test_requests_join_the_one_that_waits(world: World) -> None:
    world.nodes("node-a", "node-b")
    for node in ("node-a", "node-b"):
        world.do(lambda _: None, NodeChanged(NodeId(node)))

    assert _rows(world) == [("asked", {"nodes": ["node-a", "node-b"]})]
    waiting = world.do(lambda ctx: ctx.store.rows(sqlalchemy.text("SELECT entrypoint FROM pgqueuer")))
    assert [row.entrypoint for row in waiting].count("generate policies") == 1


def test_a_change_of_settings_concerns_everything(world: World) -> None:
    world.do(lambda _: None, NodeChanged(NodeId("node-a")), SettingsChanged())

    assert _rows(world) == [("asked", None)]


@pytest.mark.parametrize(("policy", "automatic", "manual"), [("all", 1, 1), ("onlyManual", 0, 1), ("none", 0, 0)])
def test_settings_say_who_may_ask(world: World, policy: str, automatic: int, manual: int) -> None:
    world.do(lambda ctx: ctx.store.settings.set("generation_policy", policy))
    world.do(lambda _: None, NodeChanged(NodeId("node-a")))
    assert len(_rows(world)) == automatic

    assert world.do(policies.request_generation) is bool(manual)

    assert len(_rows(world)) == max(automatic, manual)


def test_a_request_that_is_rolled_back_never_was(world: World) -> None:
    with world.database.unit_of_work(Provenance(actor="test")) as store:
        policies.request_generation(Context(account=SYSTEM, store=store))

    assert _rows(world) == []
    assert world.do(lambda ctx: queue.waiting(ctx.store)) == {}


def test_two_units_of_work_never_wait_for_each_other(world: World) -> None:
    with world.unit() as first, world.unit() as second:
        policies.request_generation(first)
        policies.request_generation(second)

    assert world.generate() is not None
    assert world.generate() is None


# -- whom a change concerns ---------------------------------------------------------------


@pytest.fixture
def fleet_of_four(world: World) -> World:
    """a and b in `web`, c in `db`, d in neither; `below` inherits from `web` and has d."""
    world.nodes("a", "b", "c", "d")
    world.group("web", ["a", "b"])
    world.group("db", ["c"])
    in_web = Criterion(object_type="group", attribute="nodeGroupId", comparator="eq", value="web")
    world.group("below", ["d"], query=NodeQuery(criteria=(in_web,)))
    world.technique()
    world.directive("motd", "Hello")
    world.directive("issue", "Hello")
    world.rule("on-web", ["motd"], "group:web")
    world.rule("on-all", ["issue"], "special:all")
    return world


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (RuleChanged(RuleId("on-web")), "ab"),
        (RuleChanged(RuleId("on-all")), "abcd"),
        (RuleChanged(RuleId("gone")), ""),
        (DirectiveChanged(DirectiveId("motd")), "ab"),
        (DirectiveChanged(DirectiveId("issue")), "abcd"),
        (DirectiveChanged(DirectiveId("unused")), ""),
        (TechniqueChanged(TECHNIQUE.key), "abcd"),
        (GroupChanged(GroupId("db")), "c"),
        (GroupChanged(GroupId("web")), "abd"),
        (NodeChanged(NodeId("d")), "d"),
        (NodeAccepted(NodeId("c")), "c"),
        (InventoryChanged(NodeId("a")), "a"),
    ],
)
def test_a_change_concerns(fleet_of_four: World, event: Event, expected: str) -> None:
    fleet_of_four.do(lambda _: None, event)
    concerns = _rows(fleet_of_four)[0][1]

    taken = fleet_of_four.do(lambda ctx: fleet.snapshot(ctx, concerns))

    assert "".join(node.id for node in taken.fleet.nodes) == expected


def test_nodes_that_a_rule_excludes_are_not_concerned(fleet_of_four: World) -> None:
    target = Exclusion(Union((Simple("special:all"),)), Union((Simple("group:db"),)))
    with fleet_of_four.unit() as ctx:
        rule = ctx.store.rules.get("on-all")
        ctx.store.rules.remove(rule.id)
        ctx.store.rules.add(type(rule)(id=rule.id, name=rule.name, directives=rule.directives, targets=(target,)))

    taken = fleet_of_four.do(lambda ctx: fleet.snapshot(ctx, {"rules": ["on-all"]}))

    assert "".join(node.id for node in taken.fleet.nodes) == "abd"


def test_nodes_in_groups_that_contradict_each_other_have_a_problem(fleet_of_four: World) -> None:
    with fleet_of_four.unit() as ctx:
        for name, value in (("north", 1), ("south", 2)):
            group = Group(id=GroupId(name), name=name, dynamic=False, properties=(Property(name="side", value=value),))
            ctx.store.groups.add(group)
            ctx.store.memberships.set(group.id, ["a"])

    taken = fleet_of_four.do(lambda ctx: fleet.snapshot(ctx, None))

    problems = {node.id: node.problem for node in taken.fleet.nodes if node.problem}
    assert list(problems) == ["a"]
    assert "'side'" in problems["a"]
