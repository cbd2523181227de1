# SPDX-License-Identifier: Apache-2.0
"""Directives: a technique with its parameters filled in, a priority and a mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quarterdeck.core.ids import DirectiveId, TechniqueId
from quarterdeck.core.modes import OwnMode
from quarterdeck.core.tags import Tag

DEFAULT_PRIORITY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """`parameters` maps a variable's name to its values: one per instance of its section."""

    id: DirectiveId
    name: str
    technique: TechniqueId
    version: str
    short_description: str = ""
    long_description: str = ""
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Smaller wins among directives of a technique that allows one per node.
    priority: int = DEFAULT_PRIORITY
    enabled: bool = True
    system: bool = False
    mode: OwnMode = None
    tags: tuple[Tag, ...] = ()
