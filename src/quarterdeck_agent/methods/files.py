# SPDX-License-Identifier: Apache-2.0
"""Methods on one file as a whole or on lines and blocks anywhere in it.

Keys with values are in key_values.py, sections and tags in sections.py, looks without a wish in
file_checks.py.
"""

from __future__ import annotations

import os
import re
import stat
from typing import List, Optional

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, texts
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.texts import Text
from quarterdeck_agent.outcome import Finding, MethodCall

_REFERENCE = re.compile(r"\$\{match\.(\d+)\}")


def _present(call: MethodCall) -> Finding:
    path = call["path"]
    if os.path.isfile(path):
        return outcome.compliant(f"{path} exists.")
    if os.path.lexists(path) and not os.path.islink(path):
        return outcome.error(f"{path} exists but is not a file.")
    return outcome.drift(f"{path} does not exist; an empty file is expected.")


def _create(call: MethodCall) -> Finding:
    contents.write(call["path"], b"", None)
    return outcome.compliant(f"{call['path']} was created empty.")


def _absent(call: MethodCall) -> Finding:
    path = call["path"]
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return outcome.compliant(f"{path} is absent.")
    if stat.S_ISDIR(status.st_mode):
        return outcome.error(f"{path} is a directory; directory_absent removes directories.")
    return outcome.drift(f"{path} exists; it should be absent.")


def _remove(call: MethodCall) -> Finding:
    contents.remove(call["path"], call.backups)
    return outcome.compliant(f"{call['path']} was removed.")


def _lines_present(call: MethodCall, text: Optional[Text]) -> Text:
    found = text or Text()
    there = set(found.bodies())
    missing = [line for line in dict.fromkeys(texts.given(call["lines"])) if line not in there]
    return found.appended(missing) if missing else found


def _content(call: MethodCall, text: Optional[Text]) -> Text:
    choice = call["enforce"].strip().lower()
    if choice not in ("true", "false"):
        raise UnableError(f"The parameter enforce must be true or false, not {call['enforce']}.")
    if choice == "false":
        return _lines_present(call, text)
    wanted = texts.given(call["lines"])
    if text and text.bodies() == wanted:
        return text.with_lines([texts.Line(line.body, line.end or text.end) for line in text.lines])
    return Text(end=text.end if text else "\n").appended(wanted)


def _lines_absent(call: MethodCall, text: Optional[Text]) -> Optional[Text]:
    patterns = [re.compile(pattern) for pattern in texts.given(call["lines"]) if pattern]
    if text is None:
        return None
    return text.kept(lambda body: not any(pattern.fullmatch(body) for pattern in patterns))


def _replace_lines(call: MethodCall, text: Optional[Text]) -> Text:
    pattern = re.compile(call["line"])

    def change(body: str) -> str:
        return pattern.sub(lambda match: _substituted(match, call["replacement"]), body)

    found = texts.required(text, call["path"])
    after = found.changed(change)
    if after.changed(change) != after:
        raise UnableError(
            f"{call['line']} also matches what it is replaced by, so that each run would replace it again; "
            "narrow the expression."
        )
    return after


def _substituted(match: re.Match[str], replacement: str) -> str:
    def group(reference: re.Match[str]) -> str:
        try:
            return match.group(int(reference.group(1))) or ""
        except IndexError as problem:
            raise UnableError(f"The expression captures no group {reference.group(1)}.") from problem

    return _REFERENCE.sub(group, replacement)


def _block_present(call: MethodCall, text: Optional[Text]) -> Text:
    found = text or Text()
    block = texts.given(call["block"])
    return found if _position(found.bodies(), block) is not None else found.appended(block)


def _position(bodies: List[str], block: List[str]) -> Optional[int]:
    starts = range(len(bodies) - len(block) + 1)
    return next((start for start in starts if bodies[start : start + len(block)] == block), None)


register("file_present", "path", _present, _create)
register("file_absent", "path", _absent, _remove)
texts.register_edit("file_content", "path lines enforce", _content, prefix="file_lines_present")
texts.register_edit("file_lines_present", "path lines", _lines_present)
texts.register_edit("file_lines_absent", "path lines", _lines_absent)
texts.register_edit("file_replace_lines", "path line replacement", _replace_lines)
texts.register_edit("file_block_present", "path block", _block_present)
