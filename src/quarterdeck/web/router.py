# SPDX-License-Identifier: Apache-2.0
"""From a path to an operation. Literal segments outrank parameters, whatever the order of declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quarterdeck.web.operation import Operation


@dataclass(slots=True)
class _Branch:
    literals: dict[str, _Branch] = field(default_factory=dict)
    any: _Branch | None = None
    operations: dict[str, Operation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    operation: Operation
    params: dict[str, str]


class Router:
    """The operations of one dialect. Raises ValueError at start when two claim the same method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._root = _Branch()
        for operation in self.operations:
            self._add(operation)

    def _add(self, operation: Operation) -> None:
        branch = self._root
        for segment in operation.segments:
            if _is_parameter(segment):
                branch.any = branch.any or _Branch()
                branch = branch.any
            else:
                branch = branch.literals.setdefault(segment, _Branch())
        clash = branch.operations.setdefault(operation.method, operation)
        if clash is not operation:
            message = f"{operation.name} and {clash.name} both claim {operation.method} {operation.path}"
            raise ValueError(message)

    def find(self, method: str, segments: tuple[str, ...]) -> Match | None:
        """The operation for a method and a path's decoded segments, with its path parameters."""
        for branch in _walk(self._root, segments):
            if (operation := branch.operations.get(method)) is not None:
                return Match(operation, _params(operation, segments))
        return None

    def methods(self, segments: tuple[str, ...]) -> list[str]:
        """The methods that this path knows, sorted; none when the path is unknown."""
        return sorted({method for branch in _walk(self._root, segments) for method in branch.operations})


def _walk(branch: _Branch, segments: tuple[str, ...]) -> Iterable[_Branch]:
    if not segments:
        if branch.operations:
            yield branch
        return
    head, rest = segments[0], segments[1:]
    if (literal := branch.literals.get(head)) is not None:
        yield from _walk(literal, rest)
    if branch.any is not None:
        yield from _walk(branch.any, rest)


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}")


def _params(operation: Operation, segments: tuple[str, ...]) -> dict[str, str]:
    pairs = zip(operation.segments, segments, strict=True)
    return {name[1:-1]: value for name, value in pairs if _is_parameter(name)}
