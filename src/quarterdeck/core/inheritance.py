# SPDX-License-Identifier: Apache-2.0
"""How global parameters, groups and a node's own properties come together.

A group is a child of another when its query says `and` and names that group by id; among several groups
named by one query the later has precedence. What a set of groups brings is computed once and shared by all
nodes in exactly these groups. The rules of merging two values stand in `properties.py`.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

from quarterdeck.core import properties
from quarterdeck.core.errors import Conflict, NotFound
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import GroupId
from quarterdeck.core.parameters import Parameter
from quarterdeck.core.properties import Property

#: Groups with everything above them, oldest first, each with all its ancestors.
_Order = Mapping[GroupId, frozenset[GroupId]]

#: The value comes from a level above, unchanged.
INHERITED = "inherited"
#: The level asked has its own value, laid over what came from above.
OVERRIDDEN = "overridden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What one level says. `kind` is `global` or `group`; `id` and `name` are those of the group."""

    kind: str
    value: Any
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """A property with all levels merged. An empty hierarchy: it is the object's own and nobody else's.

    `original` is the value at the level asked when that level has one, else the inherited value.
    """

    name: str
    value: Any
    original: Any
    inherit_mode: str | None = None
    provider: str | None = None
    hierarchy: tuple[Origin, ...] = ()


class Inheritance:
    """The levels above the nodes, at one moment. Remembers what each set of groups brings."""

    def __init__(self, parameters: Iterable[Parameter], groups: Iterable[Group]) -> None:
        self._groups = {group.id: group for group in groups}
        self._parents = {group.id: parents(group) for group in self._groups.values()}
        self._globals = {one.name: _of_parameter(one) for one in parameters}
        self._levels: dict[frozenset[GroupId], dict[str, Inherited] | Conflict] = {}
        self._values: dict[frozenset[GroupId], Mapping[str, Any]] = {}

    def of_node(self, own: Iterable[Property], groups: frozenset[GroupId]) -> tuple[Inherited, ...]:
        """Everything that holds on a node in these groups, sorted by name.

        Raises Conflict when groups contradict each other, or are in a circle, or name a group that is gone.
        """
        above = self._above(groups)
        found = dict(above)
        for one in own:
            found[one.name] = _lay_over(above.get(one.name), one)
        return tuple(found[name] for name in sorted(found))

    def of_group(self, group: GroupId) -> tuple[Inherited, ...]:
        """Everything that a group brings with what it inherits, sorted by name.

        Raises NotFound, and Conflict as `of_node`.
        """
        order = self._order({group})
        above = self._compute(order.keys() - {group}, order)
        found = dict(above)
        for one in self._groups[group].properties:
            laid = _lay_over(above.get(one.name), one)
            if laid.hierarchy:
                itself = Origin(kind="group", value=one.value, id=group, name="this group")
                laid = replace(laid, hierarchy=(*laid.hierarchy, itself))
            found[one.name] = laid
        return tuple(found[name] for name in sorted(found))

    def effective(self, own: Iterable[Property], groups: frozenset[GroupId]) -> Mapping[str, Any]:
        """Name -> merged value on a node in these groups. The mapping is shared: do not change it.

        Raises Conflict, as `of_node`.
        """
        shared = self._values.get(groups)
        if shared is None:
            shared = {name: one.value for name, one in self._above(groups).items()}
            self._values[groups] = shared
        merged = None
        for one in own:
            if merged is None:
                merged = dict(shared)
            merged[one.name] = _lay_over(self._above(groups).get(one.name), one).value
        return shared if merged is None else merged

    def _above(self, groups: frozenset[GroupId]) -> dict[str, Inherited]:
        known = self._levels.get(groups)
        if known is None:
            try:
                known = self._compute(groups, self._order(groups))
            except Conflict as conflict:
                known = conflict
            self._levels[groups] = known
        if isinstance(known, Conflict):
            raise Conflict(known.message)
        return known

    def _compute(self, groups: Set[GroupId], order: _Order) -> dict[str, Inherited]:
        definers: dict[str, list[tuple[Group, Property]]] = {}
        for group in (self._groups[one] for one in order if one in groups):
            for defined in group.properties:
                definers.setdefault(defined.name, []).append((group, defined))
        found = {str(name): one for name, one in self._globals.items()}
        problems = []
        for name, levels in sorted(definers.items()):
            faulty = _contradicting(levels, order)
            if faulty:
                problems.append(_contradiction(name, faulty))
                continue
            for group, one in _without_repetition(levels, order):
                found[name] = _inherit_from(found.get(name), group, one)
        if problems:
            raise Conflict("; ".join(problems))
        return found

    def _order(self, groups: Set[GroupId]) -> _Order:
        before: dict[GroupId, set[GroupId]] = {one: set() for one in self._with_ancestors(groups)}
        for one in before:
            chain = [*self._known_parents(one), one]
            for older, newer in pairwise(chain):
                before[newer].add(older)
        graph = {one: sorted(before[one]) for one in sorted(before)}
        try:
            ordered = tuple(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            circle = ", ".join(self._label(one) for one in dict.fromkeys(error.args[1]))
            raise Conflict(f"Groups are in a circle of inheritance: {circle}.") from None
        ancestors: dict[GroupId, frozenset[GroupId]] = {}
        for one in ordered:
            ancestors[one] = frozenset(before[one]).union(*(ancestors[older] for older in before[one]))
        return ancestors

    def _with_ancestors(self, groups: Iterable[GroupId]) -> set[GroupId]:
        found: set[GroupId] = set()
        waiting = list(groups)
        while waiting:
            one = waiting.pop()
            if one in found:
                continue
            if one not in self._groups:
                raise NotFound(f"Group with id '{one}' was not found.")
            found.add(one)
            waiting.extend(self._known_parents(one))
        return found

    def _known_parents(self, group: GroupId) -> tuple[GroupId, ...]:
        query = self._groups[group].query
        if query is not None and query.inverted:
            return tuple(one for one in self._parents[group] if one in self._groups)
        for parent in self._parents[group]:
            if parent not in self._groups:
                message = f"The query of group {self._label(group)} names the group '{parent}', which does not exist."
                raise Conflict(message)
        return self._parents[group]

    def _label(self, group: GroupId) -> str:
        return f"'{self._groups[group].name}' ({group})"


def parents(group: Group) -> tuple[GroupId, ...]:
    """The groups that this one is a sub-group of, the one with the least precedence first."""
    query = group.query
    if query is None or query.composition != "and":
        return ()
    named = [
        GroupId(one.value)
        for one in query.criteria
        if (one.object_type, one.attribute, one.comparator) == ("group", "nodeGroupId", "eq")
    ]
    return tuple(dict.fromkeys(named))


def _of_parameter(parameter: Parameter) -> Inherited:
    return Inherited(
        name=parameter.name,
        value=parameter.value,
        original=parameter.value,
        inherit_mode=parameter.inherit_mode,
        provider=INHERITED,
        hierarchy=(Origin(kind="global", value=parameter.value),),
    )


def _inherit_from(above: Inherited | None, group: Group, one: Property) -> Inherited:
    """What holds below a group that has the property."""
    origin = Origin(kind="group", value=one.value, id=group.id, name=group.name)
    laid = _lay_over(above, one)
    return replace(laid, original=laid.value, provider=INHERITED, hierarchy=(*laid.hierarchy, origin))


def _lay_over(above: Inherited | None, one: Property) -> Inherited:
    """What holds at the level that has the property."""
    if above is None:
        return Inherited(
            name=one.name,
            value=one.value,
            original=one.value,
            inherit_mode=one.inherit_mode,
            provider=one.provider,
        )
    mode = one.inherit_mode or above.inherit_mode
    return Inherited(
        name=one.name,
        value=properties.merge(above.value, one.value, mode or properties.DEFAULT_INHERIT_MODE),
        original=one.value,
        inherit_mode=mode,
        provider=OVERRIDDEN,
        hierarchy=above.hierarchy,
    )


def _without_repetition(levels: list[tuple[Group, Property]], order: _Order) -> list[tuple[Group, Property]]:
    """Unrelated groups may say the same; it then counts once, or appending would double it."""
    kept: list[tuple[Group, Property]] = []
    for group, one in levels:
        if all(older.id in order[group.id] for older, _ in kept):
            kept.append((group, one))
    return kept


def _contradicting(levels: list[tuple[Group, Property]], order: _Order) -> list[Group]:
    faulty: dict[GroupId, Group] = {}
    for (older, first), (newer, second) in combinations(levels, 2):
        if older.id not in order[newer.id] and not _same(first.value, second.value):
            faulty |= {older.id: older, newer.id: newer}
    return list(faulty.values())


def _same(first: Any, second: Any) -> bool:
    """Equal as JSON: for Python, true is also 1."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _contradiction(name: str, faulty: list[Group]) -> str:
    named = ", ".join(f"'{group.name}' ({group.id})" for group in faulty)
    return (
        f"Error when trying to find overrides for group property '{name}'. Several groups which are not in an "
        "inheritance relation define it. You will need to define a new group with all these groups as parent, and "
        f"choose the order on it to say which one has precedence. Faulty groups: {named}"
    )
