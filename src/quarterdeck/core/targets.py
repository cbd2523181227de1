# SPDX-License-Identifier: Apache-2.0
"""What a rule applies to: the grammar of targets and their resolution to nodes.

"group:ID"  "policyServer:ID"  "special:all"  "special:all_exceptPolicyServers"  "special:all_policyServers"
{"or": [T, ...]}   {"and": [T, ...]}   {"include": T, "exclude": T}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import GroupId, NodeId

_ALIASES = {
    "special:all_nodes_without_role": "special:all_exceptPolicyServers",
    "special:all_servers_with_role": "special:all_policyServers",
}
SPECIALS = ("special:all", "special:all_exceptPolicyServers", "special:all_policyServers")


@dataclass(frozen=True, slots=True)
class Simple:
    """One special target, group or policy server, by its text."""

    text: str

    @property
    def group(self) -> GroupId | None:
        """The group's id, for a group target."""
        kind, _, rest = self.text.partition(":")
        return GroupId(rest) if kind == "group" else None


@dataclass(frozen=True, slots=True)
class Union:
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Intersection:
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Everything in `include` that is not in `exclude`."""

    include: Target
    exclude: Target


Target = Simple | Union | Intersection | Exclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who is there, for resolving targets."""

    nodes: Set[NodeId]
    policy_servers: Set[NodeId]
    members: Mapping[GroupId, Set[NodeId]]


def parse(document: Any) -> Target:
    """A target from its text or JSON form. Raises Invalid."""
    match document:
        case str():
            return _parse_simple(document)
        case {"include": include, "exclude": exclude, **rest} if not rest:
            return Exclusion(parse(include), parse(exclude))
        case {"or": list(parts), **rest} if not rest:
            return Union(tuple(parse(part) for part in parts))
        case {"and": list(parts), **rest} if not rest:
            return Intersection(tuple(parse(part) for part in parts))
    raise Invalid(f"'{document}' can not be decoded as a rule target")


def _parse_simple(text: str) -> Simple:
    text = _ALIASES.get(text, text)
    kind, _, rest = text.partition(":")
    if text in SPECIALS or (kind in ("group", "policyServer") and rest):
        return Simple(text)
    raise Invalid(f"'{text}' can not be decoded as a simple rule target")


def show(target: Target) -> Any:
    """The text or JSON form; the inverse of `parse`."""
    match target:
        case Simple(text):
            return text
        case Union(parts):
            return {"or": [show(part) for part in parts]}
        case Intersection(parts):
            return {"and": [show(part) for part in parts]}
        case Exclusion(include, exclude):
            return {"include": show(include), "exclude": show(exclude)}


def normalise(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Several simple targets become one composition that includes their union; anything else stays as given."""
    given = tuple(targets)
    if len(given) > 1 and all(isinstance(target, Simple) for target in given):
        return (Exclusion(Union(given), Union(())),)
    return given


def groups_in(targets: Iterable[Target]) -> Iterator[GroupId]:
    """Every group named anywhere in the targets."""
    for target in targets:
        match target:
            case Simple():
                if target.group is not None:
                    yield target.group
            case Union(parts) | Intersection(parts):
                yield from groups_in(parts)
            case Exclusion(include, exclude):
                yield from groups_in((include, exclude))


def without_group(target: Target, group: GroupId) -> Target | None:
    """The target with every mention of a group taken out; None when nothing else was named."""
    match target:
        case Simple():
            return None if target.group == group else target
        case Union(parts):
            return Union(tuple(kept for part in parts if (kept := without_group(part, group)) is not None))
        case Intersection(parts):
            return Intersection(tuple(kept for part in parts if (kept := without_group(part, group)) is not None))
        case Exclusion(include, exclude):
            return Exclusion(without_group(include, group) or Union(()), without_group(exclude, group) or Union(()))


def resolve(targets: Iterable[Target], population: Population) -> set[NodeId]:
    """The nodes that a rule's list of targets names: their union."""
    found: set[NodeId] = set()
    for target in targets:
        found |= _resolve(target, population)
    return found


def _resolve(target: Target, population: Population) -> set[NodeId]:
    match target:
        case Simple(text):
            return _resolve_simple(text, population)
        case Union(parts):
            return resolve(parts, population)
        case Intersection(parts):
            sets = [_resolve(part, population) for part in parts]
            return set.intersection(*sets) if sets else set()
        case Exclusion(include, exclude):
            return _resolve(include, population) - _resolve(exclude, population)


def _resolve_simple(text: str, population: Population) -> set[NodeId]:
    match text:
        case "special:all":
            return set(population.nodes)
        case "special:all_exceptPolicyServers":
            return set(population.nodes - population.policy_servers)
        case "special:all_policyServers":
            return set(population.nodes & population.policy_servers)
    kind, _, rest = text.partition(":")
    if kind == "group":
        return set(population.members.get(GroupId(rest), ()))
    return {NodeId(rest)} & population.policy_servers
