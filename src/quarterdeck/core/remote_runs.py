# SPDX-License-Identifier: Apache-2.0
"""What is asked for when agents are to run now: which nodes, with what conditions, and what is told of it.

How agents are reached, and how their output comes back: `relaying/waiting_agents.py`, `relaying/remote_runs.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId

PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_]*$"
MAX_CONDITION_BYTES = 1024
#: All conditions of a run, with their commas: they are one argument of a command line on the node.
MAX_CONDITIONS_BYTES = 64 * 1024

_CONDITION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_]*")
_WORDS = {"true": True, "false": False}


class Form(enum.StrEnum):
    """How output is told: as the agents print it, or as a JSON object a line, which names the node."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one agent is asked for. Without `output`, what it prints is not wanted."""

    conditions: tuple[str, ...] = ()
    audit: bool = False
    output: bool = True


@dataclass(frozen=True, slots=True)
class Printed:
    """A line that an agent printed, without its end."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended: the agent's exit status, or why nobody knows it. `via` is the way it went, if one was found."""

    status: int | None = None
    problem: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks for. `nodes` is None for all; asynchronous without output means: do not wait."""

    nodes: tuple[NodeId, ...] | None = None
    conditions: tuple[str, ...] = ()
    #: not in the peer's form
    audit: bool = False
    asynchronous: bool = False
    keep_output: bool = False
    form: Form = Form.TEXT

    @property
    def order(self) -> Order:
        """What each agent is asked for."""
        return Order(conditions=self.conditions, audit=self.audit, output=self.keep_output)

    def fields(self, nodes: Iterable[NodeId] = ()) -> dict[str, str]:
        """The same as a form, for the relay that these nodes are behind; those of no list are not named."""
        told = {
            "keep_output": _word(self.keep_output),
            "asynchronous": _word(self.asynchronous),
            "classes": ",".join(self.conditions),
        }
        if self.audit:
            told["audit"] = _word(self.audit)
        if self.nodes is not None:
            told["nodes"] = ",".join(nodes)
        if self.form is not Form.TEXT:
            told["format"] = self.form
        return told


def wanted(fields: Mapping[str, str], nodes: tuple[NodeId, ...] | None) -> Wanted:
    """What a form asks for, of these nodes. Raises Invalid, in the words of peers where they have some."""
    return Wanted(
        nodes=nodes,
        conditions=conditions(fields.get("conditions", fields.get("classes", ""))),
        audit=_flag(fields, "audit"),
        asynchronous=_flag(fields, "asynchronous"),
        keep_output=_flag(fields, "keep_output"),
        form=_form(fields.get("format", Form.TEXT)),
    )


def listed_nodes(fields: Mapping[str, str]) -> tuple[NodeId, ...]:
    """The nodes that a form names. Raises Invalid when it names none."""
    if "nodes" not in fields:
        raise Invalid("Missing nodes")
    return tuple(NodeId(node) for node in fields["nodes"].split(","))


def conditions(text: str) -> tuple[str, ...]:
    """Conditions from their text, a comma between two. Raises Invalid."""
    return check_conditions(text.split(",")) if text else ()


def check_conditions(names: Iterable[str]) -> tuple[str, ...]:
    """The same names. Raises Invalid for the first that is none, and when they are too long together."""
    found = tuple(names)
    for name in found:
        if not _CONDITION.fullmatch(name):
            raise Invalid(f"invalid condition: {name[:MAX_CONDITION_BYTES]}, should match {PATTERN}")
        if len(name) > MAX_CONDITION_BYTES:
            raise Invalid(f"invalid condition: it is longer than {MAX_CONDITION_BYTES} bytes, should match {PATTERN}")
    if sum(len(name) + 1 for name in found) > MAX_CONDITIONS_BYTES:
        raise Invalid(f"invalid conditions: together they are longer than {MAX_CONDITIONS_BYTES} bytes")
    return found


def _flag(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "false")
    if text not in _WORDS:
        raise Invalid(f"invalid {name}: {text[:40]}, should be true or false")
    return _WORDS[text]


def _form(text: str) -> Form:
    try:
        return Form(text)
    except ValueError as error:
        raise Invalid(f"invalid format: {text[:40]}, should be text or json") from error


def _word(flag: bool) -> str:  # the inverse of _flag
    return "true" if flag else "false"
