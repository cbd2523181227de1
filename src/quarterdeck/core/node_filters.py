# SPDX-License-Identifier: Apache-2.0
"""Node filters as RunDeck has them: which resources of a project are meant, and in which order.

Patterns are Java's and case counts; a pattern that is no regular expression fits what it equals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

from quarterdeck.core import bounded_regexes
from quarterdeck.core.bounded_regexes import Bounded
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One half of a filter, "" where a part is not set. A resource must fit every part that is."""

    hostname: str = ""
    tags: str = ""
    os_name: str = ""
    os_family: str = ""
    os_arch: str = ""
    os_version: str = ""
    name: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether no part is set."""
        return not any(getattr(self, part.name).strip() for part in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """What to take and what to leave out; `exclude_precedence` says which side wins where both fit."""

    include: Side = Side()
    exclude: Side = Side()
    exclude_precedence: bool = True

    @property
    def is_blank(self) -> bool:
        """Whether neither side asks for anything."""
        return self.include.is_blank and self.exclude.is_blank


#: Every node that has a hostname: what a listing without filters means.
EVERYTHING = NodeFilter(include=Side(hostname=".*"))

#: The parts by the names that requests and job documents give them, in that order. In a request, `exclude-` before one
#: makes it part of the other side.
PARTS = {
    "hostname": "hostname",
    "tags": "tags",
    "os-name": "os_name",
    "os-family": "os_family",
    "os-arch": "os_arch",
    "os-version": "os_version",
    "name": "name",
}
PARAMETER_NAMES = frozenset({*PARTS, *(f"exclude-{name}" for name in PARTS), "exclude-precedence"})
_ATTRIBUTES = ("hostname", "name", "os_name", "os_family", "os_arch", "os_version")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def from_parameters(given: Mapping[str, str]) -> NodeFilter | None:
    """The filter of a request; None when it has none. With nothing but the precedence every node is meant."""
    sides = {
        prefix: Side(**{field: given.get(prefix + name, "").strip() for name, field in PARTS.items()})
        for prefix in ("", "exclude-")
    }
    precedence = given.get("exclude-precedence", "").strip()
    found = NodeFilter(
        include=sides[""],
        exclude=sides["exclude-"],
        exclude_precedence=precedence in ("", "true"),
    )
    if not found.is_blank:
        return found
    return EVERYTHING if precedence else None


def replaced(wanted: NodeFilter, replace: Callable[[str], str]) -> NodeFilter:
    """The filter with every part passed through `replace`: for `${option.x}` in the filters of a job."""
    return NodeFilter(
        include=_side_replaced(wanted.include, replace),
        exclude=_side_replaced(wanted.exclude, replace),
        exclude_precedence=wanted.exclude_precedence,
    )


def _side_replaced(side: Side, replace: Callable[[str], str]) -> Side:
    return Side(**{part.name: replace(getattr(side, part.name)) for part in fields(side)})


def select(wanted: NodeFilter, resources: Iterable[Resource]) -> list[Resource]:
    """The resources that the filter means, sorted by name. A blank filter means none."""
    return sorted((one for one in resources if matches(wanted, one)), key=_by_name)


def matches(wanted: NodeFilter, resource: Resource) -> bool:
    """Whether the filter means this resource."""
    if wanted.exclude.is_blank:
        return not wanted.include.is_blank and side_matches(wanted.include, resource)
    excluded = side_matches(wanted.exclude, resource)
    if wanted.include.is_blank:
        return not excluded
    included = side_matches(wanted.include, resource)
    return included and not excluded if wanted.exclude_precedence else included or not excluded


def side_matches(side: Side, resource: Resource) -> bool:
    """Whether the resource fits every part of the side that is set."""
    if side.tags.strip() and not _tags_match(side.tags, resource.tags):
        return False
    wanted = ((getattr(side, name), getattr(resource, name)) for name in _ATTRIBUTES)
    return all(_value_matches(pattern, value) for pattern, value in wanted if pattern.strip())


def order(resources: Iterable[Resource], rank_attribute: str = "", *, descending: bool = False) -> list[Resource]:
    """In the order of a dispatch: by rank (integers as numbers, before texts), those without one last, by name."""
    by_name = sorted(resources, key=_by_name)
    if not rank_attribute:
        return by_name
    ranked = [one for one in by_name if one.get(rank_attribute)]
    ranked.sort(key=lambda one: _rank(one.get(rank_attribute)), reverse=descending)
    return ranked + [one for one in by_name if not one.get(rank_attribute)]


def _by_name(resource: Resource) -> str:
    return resource.name


def _rank(value: str) -> tuple[int, int, str]:
    return (0, int(value), "") if _INTEGER.fullmatch(value) else (1, 0, value)


def _value_matches(pattern: str, value: str) -> bool:
    if not value:
        return False
    return _term_matches(pattern, value) or value in pattern.split(",")


def _tags_match(pattern: str, tags: frozenset[str]) -> bool:
    """Any of the comma's parts, each with all of the plus's terms."""
    return any(all(_tag_present(term, tags) for term in clause.split("+")) for clause in pattern.split(","))


def _tag_present(term: str, tags: frozenset[str]) -> bool:
    return bool(term.strip()) and (term.strip() in tags or any(_term_matches(term, tag) for tag in tags))


def _term_matches(pattern: str, value: str) -> bool:
    if pattern.strip() == value:
        return True
    regex = _compiled(pattern)
    return regex is not None and regex.fullmatch(value)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Bounded | None:
    trimmed = pattern.strip()
    slashed = len(trimmed) > 1 and trimmed[0] == trimmed[-1] == "/"
    try:
        return bounded_regexes.compiled(trimmed[1:-1].strip() if slashed else pattern)
    except Invalid:
        return None
