# SPDX-License-Identifier: Apache-2.0
"""Policy generation end to end on a real database: from what is configured to the rows that agents read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy
from tests.common.fleets import World

from quarterdeck.core import policies as core_policies
from quarterdeck.core.events import (
    DirectiveChanged,
    GroupChanged,
    GroupMembersChanged,
    NodeChanged,
    NodeRemoved,
    ParameterChanged,
    RuleChanged,
)
from quarterdeck.core.ids import GroupId, NodeId, ParameterName, RuleId
from quarterdeck.core.nodes import NodeState, NodeStatus
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.properties import Property
from quarterdeck.core.targets import Simple
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6)
    yield World(database)
    database.close()


@pytest.fixture
def small(world: World) -> World:
    """Three nodes; two of them in the group `web`; the rule `welcome` writes a line on these."""
    world.nodes("node-a", "node-b", "node-c")
    world.group("web", ["node-a", "node-b"])
    world.technique()
    world.directive("motd", "Welcome to ${rudder.node.hostname}")
    world.rule("welcome", ["motd"], "group:web")
    world.ask()
    world.generate()
    return world


def _items(world: World, node: str) -> list[dict[str, Any]]:
    stored = world.policy(node)
    assert stored is not None
    return core_policies.items(stored.policy, stored.fragments)


def _texts(world: World, node: str) -> list[str]:
    return [item["items"][0]["params"]["lines"] for item in _items(world, node)]


def _change_directive(world: World, text: str) -> None:
    def change(ctx: Context) -> None:
        directive = ctx.store.directives.get("motd")
        ctx.store.directives.replace(replace(directive, parameters={"TEXT": (text,)}))
        ctx.emit(DirectiveChanged(directive.id))

    world.do(change)


def test_a_rule_reaches_the_nodes_of_its_group(small: World) -> None:
    assert _texts(small, "node-a") == ["Welcome to node-a.example.org"]
    assert _texts(small, "node-b") == ["Welcome to node-b.example.org"]
    assert _texts(small, "node-c") == []


def test_the_document_has_its_configuration_id_and_policies(small: World) -> None:
    stored = small.policy("node-a")
    assert stored is not None

    document = core_policies.assemble(stored.policy, stored.config_id, stored.fragments)

    assert f'"config_id":"{stored.config_id}"'.encode() in document
    assert b"Welcome to node-a.example.org" in document


def test_nothing_changes_when_nothing_changed(small: World) -> None:
    before = small.config_ids()
    small.ask()

    ended = small.generate()

    assert ended is not None
    assert (ended.state, ended.nodes_total, ended.nodes_changed) == ("done", 3, 0)
    assert small.config_ids() == before


def test_regenerating_gives_every_node_a_new_configuration(small: World) -> None:
    small.ask(everything=True)

    ended = small.generate()

    assert ended is not None
    assert ended.nodes_changed == 3


def test_one_changed_directive_touches_only_its_nodes(small: World) -> None:
    before = small.config_ids()

    _change_directive(small, "Hello")
    ended = small.generate()

    after = small.config_ids()
    assert ended is not None
    assert (ended.nodes_total, ended.nodes_changed) == (2, 2)
    assert {node for node in after if after[node] != before[node]} == {"node-a", "node-b"}
    assert _texts(small, "node-a") == ["Hello"]


def test_fragments_that_nobody_uses_any_more_are_swept(small: World) -> None:
    _change_directive(small, "Hello")
    small.generate()

    count = small.do(lambda ctx: ctx.store.run(sqlalchemy.text("SELECT count(*) FROM policy_fragments")).scalar_one())
    assert count == 1


def test_nodes_that_a_rule_leaves_lose_its_directives(small: World) -> None:
    def change(ctx: Context) -> None:
        rule = ctx.store.rules.get("welcome")
        ctx.store.rules.replace(replace(rule, targets=(Simple("special:all_policyServers"),)))
        ctx.emit(RuleChanged(rule.id))

    small.do(change)
    ended = small.generate()

    assert ended is not None
    assert ended.nodes_total == 2
    assert _texts(small, "node-a") == []


def test_a_deleted_rule_leaves_nothing_behind(small: World) -> None:
    small.do(lambda ctx: ctx.store.rules.remove("welcome"), RuleChanged(RuleId("welcome")))
    small.generate()

    assert [_texts(small, node) for node in ("node-a", "node-b", "node-c")] == [[], [], []]


def test_moving_a_node_between_groups_touches_both_sides(small: World) -> None:
    small.do(
        lambda ctx: ctx.store.memberships.set("web", ["node-b", "node-c"]),
        GroupMembersChanged(GroupId("web")),
    )
    ended = small.generate()

    assert ended is not None
    assert ended.nodes_total == 3
    assert [len(_texts(small, node)) for node in ("node-a", "node-b", "node-c")] == [0, 1, 1]


def test_a_property_of_a_group_reaches_its_members_only(small: World) -> None:
    def change(ctx: Context) -> None:
        group = ctx.store.groups.get("web")
        ctx.store.groups.replace(replace(group, properties=(Property(name="site", value="north"),)))
        ctx.emit(GroupChanged(group.id))

    small.do(change)
    ended = small.generate()

    assert ended is not None
    assert (ended.nodes_total, ended.nodes_changed) == (2, 2)


def test_a_parameter_reaches_every_node(small: World) -> None:
    name = ParameterName("site")
    small.do(lambda ctx: ctx.store.parameters.add(Parameter(name=name, value="north")), ParameterChanged(name))
    ended = small.generate()

    assert ended is not None
    assert (ended.nodes_total, ended.nodes_changed) == (3, 3)


def test_a_disabled_rule_is_not_applied(small: World) -> None:
    def change(ctx: Context) -> None:
        rule = ctx.store.rules.get("welcome")
        ctx.store.rules.replace(replace(rule, enabled=False))
        ctx.emit(RuleChanged(rule.id))

    small.do(change)
    small.generate()

    assert _texts(small, "node-a") == []


def test_a_node_that_cannot_be_served_keeps_its_policy_and_says_why(small: World) -> None:
    before = small.config_ids()

    _change_directive(small, "${node.properties[site]}")
    ended = small.generate()

    assert ended is not None
    assert ended.state == "done"
    assert ended.message == "Generation ended but some nodes were in errors: 2"
    assert small.config_ids() == before
    errors = small.do(lambda ctx: ctx.store.policies.errors())
    assert sorted(errors) == ["node-a", "node-b"]
    assert "Missing property '${node.properties[site]}'" in errors["node-a"]


def test_a_served_node_is_no_longer_in_error(small: World) -> None:
    _change_directive(small, "${node.properties[site]}")
    small.generate()
    _change_directive(small, "Hello")
    small.generate()

    assert small.do(lambda ctx: ctx.store.policies.errors()) == {}


def _retarget(ctx: Context) -> None:
    rule = ctx.store.rules.get("broken")
    ctx.store.rules.replace(replace(rule, targets=(Simple("special:all_policyServers"),)))
    ctx.emit(RuleChanged(rule.id))


def _remove(ctx: Context) -> None:
    ctx.store.rules.remove("broken")
    ctx.emit(RuleChanged(RuleId("broken")))


def _leave(ctx: Context) -> None:
    ctx.store.memberships.set("web", [])
    ctx.emit(GroupMembersChanged(GroupId("web")))


@pytest.mark.parametrize("change", [_retarget, _remove, _leave])
def test_a_node_that_leaves_the_rule_it_could_not_be_served_for_is_no_longer_in_error(
    small: World, change: Callable[[Context], None]
) -> None:
    small.directive("site", "${node.properties[site]}")
    small.rule("broken", ["site"], "group:web")
    small.do(lambda _: None, RuleChanged(RuleId("broken")))
    small.generate()
    assert sorted(small.do(lambda ctx: ctx.store.policies.errors())) == ["node-a", "node-b"]

    small.do(change)
    small.generate()

    assert small.do(lambda ctx: ctx.store.policies.errors()) == {}


def test_the_policy_of_a_removed_node_goes(small: World) -> None:
    def remove(ctx: Context) -> None:
        node = ctx.store.nodes.get("node-a")
        ctx.store.nodes.replace(replace(node, status=NodeStatus.DELETED))
        ctx.emit(NodeRemoved(node.id))

    small.do(remove)
    small.generate()

    assert sorted(small.config_ids()) == ["node-b", "node-c"]


def test_an_ignored_node_keeps_what_it_has(small: World) -> None:
    def ignore(ctx: Context) -> None:
        node = ctx.store.nodes.get("node-a")
        ctx.store.nodes.replace(replace(node, state=NodeState.IGNORED))
        ctx.emit(NodeChanged(node.id))

    before = small.config_ids()["node-a"]
    small.do(ignore)
    _change_directive(small, "Hello")
    small.generate()

    assert small.config_ids()["node-a"] == before
    assert _texts(small, "node-b") == ["Hello"]


def test_the_signature_of_a_changed_policy_goes(small: World) -> None:
    ids = small.config_ids()
    with small.unit() as ctx:
        for node in ("node-a", "node-c"):
            ctx.store.policies.sign(node, ids[node], b"signed")
    _change_directive(small, "Hello")
    small.generate()

    changed, unchanged = small.policy("node-a"), small.policy("node-c")
    assert changed is not None
    assert unchanged is not None
    assert (changed.signature, unchanged.signature) == (None, b"signed")


def test_nothing_asked_means_nothing_done(world: World) -> None:
    assert world.generate() is None


def test_what_a_failed_generation_missed_is_made_up_by_the_next(small: World) -> None:
    document = small.do(lambda ctx: ctx.store.run(sqlalchemy.text("SELECT document FROM techniques")).scalar_one())
    set_document = sqlalchemy.text("UPDATE techniques SET document = :document")
    small.do(lambda ctx: ctx.store.run(set_document, {"document": "no technique"}))
    _change_directive(small, "Hello")
    failed = small.generate()
    small.do(lambda ctx: ctx.store.run(set_document, {"document": document}))
    assert failed is not None
    assert failed.state == "failed"
    assert failed.message != ""
    # It would be tried again by itself, in five minutes.
    assert [state for state, _ in _rows(small)] == ["asked", "failed", "done"]

    small.do(lambda _: None, NodeChanged(NodeId("node-c")))
    ended = small.generate()

    assert ended is not None
    assert ended.nodes_total == 3
    assert _texts(small, "node-a") == ["Hello"]


def _rows(world: World) -> list[tuple[str, Any]]:
    return [(row.state, row.concerns) for row in world.do(lambda ctx: ctx.store.generations.latest())]


# -- kill -9 -----------------------------------------------------------------------------

_WORKER = """
import asyncio, sys
from quarterdeck.engine import tasks
from quarterdeck.storage.database import Database

asyncio.run(tasks.run_worker(Database(sys.argv[1]), cpu=1, threads=2, stop=asyncio.Event()))
"""


@contextmanager
def _worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker process; killed at the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", _WORKER, url], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_worker_killed_while_it_writes_leaves_the_old_policies_and_the_next_one_finishes(small: World) -> None:
    before = small.config_ids()
    waits = sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'")
    with small.unit() as ctx:
        ctx.store.run(sqlalchemy.text("LOCK TABLE node_policies IN SHARE MODE"))
        _change_directive(small, "Hello")
        with _worker(small.database.url) as process:
            _until(lambda: bool(small.do(lambda ctx: ctx.store.run(waits).scalar_one())), "the worker never wrote")
            process.kill()
    assert small.config_ids() == before
    assert _rows(small)[0][0] == "running"

    with _worker(small.database.url):
        _until(lambda: _rows(small)[0][0] == "done", "nobody took the generation over")

    assert _texts(small, "node-a") == ["Hello"]
