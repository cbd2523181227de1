# SPDX-License-Identifier: Apache-2.0
"""A directive's values against its technique: defaults filled in, types and constraints checked.

Values are always text; `variables` in them are checked for their form only, what they give is known later.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time

from quarterdeck.core import variables
from quarterdeck.core.errors import Invalid
from quarterdeck.core.techniques import Technique, TechniqueParameter

PASSWORD_HASHES = (
    "pre-hashed",
    "plain",
    "unix-crypt-des",
    "md5",
    "sha1",
    "sha256",
    "sha512",
    "md5-crypt",
    "sha256-crypt",
    "sha512-crypt",
    "md5-crypt-aix",
    "sha256-crypt-aix",
    "sha512-crypt-aix",
)
#: Other spellings of types -> those that this module knows.
_SAME_TYPES = {"textarea": "string", "multiline-string": "string", "raw": "string", "perm": "permissions"}
_SCRIPT = re.compile(r"(?:plain:)?eval(?:js)?:")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def fill(technique: Technique, given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """A value for every parameter and every instance: what is given, else the default, else nothing.

    Names that the technique does not have are dropped; so are further values outside repeated sections.
    """
    instances = dict.fromkeys(technique.repeated, 1)
    for parameter in technique.parameters:
        if parameter.section in instances:
            instances[parameter.section] = max(instances[parameter.section], len(given.get(parameter.id, ())))
    filled = {}
    for parameter in technique.parameters:
        count = instances.get(parameter.section, 1)
        values = list(given.get(parameter.id, ()))[:count]
        values.extend([parameter.default or ""] * (count - len(values)))
        filled[parameter.id] = tuple(values)
    return filled


def check(technique: Technique, given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The filled values, all of them fine. Raises Invalid: the first problem is its message."""
    filled = fill(technique, given)
    problems = {}
    for parameter in technique.parameters:
        found = (problem(parameter, value) for value in filled[parameter.id])
        sentence = next((one for one in found if one), "")
        if sentence:
            problems[parameter.id] = sentence
    if problems:
        raise Invalid(next(iter(problems.values())), problems=problems)
    return filled


def problem(parameter: TechniqueParameter, value: str) -> str:
    """What is wrong with one value, as a sentence; empty when nothing is."""
    if not value:
        return "" if parameter.constraints.may_be_empty else f"'{parameter.id}' field must not be empty"
    if _SCRIPT.match(value):
        return f"Please modify {parameter.id}: scripts in values are not supported"
    try:
        variables.parse(value)
    except Invalid:
        return f"Please modify {parameter.id}: error while parsing property: {value}"
    if "${" in value:
        return ""
    return _type_problem(parameter, value) or _constraint_problem(parameter, value)


def _constraint_problem(parameter: TechniqueParameter, value: str) -> str:
    constraints = parameter.constraints
    if constraints.select and value not in constraints.select:
        return _format_problem(parameter, f"one of {', '.join(constraints.select)}")
    if constraints.regex and not re.fullmatch(constraints.regex, value, re.DOTALL):
        return _format_problem(parameter, constraints.regex_message or constraints.regex)
    return ""


def _format_problem(parameter: TechniqueParameter, message: str) -> str:
    return f"Please modify {parameter.id} to match the requested format  : {message}"


def _type_problem(parameter: TechniqueParameter, value: str) -> str:
    kind = _SAME_TYPES.get(parameter.type, parameter.type)
    kind = "size" if kind.startswith("size-") else kind.partition(":")[0]
    if kind in ("password", "masterPassword", "derivedPassword"):
        return _password_problem(parameter, value)
    if kind in _FORMATS:
        test, message = _FORMATS[kind]
        return "" if test(value) else _format_problem(parameter, message)
    if kind in _KINDS:
        test, message = _KINDS[kind]
        return "" if test(value) else f"Wrong value {value} for field '{parameter.id}': expecting {message}."
    return ""


def _password_problem(parameter: TechniqueParameter, value: str) -> str:
    algorithm, found, _ = value.partition(":")
    allowed = parameter.constraints.password_hashes or PASSWORD_HASHES
    if found and algorithm in allowed:
        return ""
    if "pre-hashed" in allowed and (value.startswith("$") or (found and algorithm != "plain")):
        return ""
    return _format_problem(parameter, f"algorithm:hash, with one of the algorithms {', '.join(allowed)}")


def _accepts(read: Callable[[str], object]) -> Callable[[str], bool]:
    def test(value: str) -> bool:
        try:
            read(value)
        except (ValueError, RecursionError):
            return False
        return True

    return test


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


#: Types whose failure is told as a format.
_FORMATS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "ip": (_accepts(ipaddress.ip_address), "an IP address"),
    "ipv4": (_accepts(ipaddress.IPv4Address), "an IPv4 address"),
    "ipv6": (_accepts(ipaddress.IPv6Address), "an IPv6 address"),
    "mail": (lambda value: _MAIL.fullmatch(value) is not None, "a mail address"),
    "permissions": (_matches("[0-7]{3,4}"), "an octal mode such as 644 or 4755"),
    "destinationfullpath": (lambda value: value.startswith("/"), "an absolute path"),
}
#: Types whose failure is told as a wrong value.
_KINDS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "integer": (_matches(r"[+-]?[0-9]+"), "an integer"),
    "size": (_matches(r"[0-9]+"), "an integer"),
    "boolean": (lambda value: value.lower() in ("true", "false"), "true or false"),
    "datetime": (_accepts(datetime.fromisoformat), "a datetime in ISO 8601 standard"),
    "date": (_accepts(date.fromisoformat), "a date in ISO 8601 standard"),
    "time": (_accepts(time.fromisoformat), "a time in ISO 8601 standard"),
    "json": (_accepts(json.loads), "JSON"),
}
#: Every type that a technique may name.
TYPES = frozenset(
    {
        *_SAME_TYPES,
        *_FORMATS,
        *(_KINDS.keys() - {"size"}),
        *(f"size-{unit}" for unit in ("b", "kb", "mb", "gb", "tb")),
        *("string", "yaml", "password", "masterPassword", "derivedPassword:linux", "derivedPassword:aix"),
        *("shared-file", "sharedfile", "uploadedfile"),
    }
)
