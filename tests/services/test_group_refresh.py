# SPDX-License-Identifier: Apache-2.0
"""Dynamic groups follow their queries: in order, only where something changed, and soon after the change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy
from tests.common.fleets import World

from quarterdeck.core.events import Event, GroupChanged, GroupMembersChanged, InventoryChanged, NodeAccepted
from quarterdeck.core.ids import GroupId, NodeId
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.engine import tasks
from quarterdeck.services import group_refresh
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6)
    yield World(database)
    database.close()


def _named(pattern: str) -> Criterion:
    return Criterion(object_type="node", attribute="nodeHostname", comparator="regex", value=pattern)


def _in_group(name: str) -> Criterion:
    return Criterion(object_type="group", attribute="nodeGroupId", comparator="eq", value=name)


def _dynamic(world: World, name: str, *criteria: Criterion, **fields: Any) -> GroupId:
    return world.group(name, dynamic=True, query=NodeQuery(criteria=criteria), **fields)


def _members(world: World, group: str) -> list[str]:
    return list(world.do(lambda ctx: ctx.store.groups.members(group)))


def _refresh(world: World, payload: dict[str, list[str]] | None = None) -> list[Event]:
    """Refresh and return what was emitted."""
    with world.unit() as ctx:
        group_refresh.refresh(ctx, payload)
        return list(ctx.events)


def test_members_become_what_the_query_says(world: World) -> None:
    world.nodes("web-1", "web-2", "db-1")
    _dynamic(world, "web", _named("web-.*"))

    emitted = _refresh(world)

    assert _members(world, "web") == ["web-1", "web-2"]
    assert emitted == [GroupMembersChanged(GroupId("web"))]


def test_an_unchanged_member_list_is_not_saved_again(world: World) -> None:
    world.nodes("web-1")
    _dynamic(world, "web", _named("web-.*"))
    _refresh(world)

    assert _refresh(world) == []


def test_a_static_group_keeps_its_members(world: World) -> None:
    world.nodes("web-1", "db-1")
    world.group("chosen", ["db-1"], query=NodeQuery(criteria=(_named("web-.*"),)))

    assert _refresh(world) == []
    assert _members(world, "chosen") == ["db-1"]


def test_a_chain_of_groups_is_right_after_one_refresh(world: World) -> None:
    world.nodes("web-1", "db-1")
    _dynamic(world, "a-last", _in_group("b-middle"))
    _dynamic(world, "b-middle", _in_group("c-first"))
    _dynamic(world, "c-first", _named("web-.*"))

    _refresh(world)

    assert _members(world, "a-last") == ["web-1"]


def test_groups_in_a_circle_keep_their_members_and_the_others_are_refreshed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.nodes("web-1")
    _dynamic(world, "one", _in_group("two"))
    _dynamic(world, "two", _in_group("one"))
    _dynamic(world, "below", _in_group("one"))
    _dynamic(world, "web", _named("web-.*"))

    with caplog.at_level(logging.WARNING):
        emitted = _refresh(world)

    assert emitted == [GroupMembersChanged(GroupId("web"))]
    assert "one (one), two (two)" in caplog.text


def test_a_bad_query_leaves_the_other_groups_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.nodes("web-1")
    _dynamic(world, "bad", _named("web-(("))
    _dynamic(world, "web", _named("web-.*"))

    with caplog.at_level(logging.WARNING):
        _refresh(world)

    assert _members(world, "web") == ["web-1"]
    assert "the members of group bad (bad) stay as they are" in caplog.text


def test_one_node_joins_and_leaves_without_touching_the_rest(world: World) -> None:
    world.nodes("web-1", "web-2", "db-1")
    _dynamic(world, "web", _named("web-.*"))
    _dynamic(world, "below", _in_group("web"))
    # Wrong on purpose: only the node that is asked about may be put right.
    world.do(lambda ctx: ctx.store.memberships.set("web", ["web-1", "db-1"], only=None))

    _refresh(world, {"nodes": ["web-2"]})
    assert _members(world, "web") == ["db-1", "web-1", "web-2"]
    assert _members(world, "below") == ["web-2"]

    _refresh(world, {"nodes": ["db-1"]})
    assert _members(world, "web") == ["web-1", "web-2"]


def test_a_changed_group_brings_the_groups_that_name_it(world: World) -> None:
    world.nodes("web-1")
    _dynamic(world, "web", _named("web-.*"))
    _dynamic(world, "below", _in_group("web"))
    _dynamic(world, "other", _named("web-.*"))

    emitted = _refresh(world, {"groups": ["web"]})

    assert emitted == [GroupMembersChanged(GroupId("web")), GroupMembersChanged(GroupId("below"))]


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (NodeAccepted(NodeId("web-1")), {"nodes": ["web-1"]}),
        (InventoryChanged(NodeId("web-1")), {"nodes": ["web-1"]}),
        (GroupChanged(GroupId("web")), {"groups": ["web"]}),
    ],
)
def test_what_happens_asks_for_a_refresh(world: World, event: Event, payload: dict[str, list[str]]) -> None:
    world.do(lambda _: None, event)

    query = sqlalchemy.text("SELECT convert_from(payload, 'utf8')::jsonb FROM pgqueuer WHERE entrypoint = :task")
    asked = world.do(lambda ctx: ctx.store.run(query, {"task": group_refresh.TASK}).scalar_one())
    assert asked == payload


@contextmanager
def _worker(database: Database) -> Iterator[None]:
    """A worker in a thread of this process."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    running = threading.Thread(
        target=loop.run_until_complete, args=(tasks.run_worker(database, cpu=1, threads=2, stop=stop),)
    )
    running.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        running.join()
        loop.close()


def test_an_accepted_node_soon_has_its_groups_and_its_policy(world: World) -> None:
    world.nodes("web-1", status=NodeStatus.PENDING)
    _dynamic(world, "web", _named("web-.*"))
    world.technique()
    world.directive("motd", "Hello")
    world.rule("welcome", ["motd"], "group:web")

    def accept(ctx: Context) -> None:
        node = ctx.store.nodes.get("web-1")
        ctx.store.nodes.replace(replace(node, status=NodeStatus.ACCEPTED))
        ctx.emit(NodeAccepted(node.id))

    with _worker(world.database):
        _until(lambda: world.config_ids() == {})
        world.do(accept)
        _until(lambda: _members(world, "web") == ["web-1"])
        _until(lambda: (found := world.policy("web-1")) is not None and len(found.policy.fragments) == 1)


def _until(holds: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_group_that_is_not_there_any_more_is_no_error(world: World) -> None:
    assert _refresh(world, {"groups": ["gone"]}) == []
