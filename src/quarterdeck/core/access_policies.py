# SPDX-License-Identifier: Apache-2.0
"""Access policies as RunDeck has them: who may do what to which jobs, nodes, projects.

They only narrow what an account's rights allow. Documents are read in `formats/aclpolicy.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from quarterdeck.core import bounded_regexes
from quarterdeck.core.bounded_regexes import Bounded
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource

APPLICATION = ""  #: the scope that is no project
ALL = "*"

#: What is asked for, by the names that policies give its properties.
Target = Mapping[str, str | frozenset[str]]
#: What policies speak of.
TYPES = ("resource", "project", "adhoc", "job", "node")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """Fits a resource if every property named fits; one that names none fits all. `*` stands for every action."""

    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: regular expressions, whole values
    equals: Mapping[str, str] = field(default_factory=dict)
    contains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """`project` is a regular expression for project names; None means the application's own scope."""

    description: str = ""
    project: str | None = None
    usernames: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    rules: Mapping[str, tuple[AccessRule, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    username: str
    groups: frozenset[str] = frozenset()


def job_target(name: str, group: str) -> Target:
    """A job; `path` is what the older form of policies looks at."""
    return {"name": name, "group": group, "path": f"{group}/{name}" if group else name}


def node_target(node: Resource, *, is_server: bool) -> Target:
    """A node with all its attributes."""
    named = {"nodename": node.name, "rundeck_server": "true" if is_server else "false"}
    return {**dict(node.items()), **named, "tags": node.tags}


Decision = Literal["granted", "denied", "refused"]


def decide(
    policies: Iterable[AccessPolicy],
    caller: Caller,
    scope: str,
    kind: str,
    resource: Target,
    action: str,
) -> Decision:
    """`denied` by a rule, `granted` by one, or `refused` because none speaks of it. `scope` is a project or ""."""
    decision: Decision = "refused"
    for policy in policies:
        if not _concerns(policy, caller, scope):
            continue
        for rule in policy.rules.get(kind, ()):
            if not _fits(rule, resource):
                continue
            if rule.deny & {action, ALL}:
                return "denied"
            if rule.allow & {action, ALL}:
                decision = "granted"
    return decision


def allows(
    policies: Iterable[AccessPolicy],
    caller: Caller,
    scope: str,
    kind: str,
    resource: Target,
    action: str,
) -> bool:
    """Whether the policies let the caller do it."""
    return decide(policies, caller, scope, kind, resource, action) == "granted"


def _concerns(policy: AccessPolicy, caller: Caller, scope: str) -> bool:
    if caller.username not in policy.usernames and not caller.groups & policy.groups:
        return False
    if policy.project is None:
        return scope == APPLICATION
    return scope != APPLICATION and _whole(policy.project, scope)


def _fits(rule: AccessRule, resource: Target) -> bool:
    return (
        all(all(_any_value(one, resource.get(name)) for one in wanted) for name, wanted in rule.match.items())
        and all(resource.get(name) == value for name, value in rule.equals.items())
        and all(set(wanted) <= _several(resource.get(name)) for name, wanted in rule.contains.items())
    )


def _any_value(pattern: str, value: str | frozenset[str] | None) -> bool:
    """Whether the pattern fits a value, or one of several."""
    return any(_whole(pattern, one) for one in _several(value, comma=False))


def _several(value: str | frozenset[str] | None, *, comma: bool = True) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, frozenset):
        return value
    return frozenset(part.strip() for part in value.split(",")) if comma else frozenset({value})


def _whole(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return value == pattern if compiled is None else compiled.fullmatch(value)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Bounded | None:
    try:
        return bounded_regexes.compiled(pattern)
    except Invalid:
        return None
