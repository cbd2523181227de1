# SPDX-License-Identifier: Apache-2.0
"""Java's regular expressions, which the query language speaks, for PostgreSQL and for Python.

A pattern must match the whole value. What both understand alike goes to PostgreSQL, which matches in bounded time;
the rest is left to Python; what neither can say the same way is refused, never guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from quarterdeck.core.errors import Invalid

_QUANTIFIER = re.compile(r"([*+?]|\{(\d{1,5})(?:(,)(\d{0,5}))?\})([?+]?)")
_FLAGS = re.compile(r"\(\?([a-zA-Z]+)\)")
_GROUP = re.compile(r"\((?:\?(?::|=|!|>|<=|<!|<([A-Za-z][A-Za-z0-9]*)>|i:))?")
_NUMBERED = re.compile(r"x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|0([0-3]?[0-7]{1,2})")
#: PostgreSQL repeats at most so often.
_MOST_REPETITIONS = 255

_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_NO_LINE_END = r"[^\n\r\u0085\u2028\u2029]"
#: What stands inside brackets for a class, in both dialects.
_CLASSES = {
    "d": "0-9",
    "w": "a-zA-Z0-9_",
    "s": r" \t\n\x0b\f\r",
    "h": r" \t\u00a0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000",
    "v": r"\n\x0b\f\r\u0085\u2028\u2029",
}
_POSIX = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x01-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-\/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "XDigit": "0-9A-Fa-f",
    "Space": r" \t\n\x0b\f\r",
}


@dataclass(frozen=True, slots=True)
class JavaRegex:
    """`postgres` is None where PostgreSQL cannot say the same; both match whole values."""

    python: re.Pattern[str]
    postgres: str | None
    ignore_case: bool


def parse(pattern: str) -> JavaRegex:
    """Translate a Java pattern. Raises Invalid when it is wrong, or says what cannot be said here."""
    return _Translation(pattern).result()


class _Translation:
    """One walk over the pattern, writing both dialects at once."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._python: list[str] = []
        self._postgres: list[str] | None = []
        self._flags = ""

    def result(self) -> JavaRegex:
        found = _FLAGS.match(self._pattern)
        if found is not None:
            self._flags = found[1]
            if set(self._flags) - set("is"):
                self._refuse(f"the flags '{self._flags}' are not supported")
            self._at = found.end()
        while self._at < len(self._pattern):
            self._step()
        try:
            compiled = re.compile("".join(self._python), re.ASCII | (re.IGNORECASE if "i" in self._flags else 0))
        except (re.error, OverflowError, RecursionError) as error:
            self._refuse(str(error))
        postgres = None if self._postgres is None else f"^(?:{''.join(self._postgres)})$"
        return JavaRegex(compiled, postgres, "i" in self._flags)

    def _refuse(self, why: str) -> NoReturn:
        raise Invalid(f"The regular expression '{self._pattern}' is not valid: {why}")

    def _write(self, python: str, postgres: str | None) -> None:
        self._python.append(python)
        if postgres is None:
            self._postgres = None
        elif self._postgres is not None:
            self._postgres.append(postgres)

    def _step(self) -> None:
        char = self._pattern[self._at]
        if char == "\\":
            self._at += 1
            self._escape()
        elif char == "[":
            self._at += 1
            self._brackets()
        elif char == "(":
            self._group()
        elif char in "*+?{":
            self._quantifier()
        else:
            self._at += 1
            self._plain(char)

    def _plain(self, char: str) -> None:
        if char == ".":
            both = r"[\s\S]" if "s" in self._flags else _NO_LINE_END
            self._write(both, "." if "s" in self._flags else both)
        elif char in "^$":
            # After a quantifier or at its own place only: PostgreSQL refuses to repeat an anchor.
            repeated = _QUANTIFIER.match(self._pattern, self._at) is not None
            self._write(char, None if repeated else char)
        elif char in "|)":
            self._write(char, char)
        else:
            self._literal(char)

    def _literal(self, char: str) -> None:
        escaped = f"\\{char}" if char in r"\^$.[]|()?*+{}" else char
        self._write(re.escape(char), escaped)

    def _quantifier(self) -> None:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None:
            self._refuse("'{' stands where no repetition is")
        self._at = found.end()
        text, least, _, most, manner = found.groups()
        many = max((int(number) for number in (least, most) if number), default=0) > _MOST_REPETITIONS
        # Whether a whole value matches does not depend on greed, but on possession it does.
        self._write(found[0], None if many or manner == "+" else text)

    def _group(self) -> None:
        found = _GROUP.match(self._pattern, self._at)
        assert found is not None  # every alternative of the pattern is optional after "("
        opening = found[0]
        if opening == "(" and self._pattern.startswith("(?", self._at):
            self._refuse(f"'{self._pattern[self._at : self._at + 4]}' is not supported")
        self._at = found.end()
        if found[1]:
            self._write(f"(?P<{found[1]}>", None)
        elif opening in ("(", "(?:"):
            self._write(opening, "(?:")
        elif opening in ("(?=", "(?!", "(?<=", "(?<!"):
            self._write(opening, opening)
        else:
            self._write(opening, None)

    def _escape(self) -> None:
        char = self._next()
        if char == "Q":
            self._quote()
        elif char in "dwshvDWSHV":
            negated = "^" if char.isupper() else ""
            both = f"[{negated}{_CLASSES[char.lower()]}]"
            self._write(both, both)
        elif char in "pP":
            both = f"[{'^' if char == 'P' else ''}{self._named_class()}]"
            self._write(both, both)
        elif char in "bBA":
            self._write(f"\\{char}", None)
        elif char in "zZ":
            self._write(r"\Z" if char == "z" else r"(?=\n?\Z)", None)
        elif char == "R":
            self._write(r"(?:\r\n|[\n-\r\u0085\u2028\u2029])", None)
        elif char in "123456789":
            self._write(f"(?:\\{char})", None)
        elif char == "k":
            self._write(f"(?P={self._reference()})", None)
        else:
            self._literal(self._escaped_char(char))

    def _quote(self) -> None:
        end = self._pattern.find("\\E", self._at)
        quoted = self._pattern[self._at : end if end >= 0 else len(self._pattern)]
        for char in quoted:
            self._literal(char)
        self._at = end + 2 if end >= 0 else len(self._pattern)

    def _reference(self) -> str:
        found = re.compile(r"<([A-Za-z][A-Za-z0-9]*)>").match(self._pattern, self._at)
        if found is None:
            self._refuse("\\k names no group")
        self._at = found.end()
        return found[1]

    def _named_class(self) -> str:
        found = re.compile(r"\{(\w+)\}").match(self._pattern, self._at)
        if found is None or found[1] not in _POSIX:
            self._refuse(f"this character class is not supported, only {', '.join(_POSIX)}")
        self._at = found.end()
        return _POSIX[found[1]]

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            self._refuse("it ends in the middle")
        self._at += 1
        return self._pattern[self._at - 1]

    def _escaped_char(self, char: str) -> str:
        """The character that an escape beginning with `char` stands for."""
        if char in _CONTROL:
            return _CONTROL[char]
        if char in "xu0":
            found = _NUMBERED.match(self._pattern, self._at - 1)
            if found is not None:
                self._at = found.end()
                digits = next(group for group in found.groups() if group)
                return self._numbered(int(digits, 8 if char == "0" else 16))
        if char.isalnum() and char.isascii():
            self._refuse(f"'\\{char}' is not supported")
        return char

    def _numbered(self, number: int) -> str:
        if not 0 < number <= 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            self._refuse("no text has the character it names")
        return chr(number)

    def _brackets(self) -> None:
        opening = "["
        if self._pattern.startswith("^", self._at):
            self._at += 1
            opening = "[^"
        inside: list[str] = []
        while (char := self._next()) != "]" or not inside:
            if char == "[" or (char == "&" and self._pattern.startswith("&", self._at)):
                self._refuse("classes inside classes are not supported")
            inside.append(self._member(char))
        both = f"{opening}{''.join(inside)}]"
        self._write(both, both)

    def _member(self, char: str) -> str:
        if char == "-":
            # A range, unless it stands at an end.
            return "-" if self._is_range() else r"\-"
        if char != "\\":
            return _bracketed(char)
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char == "p":
            return self._named_class()
        return _bracketed(self._escaped_char(char))

    def _is_range(self) -> bool:
        before, after = self._pattern[self._at - 2], self._pattern[self._at : self._at + 1]
        return before not in "[^" and after not in ("]", "")


def _bracketed(char: str) -> str:
    return f"\\{char}" if char in r"\^-[]" else char
