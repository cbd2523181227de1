# SPDX-License-Identifier: Apache-2.0
"""Techniques: versioned templates of method calls with typed parameters. Built in, or written in the editor.

Parameters stand in sections; a repeated section has several instances in a directive, and a block
that names it in `foreach` is expanded once per instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from quarterdeck.core.ids import TechniqueId

#: The one section of an editor technique's parameters.
PARAMETERS_SECTION = "Technique parameters"
DEFAULT_CATEGORY = "ncf_techniques"


class TechniqueKey(NamedTuple):
    """What a directive refers to."""

    id: TechniqueId
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a parameter's value must be like, beyond its type."""

    may_be_empty: bool = False
    regex: str = ""
    regex_message: str = ""
    #: Allowed values; empty allows any.
    select: tuple[str, ...] = ()
    #: What a form shows for some of them.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Hash algorithms that a password may be stored with; empty allows any.
    password_hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueParameter:
    """`id` is the directive's variable name; `name` is how calls say it: `${technique_id.name}`."""

    id: str
    name: str
    description: str = ""
    documentation: str = ""
    type: str = "string"
    default: str | None = None
    constraints: Constraints = field(default_factory=Constraints)
    section: str = PARAMETERS_SECTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One generic method with its arguments."""

    id: str
    method: str
    component: str = ""
    condition: str = "any"
    parameters: Mapping[str, str] = field(default_factory=dict)
    report: bool = True
    #: Stands in a policy only where this holds of the directive's values, see `policy_items.read_when`; empty: always.
    when: str = ""
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Calls under one condition, counted together as `logic` says; `disabled` reports none of them."""

    id: str
    component: str
    condition: str = "any"
    logic: str = "weighted"
    items: tuple[Item, ...] = ()
    #: A repeated section: the block stands once per instance.
    foreach: str = ""
    #: As for a call.
    when: str = ""
    tags: Mapping[str, Any] = field(default_factory=dict)


Item = Call | Block


@dataclass(frozen=True, slots=True)
class TechniqueResource:
    """A file that comes with a technique: its methods say `${resources_dir}/path`. See `technique_resources`."""

    path: str
    #: of its content, hex
    sha256: str
    #: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    id: TechniqueId
    version: str
    name: str
    category: str = DEFAULT_CATEGORY
    description: str = ""
    documentation: str = ""
    items: tuple[Item, ...] = ()
    parameters: tuple[TechniqueParameter, ...] = ()
    #: Sections that a directive may fill several times.
    repeated: frozenset[str] = frozenset()
    #: False: one directive per node, the smallest priority wins.
    multi_instance: bool = True
    #: "built-in" or "editor"
    source: str = "editor"
    enabled: bool = True
    system: bool = False
    #: Kept beside its document, by path.
    resources: tuple[TechniqueResource, ...] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> TechniqueKey:
        return TechniqueKey(self.id, self.version)


def calls(items: tuple[Item, ...]) -> Iterator[Call]:
    """Every call, blocks walked in order."""
    for item in items:
        if isinstance(item, Call):
            yield item
        else:
            yield from calls(item.items)
