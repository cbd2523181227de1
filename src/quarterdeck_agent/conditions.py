# SPDX-License-Identifier: Apache-2.0
"""Class expressions: `a.b|!c`, `(a|b).c`, `any`; and the names in them.

`.` and `&` are "and", `|` is "or", doubled ones mean the same, `!` binds most, then "and", then "or".
Which conditions hold before the first call is told by `facts.py`.
"""

from __future__ import annotations

import re
from typing import AbstractSet, List

_TOKEN = re.compile(r"\s*(?:(\|\|?)|(&&?|\.)|(!)|(\()|(\))|([A-Za-z0-9_]+)|(\S))")
_NOT_WORD = re.compile(r"[^A-Za-z0-9_]")


class BadExpression(ValueError):
    """A class expression that cannot be read; the text says where."""


def canonify(text: str) -> str:
    """`text` as a condition name: every character but letters, digits and `_` becomes `_` (bytes, as UTF-8)."""
    return _NOT_WORD.sub(lambda found: "_" * len(found.group().encode(errors="surrogateescape")), text)


def holds(expression: str, known: AbstractSet[str]) -> bool:
    """Whether a class expression is true when the names in `known` hold; empty means always.

    Raises BadExpression.
    """
    if not expression.strip():
        return True
    reader = _Reader(expression, known)
    result = reader.alternatives()
    reader.end()
    return result


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, expression: str, known: AbstractSet[str]) -> None:
        self._expression = expression
        self._known = known
        self._kinds: List[int] = []
        self._words: List[str] = []
        for found in _TOKEN.finditer(expression):
            self._kinds.append(found.lastindex or 0)
            self._words.append(found.group(found.lastindex or 0))
        self._next = 0

    def alternatives(self) -> bool:
        result = self._all()
        while self._take(1):
            other = self._all()
            result = result or other
        return result

    def end(self) -> None:
        if self._next < len(self._kinds):
            raise self._bad()

    def _all(self) -> bool:
        result = self._one()
        while self._take(2):
            other = self._one()
            result = result and other
        return result

    def _one(self) -> bool:
        if self._take(3):
            return not self._one()
        if self._take(4):
            result = self.alternatives()
            if not self._take(5):
                raise self._bad()
            return result
        if self._take(6):
            word = self._words[self._next - 1]
            return word in ("any", "true") or (word != "false" and word in self._known)
        raise self._bad()

    def _take(self, kind: int) -> bool:
        found = self._next < len(self._kinds) and self._kinds[self._next] == kind
        self._next += found
        return found

    def _bad(self) -> BadExpression:
        where = f"at {self._words[self._next]!r}" if self._next < len(self._words) else "at its end"
        return BadExpression(f"The condition {self._expression!r} cannot be read {where}.")
