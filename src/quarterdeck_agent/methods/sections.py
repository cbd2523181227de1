# SPDX-License-Identifier: Apache-2.0
"""Methods on a part of a file: INI sections, XML tags, and sections between two marker lines."""

from __future__ import annotations

import re
from typing import List, Optional, Tuple

from quarterdeck_agent.methods import texts
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.texts import Line, Text
from quarterdeck_agent.outcome import MethodCall

_HEADER = re.compile(r"[ \t]*\[([^\]]*)\][ \t]*([#;].*)?")


def _ini_section(text: Text, section: str) -> Optional[Tuple[int, int]]:
    """First line after the section's header and the line after its last; None when it is not there."""
    start: Optional[int] = None
    for number, body in enumerate(text.bodies()):
        header = _HEADER.fullmatch(body)
        if header and start is not None:
            return start, number
        if header and header[1].strip() == section:
            start = number + 1
    return None if start is None else (start, len(text.lines))


def _with_section(text: Text, section: str) -> Tuple[Text, int, int]:
    """The text with the section, added at the end when missing, and the section's place in it."""
    place = _ini_section(text, section)
    if place is None:
        text = text.appended([f"[{section}]"])
        place = len(text.lines), len(text.lines)
    return (text, *place)


def _in_section(text: Text, start: int, end: int, body: str) -> Text:
    """The text with a new line in a section, before the blank lines that end it."""
    while end > start and not text.lines[end - 1].body.strip():
        end -= 1
    return text.inserted(end, [body])


def _ini_key(call: MethodCall, text: Optional[Text]) -> Text:
    found, start, end = _with_section(text or Text(), call["section"])
    pattern = re.compile(rf"(?P<before>[ \t]*{re.escape(call['name'])}[ \t]*=[ \t]*)(?P<value>.*?)[ \t]*")
    lines, seen = list(found.lines), False
    for number in range(start, end):
        match = pattern.fullmatch(lines[number].body)
        if match:
            seen = True
            if match["value"] != call["value"]:
                lines[number] = Line(match["before"] + call["value"], lines[number].end)
    if seen:
        return found.with_lines(lines) if lines != list(found.lines) else found
    return _in_section(found, start, end, f"{call['name']}={call['value']}")


def _ini_line(call: MethodCall, text: Optional[Text]) -> Text:
    found, start, end = _with_section(text or Text(), call["section"])
    for wanted in texts.given(call["line"]):
        if wanted not in found.bodies()[start:end]:
            found = _in_section(found, start, end, wanted)
            end += 1
    return found


def _xml_line(call: MethodCall, text: Optional[Text]) -> Text:
    found, tag = texts.required(text, call["path"]), re.escape(call["tag"])
    bodies = found.bodies()
    start = _first(bodies, re.compile(rf"<{tag}(\s[^>]*)?(>|$)"), 0)
    if start is None:
        raise UnableError(f"{call['path']} has no tag <{call['tag']}>.")
    end = _first(bodies, re.compile(rf"</{tag}\s*>"), start)
    if end is None:
        raise UnableError(f"The tag <{call['tag']}> in {call['path']} is never closed.")
    if end == start:
        raise UnableError(f"The tag <{call['tag']}> in {call['path']} begins and ends on one line.")
    inside = [body.strip() for body in bodies[start + 1 : end]]
    missing = [line for line in texts.given(call["line"]) if line.strip() not in inside]
    return found.inserted(end, missing) if missing else found


def _first(bodies: List[str], pattern: re.Pattern[str], start: int) -> Optional[int]:
    return next((number for number in range(start, len(bodies)) if pattern.search(bodies[number])), None)


def _marked_block(call: MethodCall, text: Optional[Text]) -> Text:
    found = text or Text()
    opening, closing, block = call["section_start"], call["section_end"], texts.given(call["block"])
    bodies = found.bodies()
    if opening not in bodies:
        return found.appended([opening, *block, closing])
    start = bodies.index(opening) + 1
    if closing not in bodies[start:]:
        raise UnableError(f"The section after the line {opening} in {call['path']} has no line {closing} that ends it.")
    end = bodies.index(closing, start)
    if bodies[start:end] == block:
        return found
    without = found.with_lines([*found.lines[:start], *found.lines[end:]])
    return without.inserted(start, block)


texts.register_edit("file_key_value_present_in_ini_section", "path section name value", _ini_key)
texts.register_edit("file_line_present_in_ini_section", "path section line", _ini_line)
texts.register_edit("file_line_present_in_xml_tag", "path tag line", _xml_line)
texts.register_edit("file_block_present_in_section", "path section_start section_end block", _marked_block)
