# SPDX-License-Identifier: Apache-2.0
"""Commands that have the agent of a node run, as an administrator sets them up: what they may be made of.

Nothing that comes from a node or a client becomes an option, a user or a pattern. Who starts them:
`relaying/command_ways.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.ids import NodeId

#: What ssh ends with when it did not reach the other machine.
UNREACHED = (255,)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_OF_NODES = frozenset({"{hostname}", "{node}"})
_OF_CONDITIONS = frozenset({"{conditions}"})
#: Nothing that a program could take for an option, a user, a list, or a pattern.
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command for one node. Raises Invalid when it cannot be meant so.

    Items may hold the placeholders `{hostname}` and `{node}`; an item that is itself a list stands for its items, in
    which `{conditions}` are those of a run with commas between, and for nothing where there are none. With one of the
    statuses `unreached`, and no output, the node was not reached and the next way is tried.
    """

    name: str
    items: tuple[str | tuple[str, ...], ...]
    unreached: tuple[int, ...] = UNREACHED

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == "agent":
            raise Invalid(
                f"'{self.name[:40]}' is no name for a command: lower case letters, digits, - and _, and not 'agent'."
            )
        if not self.items or not isinstance(self.items[0], str) or not self.items[0]:
            raise Invalid(f"The command '{self.name}' has no program.")
        found = {one for item in self.items if isinstance(item, str) for one in _PLACEHOLDER.findall(item)}
        inner = {
            one
            for item in self.items
            if not isinstance(item, str)
            for part in item
            for one in _PLACEHOLDER.findall(part)
        }
        if wrong := sorted((found - _OF_NODES) | (inner - _OF_NODES - _OF_CONDITIONS)):
            raise Invalid(
                f"The command '{self.name}' has {wrong[0]}: there are {{hostname}}, {{node}} and, in a list of its "
                "own inside the command, {conditions}."
            )
        if not found & _OF_NODES:
            raise Invalid(f"The command '{self.name}' names no node: it needs {{hostname}} or {{node}}.")

    @property
    def takes_conditions(self) -> bool:
        """Whether runs with conditions are possible."""
        return any("{conditions}" in part for item in self.items if not isinstance(item, str) for part in item)

    def argv(self, node: NodeId, hostname: str, conditions: Sequence[str]) -> list[str]:
        """What is started. Raises Unavailable where a name or what is wanted does not go into a command."""
        if not _HOSTNAME.fullmatch(hostname) or not _HOSTNAME.fullmatch(node):
            raise Unavailable("its name has characters that are not put into a command.")
        if conditions and not self.takes_conditions:
            raise Unavailable("it takes no conditions.")
        argv: list[str] = []
        for item in self.items:
            if isinstance(item, str):
                argv.append(_filled(item, node, hostname))
            elif conditions:
                argv += [_filled(part, node, hostname).replace("{conditions}", ",".join(conditions)) for part in item]
        return argv


def _filled(text: str, node: NodeId, hostname: str) -> str:
    return text.replace("{hostname}", hostname).replace("{node}", node)
