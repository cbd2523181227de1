# SPDX-License-Identifier: Apache-2.0
"""Methods on `key separator value` lines: one key, a dictionary of keys, a list inside one line.

A key is literal text. Every line of the key gets the wanted value, comments are left alone, a key
that is nowhere is added at the end. Keys of INI sections are in sections.py.
"""

from __future__ import annotations

import json
import re
from typing import Callable, Dict, List, Optional, Pattern

from quarterdeck_agent.methods import texts
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.texts import Text
from quarterdeck_agent.outcome import MethodCall


def _key_line(key: str, separator: str) -> Pattern[str]:
    """Matches a line of the key: `before` up to the value, then the `value`, both as groups."""
    mark = separator.strip(" \t")
    between = rf"[ \t]*{re.escape(mark)}[ \t]*" if mark else r"[ \t]+"
    return re.compile(rf"(?P<before>[ \t]*{re.escape(key)}{between})(?P<value>.*)", re.DOTALL)


def with_key(text: Text, key: str, separator: str, value: str, *, lax: bool) -> Text:
    """The text where each line of `key` has `value`; `lax` accepts any blanks around the separator."""
    pattern = _key_line(key, separator)
    wanted = f"{key}{separator}{value}"

    def change(body: str) -> str:
        match = pattern.fullmatch(body)
        if match is None:
            return body
        return match["before"] + value if lax else wanted

    if any(pattern.fullmatch(body) or body == wanted for body in text.bodies()):
        return text.changed(change)
    return text.appended([wanted])


def _key_value(call: MethodCall, text: Optional[Text]) -> Text:
    return with_key(text or Text(), call["key"], call["separator"], call["value"], lax=False)


def _key_value_option(call: MethodCall, text: Optional[Text]) -> Text:
    option = call["option"].strip().lower()
    if option not in ("strict", "lax"):
        raise UnableError(f"The parameter option must be strict or lax, not {call['option']}.")
    return with_key(text or Text(), call["key"], call["separator"], call["value"], lax=option == "lax")


def _keys_values(call: MethodCall, text: Optional[Text]) -> Text:
    wanted = text or Text()
    for key, value in _dictionary(call).items():
        wanted = with_key(wanted, key, call["separator"], value, lax=False)
    return wanted


def _dictionary(call: MethodCall) -> Dict[str, str]:
    """The keys: the name of a dictionary variable, or JSON text."""
    source = call["keys"].strip()
    found: object = call.facts.variables.get(source)
    if source.startswith("{"):
        try:
            found = json.loads(source)
        except ValueError as problem:
            raise UnableError(f"The parameter keys is not valid JSON: {problem}.") from problem
    if not isinstance(found, dict):
        raise UnableError(f"The parameter keys must name a dictionary variable; {source} is none.")
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _in_list(call: MethodCall, text: Text, change: Callable[[List[str]], List[str]]) -> Text:
    """The text where the list in each line of the key is changed; the lines' other parts stay."""
    pattern = _key_line(call["key"], call["key_value_separator"])
    leading, closing = call["leading_char_separator"], call["closing_char_separator"]

    def changed(body: str) -> str:
        match = pattern.fullmatch(body)
        if match is None:
            return body
        value = match["value"].rstrip(" \t")
        if not (value.startswith(leading) and value.endswith(closing) and len(value) >= len(leading + closing)):
            raise UnableError(f"The value of {call['key']} in {call['path']} is not between {leading} and {closing}.")
        inner = value[len(leading) : len(value) - len(closing)]
        before = _items(inner, call["parameter_separator"])
        after = change(before)
        if after == before:
            return body
        return match["before"] + leading + call["parameter_separator"].join(after) + closing

    return text.changed(changed)


def _items(inner: str, separator: str) -> List[str]:
    if separator.strip(" \t"):
        return [item.strip(" \t") for item in inner.split(separator.strip(" \t")) if item.strip(" \t")]
    return inner.split()


def _parameter_present(call: MethodCall, text: Optional[Text]) -> Text:
    found, parameter = text or Text(), call["parameter"]
    pattern = _key_line(call["key"], call["key_value_separator"])
    if not any(pattern.fullmatch(body) for body in found.bodies()):
        value = call["leading_char_separator"] + parameter + call["closing_char_separator"]
        return found.appended([call["key"] + call["key_value_separator"] + value])
    return _in_list(call, found, lambda items: items if parameter in items else [*items, parameter])


def _parameter_absent(call: MethodCall, text: Optional[Text]) -> Optional[Text]:
    pattern = re.compile(call["parameter_regex"])
    if text is None:
        return None
    return _in_list(call, text, lambda items: [item for item in items if not pattern.fullmatch(item)])


_LIST = "parameter_separator leading_char_separator? closing_char_separator?"

texts.register_edit("file_key_value_present", "path key value separator", _key_value)
texts.register_edit(
    "file_key_value_present_option",
    "path key value separator option",
    _key_value_option,
    prefix="file_key_value_present",
)
texts.register_edit("file_keys_values_present", "path keys separator", _keys_values)
texts.register_edit(
    "file_key_value_parameter_present_in_list", f"path key key_value_separator parameter {_LIST}", _parameter_present
)
texts.register_edit(
    "file_key_value_parameter_absent_in_list",
    f"path key key_value_separator parameter_regex {_LIST}",
    _parameter_absent,
)
