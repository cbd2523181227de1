# SPDX-License-Identifier: Apache-2.0
"""What a method says after looking at the machine, and how methods are registered.

A method is one function `audit(call) -> Finding`, which only looks, and optionally one function
`enforce(call) -> Finding`, which is called only when policy mode is enforce and the audit found
drift. The engine (`run.py`) audits first, enforces if it may, audits again and reports; a method
never decides about modes itself. A blind method cannot look without acting: see `Method.blind`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Tuple

if TYPE_CHECKING:  # http.client takes longer to load than most runs need
    from quarterdeck_agent.exchange import Exchange


class State(enum.Enum):
    """What an audit or an enforcement found."""

    #: As wanted; nothing to do.
    COMPLIANT = "compliant"
    #: Differs from what is wanted; `enforce` would change it.
    DRIFT = "drift"
    #: Only from `enforce` of a blind method: it changed something.
    REPAIRED = "repaired"
    #: This node cannot be judged on it (no such system, or no way to look without changing).
    NOT_APPLICABLE = "not_applicable"
    #: Looking or changing failed.
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """A state and a sentence: what was expected and what was found (a diff for text)."""

    state: State
    message: str


def compliant(message: str) -> Finding:
    return Finding(State.COMPLIANT, message)


def drift(message: str) -> Finding:
    return Finding(State.DRIFT, message)


def repaired(message: str) -> Finding:
    return Finding(State.REPAIRED, message)


def not_applicable(message: str) -> Finding:
    return Finding(State.NOT_APPLICABLE, message)


def error(message: str) -> Finding:
    return Finding(State.ERROR, message)


@dataclass
class Facts:
    """What a run knows and what its calls define: shared by all calls of one run, in order."""

    #: Names of conditions that hold (`debian`, `group_x`, `package_present_htop_ok` ...).
    conditions: set = field(default_factory=set)  # type: ignore[type-arg]
    #: `prefix.name` -> text, list or dictionary, defined by variable_* methods.
    variables: Dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodCall:
    """The arguments of one call, agent variables already expanded."""

    params: Mapping[str, str]
    facts: Facts
    #: Directory where a changed file's previous content is kept; None keeps no backup.
    backups: Optional[str] = None
    #: Directory for state that outlives a run (`command_execution_once`, persistent conditions).
    state: Optional[str] = None
    #: The node's own server, for methods that exchange files with it; None where there is none to ask.
    server: Optional[Exchange] = None

    def __getitem__(self, name: str) -> str:
        return self.params.get(name, "")


Look = Callable[[MethodCall], Finding]


@dataclass(frozen=True)
class Method:
    """A generic method as the agent knows it."""

    name: str
    #: Names of parameters in order; `?` at the end: may be empty.
    parameters: Tuple[str, ...]
    #: First part of the result conditions; mostly the method's own name.
    prefix: str
    #: The parameter whose value is the class-parameter value.
    class_parameter: str
    audit: Look
    #: None: the method only looks.
    enforce: Optional[Look] = None
    #: Cannot be audited. Audit mode: `audit` answers not applicable. Enforce mode: only `enforce` is
    #: called, without an audit before or after, and answers COMPLIANT (kept), REPAIRED or ERROR.
    blind: bool = False


METHODS: Dict[str, Method] = {}


def method(
    name: str,
    parameters: str,
    audit: Look,
    enforce: Optional[Look] = None,
    *,
    value: str = "",
    prefix: str = "",
    blind: bool = False,
) -> None:
    """Register a method.

    `parameters` is a blank-separated list; `value` names the class parameter (default: the first);
    for `blind` see `Method`. Raises ValueError when the name is taken.
    """
    names = tuple(parameters.split())
    if name in METHODS:
        raise ValueError(f"method {name} is registered twice")
    METHODS[name] = Method(name, names, prefix or name, value or names[0].rstrip("?"), audit, enforce, blind)


def names() -> List[str]:
    """All registered method names, sorted."""
    return sorted(METHODS)
