# SPDX-License-Identifier: Apache-2.0
"""Java's regular expressions matched in bounded time: for patterns and values that callers choose.

Python's matcher tries again at every choice, holds the interpreter meanwhile and can take for ever (`(a+)+b`). So it
gets only patterns with few choices; others run as an automaton that reads a value once. Patterns that need both
(look-around, references back, possession) and many choices are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

from quarterdeck.core import java_regexes
from quarterdeck.core.errors import Invalid

_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]*)(,?)([0-9]*)\})([?+]?)")
_OPENING = re.compile(r"\((?:\?(?:(:)|P<\w+>|(i):|(=|!|<=|<!|>|P=\w+)))?")
_BRACKETS = re.compile(r"\[\^?(?:[^\]\\]|\\.)*\]", re.DOTALL)
_MOST_STATES = 5_000
_MOST_CHOICES = 8
#: Beyond this length two repetitions after each other are no longer cheap to try.
_SHORT = 1_000


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a pattern: char, assert, cat, alt, repeat, or opaque (what an automaton cannot do)."""

    kind: str
    text: str = ""
    flags: int = 0
    parts: tuple[_Part, ...] = ()
    least: int = 1
    most: int | None = 1


@dataclass(slots=True)
class _State:
    """Goes on to `following` after one character that fits, or (without a test) at once if `holds`."""

    fits: Callable[[str], bool] | None = None
    holds: Callable[[str, int], bool] | None = None
    following: list[_State] = field(default_factory=list)


class Bounded:
    """A pattern that was read; see `compiled`."""

    def __init__(self, pattern: str) -> None:
        self._python = java_regexes.parse(pattern).python
        self._root = _Parser(self._python.pattern, self._python.flags & re.IGNORECASE).result()
        self._cost = _cost(self._root)
        self._automaton: tuple[_State, _State] | None = None
        if not self._cost.is_small:
            self._automaton = self._built(pattern)

    def fullmatch(self, value: str) -> bool:
        """Whether the pattern fits the whole value."""
        if self._automaton is None and (len(value) <= _SHORT or self._cost.is_linear):
            return self._python.fullmatch(value) is not None
        return self._run(value, anywhere=False)

    def search(self, value: str) -> bool:
        """Whether the pattern fits somewhere in the value."""
        if self._automaton is None and len(value) <= _SHORT:
            return self._python.search(value) is not None
        return self._run(value, anywhere=True)

    def _built(self, pattern: str) -> tuple[_State, _State]:
        try:
            end = _State()
            return _Builder().build(self._root, end), end
        except Invalid as error:
            raise Invalid(f"The regular expression '{pattern}' is not valid: {error.message}") from error

    def _run(self, value: str, *, anywhere: bool) -> bool:
        if self._automaton is None:
            self._automaton = self._built(self._python.pattern)
        start, end = self._automaton
        here = _reached([start], value, 0)
        for position, character in enumerate(value, 1):
            if anywhere and id(end) in here:
                return True
            moved = [one for state in here.values() if state.fits and state.fits(character) for one in state.following]
            here = _reached([*moved, start] if anywhere else moved, value, position)
            if not here:
                return False
        return id(end) in here


def _reached(states: list[_State], value: str, position: int) -> dict[int, _State]:
    """These states and all that follow without reading a character."""
    found: dict[int, _State] = {}
    waiting = states
    while waiting:
        state = waiting.pop()
        if id(state) in found:
            continue
        found[id(state)] = state
        if state.fits is None and (state.holds is None or state.holds(value, position)):
            waiting.extend(state.following)
    return found


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Bounded:
    """Read a Java pattern. Raises Invalid when it is wrong, or cannot be matched in bounded time."""
    try:
        return Bounded(pattern)
    except RecursionError as error:
        raise Invalid(f"The regular expression '{pattern}' is not valid: it is nested too deep") from error


class _Parser:
    """Reads what `java_regexes` writes for Python, so it need not know more than that."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._at, self._flags = text, 0, flags

    def result(self) -> _Part:
        found = self._alternatives()
        assert self._at == len(self._text), self._text
        return found

    def _alternatives(self) -> _Part:
        branches = [self._row()]
        while self._text.startswith("|", self._at):
            self._at += 1
            branches.append(self._row())
        return branches[0] if len(branches) == 1 else _Part("alt", parts=tuple(branches))

    def _row(self) -> _Part:
        found: list[_Part] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            found.append(self._repeated(self._atom()))
        return _Part("cat", parts=tuple(found))

    def _repeated(self, atom: _Part) -> _Part:
        while (match := _QUANTIFIER.match(self._text, self._at)) is not None:
            self._at = match.end()
            sign, low, comma, high, manner = match.groups()
            if sign:
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            else:
                least = int(low or 0)
                most = (int(high) if high else None) if comma else least
            atom = _Part("repeat", parts=(atom,), least=least, most=most)
            if manner == "+":
                atom = _Part("opaque", parts=(atom,))
        return atom

    def _atom(self) -> _Part:
        character = self._text[self._at]
        if character == "(":
            return self._group()
        if character == "[":
            match = _BRACKETS.match(self._text, self._at)
            assert match is not None
            return self._taken("char", match[0])
        if character == "\\":
            text = self._text[self._at : self._at + 2]
            return self._taken(_escape_kind(text[1]), text)
        return self._taken("assert" if character in "^$" else "char", character)

    def _taken(self, kind: str, text: str) -> _Part:
        self._at += len(text)
        return _Part(kind, text, self._flags)

    def _group(self) -> _Part:
        match = _OPENING.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        before = self._flags
        if match[2]:
            self._flags |= re.IGNORECASE
        inside = self._alternatives()
        self._flags = before
        self._at += 1
        return _Part("opaque", parts=(inside,)) if match[3] else inside


def _escape_kind(character: str) -> str:
    if character in "123456789":
        return "opaque"
    return "assert" if character in "bBAZ" else "char"


@dataclass(slots=True)
class _Cost:
    """How many ways there are to try."""

    repetitions: int = 0
    choices: int = 0
    nested: bool = False

    @property
    def is_small(self) -> bool:
        return not self.nested and self.repetitions <= 2 and self.choices <= _MOST_CHOICES

    @property
    def is_linear(self) -> bool:
        return self.is_small and self.repetitions <= 1


def _cost(root: _Part) -> _Cost:
    cost = _Cost()
    for part in _all(root):
        if part.kind == "alt":
            cost.choices += len(part.parts)
        elif part.kind == "repeat" and part.most == 1:
            cost.choices += 1
        elif part.kind == "repeat":
            cost.repetitions += part.least != part.most
            cost.nested |= any(one.kind in ("alt", "repeat") for one in _all(part.parts[0]))
    return cost


def _all(part: _Part) -> Iterator[_Part]:
    yield part
    for one in part.parts:
        yield from _all(one)


class _Builder:
    """Makes states, from the end to the beginning."""

    def __init__(self) -> None:
        self._count = 0

    def build(self, part: _Part, following: _State) -> _State:
        """The state that begins the part and in the end goes on to `following`."""
        if part.kind == "char":
            return self._state(fits=_test(part.text, part.flags), following=[following])
        if part.kind == "assert":
            return self._state(holds=_ASSERTIONS[part.text], following=[following])
        if part.kind == "alt":
            return self._state(following=[self.build(one, following) for one in part.parts])
        if part.kind == "repeat":
            return self._repeat(part, following)
        if part.kind == "opaque":
            _refuse("it could take too long to match")
        for one in reversed(part.parts):
            following = self.build(one, following)
        return following

    def _repeat(self, part: _Part, following: _State) -> _State:
        [inside] = part.parts
        begin = following
        if part.most is None:
            begin = self._state(following=[following])
            begin.following.append(self.build(inside, begin))
        else:
            for _ in range(part.most - part.least):
                begin = self._state(following=[following, self.build(inside, begin)])
        for _ in range(part.least):
            begin = self.build(inside, begin)
        return begin

    def _state(
        self,
        *,
        fits: Callable[[str], bool] | None = None,
        holds: Callable[[str, int], bool] | None = None,
        following: list[_State],
    ) -> _State:
        self._count += 1
        if self._count > _MOST_STATES:
            _refuse("it is too large")
        return _State(fits, holds, following)


def _refuse(why: str) -> NoReturn:
    raise Invalid(why)


@lru_cache(maxsize=1024)
def _test(text: str, flags: int) -> Callable[[str], bool]:
    """Whether one character fits; what was found out is remembered."""
    pattern = re.compile(text, re.ASCII | flags)
    known: dict[str, bool] = {}

    def fits(character: str) -> bool:
        if character not in known:
            if len(known) > 1024:
                known.clear()
            known[character] = pattern.fullmatch(character) is not None
        return known[character]

    return fits


def _at_edge(value: str, position: int) -> bool:
    return _is_word(value[position - 1 : position]) != _is_word(value[position : position + 1])


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


_ASSERTIONS: dict[str, Callable[[str, int], bool]] = {
    "^": lambda _, position: position == 0,
    "\\A": lambda _, position: position == 0,
    "$": lambda value, position: value[position:] in ("", "\n"),
    "\\Z": lambda value, position: position == len(value),
    "\\b": _at_edge,
    "\\B": lambda value, position: not _at_edge(value, position),
}
