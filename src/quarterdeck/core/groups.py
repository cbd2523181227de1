# SPDX-License-Identifier: Apache-2.0
"""Groups of nodes: a stored query, static or dynamic, with properties of their own."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from quarterdeck.core.ids import CategoryId, GroupId
from quarterdeck.core.node_queries import NodeQuery
from quarterdeck.core.properties import Property

ROOT_CATEGORY = CategoryId("GroupRoot")
SYSTEM_CATEGORY = CategoryId("SystemGroups")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Members are kept apart (`storage/groups.py`): they follow from the query."""

    id: GroupId
    name: str
    description: str = ""
    category: CategoryId = ROOT_CATEGORY
    query: NodeQuery | None = None
    #: False: the members are computed when the query is saved, not again.
    dynamic: bool = True
    enabled: bool = True
    system: bool = False
    properties: tuple[Property, ...] = ()


def condition_names(group: Group) -> tuple[str, ...]:
    """The agent conditions that hold on members, sorted: `group_<id>` and `group_<name>`, canonified."""
    return tuple(sorted({f"group_{_canonify(group.id)}", f"group_{_canonify(group.name)}"}))


def _canonify(text: str) -> str:
    plain = unicodedata.normalize("NFD", text).encode("ascii", "ignore").decode().lower()
    return "".join(char if char.isalnum() else "_" for char in plain)
