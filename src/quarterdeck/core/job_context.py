# SPDX-License-Identifier: Apache-2.0
"""The contexts of a run (option, job, node) and the ways in which a step sees them.

In command lines `${group.name}` is replaced so that a value can never become shell text: plain values stand as they
are, others are quoted where that is simple and else travel in a shell variable that the line refers to. In scripts
`@group.name@` is replaced as it is, and both get `RD_GROUP_NAME` in their environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource

Context = Mapping[str, Mapping[str, str]]

_REFERENCE = re.compile(r"\$\{([^\s.{}]+)\.([^\s}]+)\}")
_TOKEN = re.compile(r"@([^\s.@]+)\.([^\s@]+)@")
_PLAIN = re.compile(r"[A-Za-z0-9_%+:,./@-]+")
_NUMBER = re.compile(r"-?[0-9]+")
_NOT_FOR_NAMES = re.compile(r"[^A-Z0-9_]")
_DATE = re.compile(r"\$\{DATE:([^}]+)\}")
_DATE_PIECE = re.compile(r"(([a-zA-Z])\2*)|('(?:[^']|'')*')|.", re.DOTALL)
#: Java's letters -> strftime's
_DATE_PARTS = {
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "MMM": "%b",
    "MMMM": "%B",
    "EEE": "%a",
    "EEEE": "%A",
    "a": "%p",
    "Z": "%z",
    "z": "%Z",
    "DDD": "%j",
    "d": "%-d",
    "M": "%-m",
    "H": "%-H",
    "h": "%-I",
    "m": "%-M",
    "s": "%-S",
    "E": "%a",
}
_BEFORE_COMMENT = " \t\n;&|()<>`"
#: Where bash takes a value as arithmetic, it runs the command in `a[$(command)]`.
_EVALUATED = re.compile(r"\[.*(\$\(|`)", re.DOTALL)
_EVALUATES = re.compile(r"\[\[|\blet\b|\bdeclare\b|\btypeset\b|\beval\b")
_VARIABLE = "_rd_value_"


def context(
    options: Mapping[str, str],
    job: Mapping[str, str],
    node: Resource | None = None,
) -> dict[str, dict[str, str]]:
    """The groups of a run. `job` has name, group, id, username, project as far as they apply."""
    groups = {"option": dict(options), "job": {name: value for name, value in job.items() if value}}
    if node is not None:
        groups["node"] = dict(node.items())
    return groups


def replaced(text: str, values: Context) -> str:
    """`${group.name}` replaced as it is; for words of arguments and node filters, never for shell lines."""
    return _REFERENCE.sub(lambda match: _value(values, match), text)


def url(text: str, values: Context) -> str:
    """An address with `${group.name}` replaced by URL-encoded values; unknown ones stay."""
    known = {
        group: {name: quote(value, safe="") for name, value in entries.items()} for group, entries in values.items()
    }
    return _REFERENCE.sub(lambda match: _value(known, match), text)


def dated(text: str, moment: datetime) -> str:
    """An argument string with `${DATE:format}` (a Java date pattern) replaced by the moment of the start.

    A pattern with letters that are not known here stays as it is.
    """
    return _DATE.sub(lambda match: _formatted(match[1], moment) or match[0], text)


def _formatted(pattern: str, moment: datetime) -> str:
    """The moment in that pattern; nothing when the pattern is not understood."""
    pieces = []
    for match in _DATE_PIECE.finditer(pattern):
        letters, quoted = match[1], match[3]
        if letters is None:
            pieces.append(match[0] if quoted is None else quoted[1:-1].replace("''", "'") or "'")
        elif letters in _DATE_PARTS:
            pieces.append(moment.strftime(_DATE_PARTS[letters]))
        elif set(letters) == {"S"}:
            pieces.append(f"{moment.microsecond // 1000:0{len(letters)}d}")
        else:
            return ""
    return "".join(pieces)


def script(text: str, values: Context) -> str:
    """Script text with its `@group.name@` replaced, and exactly one line end at its end."""
    return _TOKEN.sub(lambda match: _value(values, match), text).rstrip("\r\n") + "\n"


def environment(values: Context) -> dict[str, str]:
    """`RD_GROUP_NAME` for every value."""
    return {
        "RD_" + _NOT_FOR_NAMES.sub("_", f"{group}_{name}".upper()): value
        for group, entries in values.items()
        for name, value in entries.items()
        if value and "\0" not in value
    }


def _known(values: Context, match: re.Match[str]) -> str | None:
    return values.get(match[1], {}).get(match[2])


def _value(values: Context, match: re.Match[str]) -> str:
    found = _known(values, match)
    return match[0] if found is None else found


@dataclass(frozen=True, slots=True)
class Line:
    """A shell line: assignments that must come first ("" where none are needed), and the text itself."""

    assignments: str
    text: str

    def __str__(self) -> str:
        return f"{self.assignments}; {self.text}" if self.assignments else self.text


def command_line(text: str, values: Context) -> Line:
    """The author's line with its references replaced; unknown ones stay. For a POSIX shell.

    Raises Invalid for values that cannot be put there safely: with a NUL anywhere, other than numbers in arithmetic.
    """
    return _ShellLine(text, values).result()


class _ShellLine:
    """Walks a line and knows how the shell quotes at each place; `stack` holds what is open, the inmost last.

    The places: `"` and `'` quotes, "(" a command in parentheses or `$(`, "`" backquotes, "{" a parameter expansion,
    "+" arithmetic. Whoever writes the line may confuse this reading; as soon as anything but simple quotes was seen,
    values therefore go through variables, whose content no shell reads as commands.
    """

    def __init__(self, text: str, values: Context) -> None:
        self._text, self._values = text, values
        self._stack: list[str] = []
        self._simple = True
        self._here_document = False
        self._variables: dict[str, str] = {}
        self._written: list[str] = []

    def result(self) -> Line:
        for piece in self._pieces():
            self._written.append(piece)
        assignments = "; ".join(f"{name}={_quoted(value)}" for value, name in self._variables.items())
        return Line(assignments, "".join(self._written))

    def _pieces(self) -> Iterator[str]:
        position = 0
        while position < len(self._text):
            match = _REFERENCE.match(self._text, position)
            if match and (value := _known(self._values, match)) is not None:
                yield self._put(match, value)
                position = match.end()
            else:
                length = match.end() - position if match else self._step(position)
                yield self._text[position : position + length]
                position += length

    def _put(self, match: re.Match[str], value: str) -> str:
        inmost = self._stack[-1] if self._stack else ""
        self._check(match, value)
        if self._stands_alone(value, match.end()):
            return value
        if not self._simple or self._behind_dollar():
            return self._by_variable(value, inmost)
        return _QUOTING[inmost](value)

    def _check(self, match: re.Match[str], value: str) -> None:
        if "\0" in value:
            raise Invalid(f"The value of {match[0]} has a NUL character.")
        if "+" in self._stack and not _NUMBER.fullmatch(value):
            raise Invalid(f"The value of {match[0]} stands in arithmetic and is not a number.")
        if self._here_document and not _PLAIN.fullmatch(value):
            raise Invalid(f"The value of {match[0]} stands behind a here-document and needs quotes.")
        if _EVALUATED.search(value) and ("{" in self._stack or _EVALUATES.search(self._text, 0, match.start())):
            raise Invalid(f"The value of {match[0]} stands where a shell may evaluate it again.")

    def _stands_alone(self, value: str, end: int) -> bool:
        """Whether the value needs no quotes here. A number before < or > would choose what is redirected."""
        redirects = value.isdigit() and self._text[end : end + 1] in ("<", ">")
        return _PLAIN.fullmatch(value) is not None and not redirects and not self._behind_dollar()

    def _behind_dollar(self) -> bool:
        return bool(self._written) and self._written[-1].endswith("$")

    def _by_variable(self, value: str, inmost: str) -> str:
        name = self._variables.setdefault(value, f"{_VARIABLE}{len(self._variables) + 1}")
        if inmost == "'":
            return f"'\"${{{name}}}\"'"
        quoted = inmost == '"' or (inmost == "{" and '"' in self._stack)
        return f"${{{name}}}" if quoted else f'"${{{name}}}"'

    def _step(self, position: int) -> int:
        """How many characters belong to the next piece of the author's text; opens and closes what it must."""
        inmost = self._stack[-1] if self._stack else ""
        character = self._text[position]
        if inmost == "'":
            return self._close("'") if character == "'" else 1
        if character == "\\":
            return self._escaped(position)
        if character == "$":
            return self._dollar(position)
        if character in '`"':
            return self._toggle(character)
        return 1 if inmost == '"' else self._unquoted(position, character, inmost)

    def _unquoted(self, position: int, character: str, inmost: str) -> int:
        if character == "'" and not (inmost == "{" and '"' in self._stack):
            return self._open("'")
        if character == "(":
            twice = self._text.startswith("((", position)
            return self._open("+" if twice else "(", simple=False) + twice
        if character == ")" and inmost in ("(", "+"):
            return self._close_parenthesis(position, inmost)
        if character == "}" and inmost == "{":
            return self._close("{")
        if self._text.startswith("<<", position):
            self._here_document = True
        if character == "#" and (position == 0 or self._text[position - 1] in _BEFORE_COMMENT):
            self._simple = False
            return len(self._text[position:].split("\n", 1)[0])
        return 1

    def _escaped(self, position: int) -> int:
        """A backslash takes the next character with it; an escaped reference is taken whole and stays."""
        match = _REFERENCE.match(self._text, position + 1)
        if match:
            return match.end() - position
        return 2

    def _dollar(self, position: int) -> int:
        for opening, kind in (("$((", "+"), ("$(", "("), ("${", "{")):
            if self._text.startswith(opening, position):
                self._open(kind, simple=False)
                return len(opening)
        if self._text.startswith("$'", position) and '"' not in self._stack[-1:]:
            self._simple = False
        return 1

    def _close_parenthesis(self, position: int, inmost: str) -> int:
        self._stack.pop()
        return 2 if inmost == "+" and self._text.startswith("))", position) else 1

    def _toggle(self, kind: str) -> int:
        if kind == "`":
            self._simple = False
        if self._stack and self._stack[-1] == kind:
            return self._close(kind)
        return self._open(kind)

    def _open(self, kind: str, *, simple: bool = True) -> int:
        self._stack.append(kind)
        self._simple = self._simple and simple
        return 1

    def _close(self, kind: str) -> int:
        assert self._stack[-1] == kind
        self._stack.pop()
        return 1


def _quoted(value: str) -> str:
    return f"'{_in_apostrophes(value)}'"


def _in_double_quotes(value: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", value)


def _in_apostrophes(value: str) -> str:
    return value.replace("'", "'\\''")


_QUOTING: dict[str, Callable[[str], str]] = {"": _quoted, '"': _in_double_quotes, "'": _in_apostrophes}
