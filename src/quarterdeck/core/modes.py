# SPDX-License-Identifier: Apache-2.0
"""Policy modes: audit or enforce, where they may be set, and which one wins on a node."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from quarterdeck.core.errors import Invalid


class PolicyMode(enum.StrEnum):
    """What a policy does on a node."""

    AUDIT = "audit"
    ENFORCE = "enforce"


#: A mode as set on a node or a directive: None is "default", no opinion.
OwnMode = PolicyMode | None


def parse_mode(text: str) -> PolicyMode:
    """`audit` or `enforce`, in any case. Raises Invalid."""
    try:
        return PolicyMode(text.lower())
    except ValueError:
        raise Invalid(f"Unable to parse policy mode name '{text}'. was expecting 'audit' or 'enforce'.") from None


def parse_own_mode(text: str) -> OwnMode:
    """`default` (None), `audit` or `enforce`. Raises Invalid."""
    return None if text.lower() == "default" else parse_mode(text)


def print_own_mode(mode: OwnMode) -> str:
    """The text of a mode as set on a node or a directive."""
    return mode.value if mode is not None else "default"


def resolve(
    directive: OwnMode, node: OwnMode, *, global_mode: PolicyMode, overridable: bool, system: bool = False
) -> PolicyMode:
    """The mode of one directive on one node: with an overridable global mode, audit anywhere wins over enforce."""
    if system:
        return PolicyMode.ENFORCE
    if not overridable:
        return global_mode
    if PolicyMode.AUDIT in (node, directive):
        return PolicyMode.AUDIT
    return directive or node or global_mode


def summarise(directives: Iterable[OwnMode], *, global_mode: PolicyMode, overridable: bool) -> str:
    """The mode that a rule shows: `audit`, `enforce` or `mixed`."""
    if not overridable:
        return global_mode.value
    distinct = set(directives)
    if distinct <= {None}:
        return global_mode.value
    named = {mode or global_mode for mode in distinct}
    return named.pop().value if len(named) == 1 else "mixed"
