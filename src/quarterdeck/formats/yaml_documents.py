# SPDX-License-Identifier: Apache-2.0
"""YAML that comes from outside, read safely with its scalars as they are written, and YAML that is written.

`007`, `1.10` and `yes` stay the texts they are; only an empty or null value is None. Aliases are refused, as they
can make a small document large.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from quarterdeck.core.errors import Invalid, TooLarge

MAX_LENGTH = 8 * 1024 * 1024
MAX_NESTING = 64
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")

#: A block is nested at most as deep as its first line is indented or begun by indicators.
_DEEP = re.compile(rf"^[ \t?:-]{{{MAX_NESTING}}}", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_./@,-]|[: ](?=[A-Za-z0-9/]))*")
_NOT_PLAIN = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_ONE_LINE = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]*")


class _Reader(yaml.CSafeLoader):
    """Knows null and text, and nothing else."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # so it is declared upstream
        first: [("tag:yaml.org,2002:null", _NULL)] for first in ("~", "n", "N", "")
    }


class _Writer(yaml.CSafeDumper):
    """Writes texts of several lines as literal blocks."""


def _text(writer: _Writer, value: str) -> yaml.ScalarNode:
    block = "\n" in value and not re.search(r"[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]|[ \u2028\u2029]\n", value)
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style="|" if block else None)


_Writer.add_representer(str, _text)


def read_all(data: bytes) -> list[Any]:
    """The documents of a stream, empty ones left out. Raises Invalid, whose message says the line; TooLarge."""
    if len(data) > MAX_LENGTH:
        raise TooLarge(f"A document has at most {MAX_LENGTH} bytes.")
    try:
        text = data.decode("utf-8-sig")
        _guard(text)
        return [one for one in yaml.load_all(text, Loader=_Reader) if one is not None]  # it is a safe one
    except UnicodeDecodeError as error:
        raise Invalid(f"Not UTF-8 at byte {error.start}.") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise Invalid(f"{line}{error.problem or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid(str(error)) from error


def _guard(text: str) -> None:
    """Refuse what makes a small document large or deep; a second look, so only at what could be either."""
    if "&" not in text and text.count("[") + text.count("{") < MAX_NESTING and not _DEEP.search(text):
        return
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise Invalid(f"line {line}: Aliases are not supported.")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise Invalid(f"line {line}: Nested more than {MAX_NESTING} levels deep.")


def scalar(text: str) -> str:
    """A text as it stands in block style behind a key, for documents of many lines: much faster than `written`."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN:
        return text
    if _ONE_LINE.fullmatch(text):
        return "'" + text.replace("'", "''") + "'"
    quoted: str = yaml.dump(text, Dumper=yaml.CSafeDumper, default_style='"', width=1_000_000)
    return quoted.rstrip("\n")


def written(document: Any) -> bytes:
    """One document in block style, keys in their order, two blanks per level."""
    text: str = yaml.dump(
        document,
        Dumper=_Writer,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
    )
    return text.encode()
