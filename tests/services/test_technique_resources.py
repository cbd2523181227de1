# SPDX-License-Identifier: Apache-2.0
"""Files of techniques: kept with them, and in the policies of exactly the nodes that use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.common.fleets import TECHNIQUE, World

from quarterdeck.core import policies
from quarterdeck.core.errors import Conflict, Invalid, NotFound, TooLarge
from quarterdeck.core.ids import NodeId
from quarterdeck.core.technique_resources import MAX_BYTES
from quarterdeck.services import technique_resources, techniques
from quarterdeck.storage.database import Database

KEY = (str(TECHNIQUE.id), TECHNIQUE.version)


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=4)
    made = World(database)
    made.technique()
    yield made
    database.close()


def put(world: World, path: str, body: bytes, key: tuple[str, str] = KEY) -> None:
    world.do(lambda ctx: technique_resources.put(ctx, *key, path, body))


def delete(world: World, path: str) -> None:
    world.do(lambda ctx: technique_resources.delete(ctx, *KEY, path))


def paths(world: World) -> dict[str, int]:
    found = world.do(lambda ctx: technique_resources.of_technique(ctx, *KEY))
    return {one.path: one.size for one in found}


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def contents(world: World, *bodies: bytes) -> list[bool]:
    """Which of these are kept."""
    with world.unit() as ctx:
        return [ctx.store.technique_resources.content(digest(one)) == one for one in bodies]


def test_files_are_kept_by_path_and_read_back(world: World) -> None:
    put(world, "motd", b"hello")
    put(world, "deep/motd", b"")
    put(world, "motd", b"hello again")

    found, body = world.do(lambda ctx: technique_resources.get(ctx, *KEY, "motd"))

    assert paths(world) == {"deep/motd": 0, "motd": 11}
    assert (found.sha256, body) == (digest(b"hello again"), b"hello again")


def test_changes_stand_in_the_history_of_the_technique(world: World) -> None:
    put(world, "motd", b"hello")
    put(world, "motd", b"hello")
    delete(world, "motd")

    changes = world.do(lambda ctx: techniques.revisions(ctx, *KEY))

    assert [one.change for one in changes] == ["modified", "modified", "created"]
    listed = [{"path": "motd", "sha256": digest(b"hello"), "size": 5}]
    assert [one.after.get("resources") for one in changes] == [None, listed, None]
    assert changes[0].before["resources"] == listed


def test_a_changed_technique_keeps_its_files_and_a_deleted_one_loses_them(world: World) -> None:
    put(world, "motd", b"hello")

    changed = world.do(lambda ctx: techniques.update(ctx, replace(TECHNIQUE, description="new")))
    assert [one.path for one in changed.resources] == ["motd"]
    world.do(lambda ctx: techniques.delete(ctx, TECHNIQUE.key, force=False))
    world.technique()

    assert paths(world) == {}


@pytest.mark.parametrize(
    ("path", "size", "error"),
    [("../motd", 1, Invalid), ("big", MAX_BYTES + 1, TooLarge), ("motd/below", 1, Conflict), ("motd", MAX_BYTES, None)],
)
def test_what_cannot_be_kept_is_refused(world: World, path: str, size: int, error: Any) -> None:
    put(world, "motd", b"hello")

    if error is None:
        put(world, path, bytes(size))
    else:
        with pytest.raises(error):
            put(world, path, bytes(size))


def test_files_belong_to_techniques_that_exist_and_are_not_built_in(world: World) -> None:
    world.technique(replace(TECHNIQUE, version="2.0", source="built-in"))

    with pytest.raises(Conflict, match="built in"):
        put(world, "motd", b"hello", (KEY[0], "2.0"))
    with pytest.raises(NotFound):
        put(world, "motd", b"hello", (KEY[0], "3.0"))
    with pytest.raises(NotFound, match="no resource 'motd'"):
        delete(world, "motd")


# -- in policies -------------------------------------------------------------------------------


@pytest.fixture
def fleet(world: World) -> World:
    """Node a uses the technique, node b another version of it, node c none."""
    world.nodes("a", "b", "c")
    for node in "ab":
        world.group(f"group-{node}", [node])
    world.technique(replace(TECHNIQUE, version="2.0"))
    world.directive("first", "x")
    world.directive("second", "x")
    with world.unit() as ctx:
        second = ctx.store.directives.get("second")
        ctx.store.directives.replace(replace(second, version="2.0"))
    world.rule("on-a", ["first"], "group:group-a")
    world.rule("on-b", ["second"], "group:group-b")
    world.ask()
    world.generate()
    return world


def config_ids(world: World) -> dict[str, str]:
    return {str(node): found for node, found in world.do(lambda ctx: ctx.store.policies.config_ids()).items()}


def named(world: World, node: str) -> list[Any]:
    """The resources in a node's document."""
    stored = world.policy(node)
    assert stored is not None
    document = json.loads(policies.assemble(stored.policy, stored.config_id, stored.fragments))
    return [one for item in document["policies"] for one in item.get("resources", [])]


def test_a_file_changes_the_policies_of_exactly_the_nodes_that_use_its_technique(fleet: World) -> None:
    before = config_ids(fleet)

    put(fleet, "motd", b"hello")
    generation = fleet.generate()

    after = config_ids(fleet)
    assert generation is not None
    assert generation.nodes_changed == 1
    assert {node for node in after if after[node] != before[node]} == {"a"}
    assert named(fleet, "a") == [{"path": "motd", "sha256": digest(b"hello"), "size": 5}]
    assert named(fleet, "b") == []


def test_who_names_a_content_is_known(fleet: World) -> None:
    put(fleet, "motd", b"hello")
    put(fleet, "motd", b"hello", (KEY[0], "2.0"))
    put(fleet, "unused", b"other")
    fleet.generate()

    naming = fleet.do(lambda ctx: ctx.store.policies.naming(digest(b"hello")))
    of_some = fleet.do(lambda ctx: ctx.store.policies.naming(digest(b"hello"), ["b", "c"]))
    of_none = fleet.do(lambda ctx: ctx.store.policies.naming(digest(b"nobody's")))

    assert (naming, of_some, of_none) == ({NodeId("a"), NodeId("b")}, {NodeId("b")}, set())


def test_contents_stay_while_a_file_has_them_or_a_policy_names_them(fleet: World) -> None:
    put(fleet, "motd", b"old")
    fleet.generate()
    put(fleet, "motd", b"new")
    assert contents(fleet, b"old", b"new") == [True, True], "the policy still names the old one"

    fleet.generate()
    assert contents(fleet, b"old", b"new") == [False, True]
    delete(fleet, "motd")
    fleet.generate()

    assert contents(fleet, b"old", b"new") == [False, False]
    assert named(fleet, "a") == []
