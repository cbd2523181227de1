# SPDX-License-Identifier: Apache-2.0
"""Options of a run: argument strings read and written, defaults, checks of values, and what must stay hidden.

How a definition of options can be wrong is in `core/job_checks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from quarterdeck.core import bounded_regexes
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import Option

HIDDEN = "*****"
_QUOTED = r"'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(rf"({_QUOTED})|(\S+)", re.DOTALL)
_ESCAPED = re.compile(r"\\(['\\])")
#: Shorter lines of a secret (a brace, say) would hide half of any text.
_SHORTEST_LINE = 4


def parse(argstring: str, replace: Callable[[str], str] = str) -> dict[str, str]:
    """Options of `-name value -flag`: a name without a value has `true`; stray words are left out.

    What stands in apostrophes is always a value. `replace` sees each value after the text was cut into words, so what
    it puts in stays one value.
    """
    found: dict[str, str] = {}
    name = ""
    for word, quoted in _words(argstring):
        if not quoted and len(word) > 1 and word.startswith("-"):
            name = word[1:]
            found[name] = "true"
        elif name:
            found[name] = replace(word)
            name = ""
    return found


def _words(text: str) -> Iterable[tuple[str, bool]]:
    for match in _TOKEN.finditer(text):
        if match[1] is not None:
            yield _ESCAPED.sub(r"\1", match[1][1:-1]), True
        else:
            yield match[2], False


def written(values: Mapping[str, str]) -> str:
    """The argument string of these options, sorted by name; `parse` gives them back."""
    return " ".join(f"-{name} {_word(value)}" for name, value in sorted(values.items()))


def _word(value: str) -> str:
    if value and not re.search(r"\s", value) and value[0] not in "'-":
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def shown(options: Iterable[Option], values: Mapping[str, str]) -> str:
    """The argument string as it may be stored and shown: values of secure options hidden."""
    secure = {option.name for option in options if option.secure}
    return written({name: HIDDEN if name in secure else value for name, value in values.items()})


def concealed(options: Iterable[Option]) -> tuple[Option, ...]:
    """The options as they may be shown: defaults of secure ones hidden."""
    return tuple(replace(one, value=HIDDEN) if one.secure and one.value else one for one in options)


def secrets(options: Iterable[Option], values: Mapping[str, str]) -> list[str]:
    """The values of this run that no log and no answer may show."""
    return [values[option.name] for option in options if option.secure and values.get(option.name)]


def with_defaults(options: Iterable[Option], values: Mapping[str, str]) -> dict[str, str]:
    """The values and, for required options without one, their defaults."""
    missing = {one.name: one.value for one in options if one.required and one.value and not values.get(one.name)}
    return {**values, **missing}


def problems(options: Iterable[Option], values: Mapping[str, str]) -> list[str]:
    """What is wrong with the values of a run: a sentence per option, in order of their names."""
    found = (_problem(option, values.get(option.name, "")) for option in sorted(options, key=lambda one: one.name))
    return [problem for problem in found if problem]


def check(options: Iterable[Option], values: Mapping[str, str]) -> None:
    """Raises Invalid with all problems in one message, each line ended."""
    if lines := problems(options, values):
        raise Invalid("".join(f"{line}\n" for line in lines))


def split(option: Option, value: str) -> list[str]:
    """The single values of a value: cut at the delimiter if the option takes several."""
    return value.split(option.delimiter) if option.multivalued and option.delimiter else [value]


def _problem(option: Option, value: str) -> str:
    if not value:
        return f"Option '{option.name}' is required." if option.required else ""
    if option.multivalued and option.delimiter:
        return _problem_of_several(option, split(option, value))
    shown_value = HIDDEN if option.secure else value
    if option.enforced:
        if option.values and value not in option.values:
            allowed = ", ".join(option.values)
            return f"Option '{option.name}' value: {shown_value} was not in the allowed values: [{allowed}]"
    elif option.regex and not whole_match(option.regex, value):
        return f"Option '{option.name}' doesn't match regular expression: '{option.regex}', value: {shown_value}"
    return ""


def _problem_of_several(option: Option, values: list[str]) -> str:
    several = HIDDEN if option.secure else ", ".join(values)
    start = f"Option '{option.name}' values: [{several}]"
    if option.enforced:
        if option.values and not set(values) <= set(option.values):
            return f"{start} were not all in the allowed values: [{', '.join(option.values)}]"
    elif option.regex and not all(whole_match(option.regex, value) for value in values):
        return f"{start} did not all match regular expression: '{option.regex}'"
    return ""


def whole_match(regex: str, value: str) -> bool:
    """Whether the Java pattern fits the whole value; one that is wrong fits nothing."""
    try:
        return bounded_regexes.compiled(regex).fullmatch(value)
    except Invalid:
        return False


class Mask:
    """Hides secrets in text that comes in pieces. Secrets of several lines are hidden line by line too."""

    def __init__(self, hidden: Iterable[str]) -> None:
        whole = {secret for secret in hidden if secret.strip()}
        lines = {line for secret in whole for line in secret.splitlines() if len(line.strip()) >= _SHORTEST_LINE}
        wanted = sorted(whole | lines, key=lambda one: (-len(one), one))
        self._secrets = [one.encode(errors="surrogateescape") for one in wanted]
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if wanted else None
        self._kept = b""

    def text(self, text: str) -> str:
        """A whole text with every secret replaced."""
        return self.whole(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def whole(self, data: bytes) -> bytes:
        """Whole bytes with every secret replaced."""
        # Most output holds none, and looking for each is ten times as fast as the pattern.
        if self._pattern is None or not any(secret in data for secret in self._secrets):
            return data
        return self._pattern.sub(HIDDEN.encode(), data)

    def feed(self, data: bytes) -> bytes:
        """What can be shown after this piece; an end that may be the beginning of a secret waits for the next."""
        if not self._pattern:
            return data
        data = self._kept + data
        edge = self._undecided_from(data)
        hidden = self.whole(data[:edge])
        self._kept = data[edge:]
        return hidden

    def end(self) -> bytes:
        """What was kept back, once nothing more comes."""
        rest, self._kept = self._kept, b""
        return self.whole(rest)

    def _undecided_from(self, data: bytes) -> int:
        """Where the earliest unfinished secret at the end begins, never inside a finished one before it."""
        edge = len(data)
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(data)), 0, -1):
                if data.endswith(secret[:size]):
                    edge = min(edge, len(data) - size)
                    break
        if edge == len(data):
            return edge
        assert self._pattern is not None
        for match in self._pattern.finditer(data):
            if match.start() < edge < match.end():
                return match.end() if match.end() == len(data) else match.start()
        return edge
