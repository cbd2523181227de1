# SPDX-License-Identifier: Apache-2.0
"""Projects: a name, and the properties that say where its nodes come from and how they are reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field


@dataclass(frozen=True, slots=True)
class Project:
    """`properties` holds texts by the names of RunDeck's project.properties, `project.description` left out."""

    name: str
    _: KW_ONLY
    description: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
