# SPDX-License-Identifier: Apache-2.0
"""Typed identifiers and the grammar of the composed ones. Making new ids is the services' job (randomness)."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from quarterdeck.core.errors import Invalid

NodeId = NewType("NodeId", str)
RuleId = NewType("RuleId", str)
DirectiveId = NewType("DirectiveId", str)
GroupId = NewType("GroupId", str)
CategoryId = NewType("CategoryId", str)
TechniqueId = NewType("TechniqueId", str)
ParameterName = NewType("ParameterName", str)
AccountId = NewType("AccountId", str)

#: The server itself, as a node.
ROOT = NodeId("root")

_UUID = re.compile(r"[a-z0-9]{8}-([a-z0-9]{4}-){3}[a-z0-9]{12}")


class Revised(NamedTuple):
    """An id with a revision; the empty revision is the current one and is never printed."""

    uid: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.uid}+{self.revision}" if self.revision else self.uid


def parse_revised(text: str) -> Revised:
    """Split `uid+rev`. Raises Invalid when there is more than one `+`."""
    uid, *rest = text.split("+")
    if len(rest) > 1:
        raise Invalid(f"Error when parsing '{text}' as a rudder id. At most one '+' is authorized.")
    return Revised(uid, rest[0] if rest else "")


def is_node_id(text: str) -> bool:
    """Whether the text, in lower case, has the shape of a node's UUID (or is `root`)."""
    return text == ROOT or _UUID.fullmatch(text.lower()) is not None
