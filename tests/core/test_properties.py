# SPDX-License-Identifier: Apache-2.0
"""Merging of property values, updates with owners, and what nodes and groups inherit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quarterdeck.core import inheritance, properties
from quarterdeck.core.errors import Conflict, Invalid, NotFound
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import GroupId, ParameterName
from quarterdeck.core.inheritance import Inheritance, Inherited, Origin
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.properties import Property

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
MODES = some.from_regex(r"[mo][oap][oap]", fullmatch=True)


def parameter(name: str, value: Any, mode: str | None = None) -> Parameter:
    return Parameter(name=ParameterName(name), value=value, inherit_mode=mode)


def group(name: str, *parents: str, inverted: bool = False, composition: str = "and", **values: Any) -> Group:
    criteria = tuple(
        Criterion(object_type="group", attribute="nodeGroupId", comparator="eq", value=parent) for parent in parents
    )
    return Group(
        id=GroupId(name),
        name=name.upper(),
        query=NodeQuery(criteria=criteria, inverted=inverted, composition=composition),
        properties=tuple(Property(name=key, value=value) for key, value in values.items()),
    )


def within(*names: str) -> frozenset[GroupId]:
    return frozenset(GroupId(name) for name in names)


@pytest.mark.parametrize(
    ("mode", "parent", "child", "merged"),
    [
        ("moo", {"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ("ooo", {"a": 1}, {"b": 2}, {"b": 2}),
        ("moo", [1], [2], [2]),
        ("mao", [1], [2], [1, 2]),
        ("mpo", [1], [2], [2, 1]),
        ("moo", "some string", "string", "string"),
        ("moa", "some string", "string", "some stringstring"),
        ("mop", "some string", "string", "stringsome string"),
        ("map", "some string", "string", "stringsome string"),
        ("maa", {"k": [1], "s": "a"}, {"k": [2], "s": "b"}, {"k": [1, 2], "s": "ab"}),
        ("maa", [1], "text", "text"),
        ("maa", {"a": 1}, [1], [1]),
        ("maa", 1, 2, 2),
    ],
)
def test_a_value_is_merged_over_its_parent_as_the_mode_says(mode: str, parent: Any, child: Any, merged: Any) -> None:
    assert properties.merge(parent, child, mode) == merged


@given(JSON, JSON, MODES)
def test_merging_changes_neither_value(parent: Any, child: Any, mode: str) -> None:
    before = copy.deepcopy((parent, child))

    properties.merge(parent, child, mode)

    assert (parent, child) == before


@given(JSON, JSON)
def test_merging_everything_by_override_gives_the_child(parent: Any, child: Any) -> None:
    assert properties.merge(parent, child, "ooo") == child


@given(JSON, JSON)
def test_merging_again_by_default_changes_nothing(parent: Any, child: Any) -> None:
    once = properties.merge(parent, child)

    assert properties.merge(parent, once) == once
    assert properties.merge(once, child) == once


@given(some.dictionaries(some.text(max_size=2), JSON), some.dictionaries(some.text(max_size=2), JSON), MODES)
def test_merged_objects_have_the_keys_of_both(parent: dict[str, Any], child: dict[str, Any], mode: str) -> None:
    merged = properties.merge(parent, child, "m" + mode[1:])

    assert merged.keys() == parent.keys() | child.keys()


@given(some.lists(JSON, max_size=3), some.lists(JSON, max_size=3), some.lists(JSON, max_size=3))
def test_appending_lists_does_not_depend_on_grouping(a: list[Any], b: list[Any], c: list[Any]) -> None:
    left = properties.merge(properties.merge(a, b, "mao"), c, "mao")

    assert left == properties.merge(a, properties.merge(b, c, "mao"), "mao")


@pytest.mark.parametrize("text", ["", "mo", "moox", "xoo", "mxo", "MOO", "moo\n"])
def test_a_bad_inherit_mode_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        properties.parse_inherit_mode(text)

    assert refusal.value.message == (
        f"Impossible to parse string as inherit mode option, expecting: [mo][oap][oap] but got: {text}"
    )


def test_an_update_adds_replaces_and_deletes() -> None:
    existing = [Property(name=name, value=1, inherit_mode="map") for name in ("a", "b", "c")]
    changes = [
        Property(name="d", value={"x": 1}),
        Property(name="a", value=2),
        Property(name="b", value=""),
        Property(name="c", value=None),
        Property(name="never there", value=None),
    ]

    updated = properties.update(existing, changes)

    assert updated == (
        Property(name="a", value=2, inherit_mode="map"),
        Property(name="d", value={"x": 1}),
    )


def test_an_update_may_set_another_inherit_mode() -> None:
    updated = properties.update(
        [Property(name="a", value=1, inherit_mode="map")], [Property(name="a", value=1, inherit_mode="ooo")]
    )

    assert updated[0].inherit_mode == "ooo"


@pytest.mark.parametrize("zero", [0, False, [], {}])
def test_only_empty_text_and_null_delete(zero: Any) -> None:
    assert properties.update([], [Property(name="a", value=zero)]) == (Property(name="a", value=zero),)


@pytest.mark.parametrize(
    ("owner", "acting", "allowed"),
    [
        (None, "default", True),
        (None, "datasources", True),
        ("default", "inventory", True),
        ("inventory", "inventory", True),
        ("inventory", "system", True),
        ("inventory", "default", False),
        ("inventory", "datasources", False),
        ("system", "default", False),
    ],
)
def test_a_property_is_changed_by_its_owner(owner: str | None, acting: str, *, allowed: bool) -> None:
    existing = [Property(name="p", value=1, provider=owner)]

    for value in (2, None):
        if allowed:
            assert 1 not in [
                one.value for one in properties.update(existing, [Property(name="p", value=value)], acting)
            ]
            continue
        with pytest.raises(Conflict) as refusal:
            properties.update(existing, [Property(name="p", value=value)], acting)
        assert refusal.value.message == (
            f"You can not update property 'p' which is owned by provider '{owner}' thanks to provider '{acting}'"
        )


def test_the_provider_that_a_change_names_acts() -> None:
    updated = properties.update([], [Property(name="p", value=1, provider="datasources"), Property(name="q", value=1)])

    assert [one.provider for one in updated] == ["datasources", None]


def test_a_node_sees_parameter_groups_and_its_own_value_merged() -> None:
    levels = Inheritance([parameter("k", {"a": 1})], [group("g", k={"b": 2})])

    seen = levels.of_node([Property(name="k", value={"c": 3})], within("g"))

    assert seen == (
        Inherited(
            name="k",
            value={"a": 1, "b": 2, "c": 3},
            original={"c": 3},
            provider="overridden",
            hierarchy=(
                Origin(kind="global", value={"a": 1}),
                Origin(kind="group", value={"b": 2}, id="g", name="G"),
            ),
        ),
    )


def test_what_only_the_node_has_is_listed_plain() -> None:
    seen = Inheritance([], []).of_node([Property(name="k", value=1, provider="inventory")], within())

    assert seen == (Inherited(name="k", value=1, original=1, provider="inventory"),)


def test_what_the_node_does_not_have_is_inherited() -> None:
    seen = Inheritance([parameter("k", "x")], [group("g", k="y")]).of_node([], within("g"))

    assert (seen[0].provider, seen[0].value, seen[0].original) == ("inherited", "y", "y")


def test_the_mode_of_a_level_holds_for_all_levels_below() -> None:
    levels = Inheritance([parameter("k", ["a"], "mao")], [group("g", k=["b"])])

    assert levels.effective([Property(name="k", value=["c"])], within("g")) == {"k": ["a", "b", "c"]}
    assert levels.effective([Property(name="k", value=["c"], inherit_mode="moo")], within("g")) == {"k": ["c"]}


def test_a_sub_group_wins_over_its_parent() -> None:
    levels = Inheritance([], [group("child", "parent", k="child"), group("parent", k="parent")])

    assert levels.effective([], within("parent", "child")) == {"k": "child"}


def test_the_last_named_parent_wins_over_the_ones_before() -> None:
    groups = [group("a", k="a"), group("b", k="b")]

    assert Inheritance([], [*groups, group("c", "a", "b")]).effective([], within("a", "b", "c")) == {"k": "b"}
    assert Inheritance([], [*groups, group("c", "b", "a")]).effective([], within("a", "b", "c")) == {"k": "a"}


def test_the_relation_reaches_over_a_group_that_the_node_is_not_in() -> None:
    levels = Inheritance([], [group("a", k="a"), group("b", "a"), group("c", "b", k="c")])

    assert levels.effective([], within("a", "c")) == {"k": "c"}


def test_unrelated_groups_that_differ_are_a_conflict() -> None:
    levels = Inheritance([], [group("a", k=1), group("b", k=2), group("c", k=3)])

    for _ in range(2):
        with pytest.raises(Conflict) as refusal:
            levels.effective([Property(name="k", value=4)], within("a", "b"))
        assert refusal.value.message == (
            "Error when trying to find overrides for group property 'k'. Several groups which are not in an "
            "inheritance relation define it. You will need to define a new group with all these groups as parent, "
            "and choose the order on it to say which one has precedence. Faulty groups: 'A' (a), 'B' (b)"
        )


def test_groups_joined_by_or_are_not_related() -> None:
    levels = Inheritance([], [group("a", k=1), group("b", "a", composition="or", k=2)])

    with pytest.raises(Conflict, match="Faulty groups"):
        levels.of_node([], within("a", "b"))


def test_unrelated_groups_that_agree_count_once() -> None:
    levels = Inheritance([parameter("k", ["x"], "mao")], [group("a", k=["y"]), group("b", k=["y"])])

    assert levels.effective([], within("a", "b")) == {"k": ["x", "y"]}


def test_true_and_one_do_not_agree() -> None:
    with pytest.raises(Conflict):
        Inheritance([], [group("a", k=1), group("b", k=True)]).effective([], within("a", "b"))


def test_a_missing_parent_is_an_error() -> None:
    levels = Inheritance([], [group("a", "gone", k=1)])

    with pytest.raises(Conflict, match=r"names the group 'gone', which does not exist"):
        levels.effective([], within("a"))


def test_a_missing_parent_of_an_inverted_query_is_ignored() -> None:
    levels = Inheritance([], [group("a", "gone", inverted=True, k=1)])

    assert levels.effective([], within("a")) == {"k": 1}


@pytest.mark.parametrize(
    "groups",
    [
        [group("a", "b"), group("b", "a")],
        [group("a", "a"), group("b")],
        [group("x"), group("y"), group("a", "x", "y"), group("b", "y", "x")],
    ],
)
def test_a_circle_is_an_error(groups: list[Group]) -> None:
    with pytest.raises(Conflict, match="circle"):
        Inheritance([], groups).effective([], within("a", "b"))


def test_a_circle_elsewhere_hurts_nobody() -> None:
    levels = Inheritance([], [group("a", "b"), group("b", "a"), group("c", k=1)])

    assert levels.effective([], within("c")) == {"k": 1}


def test_an_unknown_group_is_an_error() -> None:
    with pytest.raises(NotFound):
        Inheritance([], []).of_node([], within("nobody"))


def test_a_group_sees_what_it_inherits_and_itself_as_this_group() -> None:
    levels = Inheritance(
        [parameter("k", "global")],
        [group("a", k="a", other=1), group("b", k="b"), group("c", "a", "b", k="c", own=2)],
    )

    seen = {one.name: one for one in levels.of_group(GroupId("c"))}

    assert seen["own"] == Inherited(name="own", value=2, original=2)
    assert seen["other"].provider == "inherited"
    assert seen["k"] == Inherited(
        name="k",
        value="c",
        original="c",
        provider="overridden",
        hierarchy=(
            Origin(kind="global", value="global"),
            Origin(kind="group", value="a", id="a", name="A"),
            Origin(kind="group", value="b", id="b", name="B"),
            Origin(kind="group", value="c", id="c", name="this group"),
        ),
    )


def test_sorting_keys_reaches_into_lists() -> None:
    assert list(properties.sort_keys([{"b": {"z": 1, "a": 2}, "a": 1}])[0]) == ["a", "b"]
    assert list(properties.sort_keys({"b": {"z": 1, "a": 2}})["b"]) == ["a", "z"]


def test_nodes_in_the_same_groups_share_one_computation() -> None:
    levels = Inheritance([parameter("k", 1)], [group("a", j=2)])

    assert levels.effective([], within("a")) is levels.effective([], within("a"))


@given(some.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_groups_are_listed_does_not_matter(listing: list[str]) -> None:
    named = {"a": group("a", k="a"), "b": group("b", "a", k="b"), "c": group("c", "b", k="c"), "d": group("d", k="c")}
    levels = Inheritance([], [named[one] for one in listing if one != "d"])

    assert levels.effective([], within("a", "b", "c")) == {"k": "c"}


def test_parents_are_read_from_the_query() -> None:
    assert inheritance.parents(group("c", "a", "b")) == ("a", "b")
    assert inheritance.parents(group("c", "a", composition="or")) == ()
    assert inheritance.parents(Group(id=GroupId("x"), name="X")) == ()
