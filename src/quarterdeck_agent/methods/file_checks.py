# SPDX-License-Identifier: Apache-2.0
"""Methods that only look at what a path is, or send a file's content as a report. They never enforce."""

from __future__ import annotations

import os
import re
import stat
from typing import Callable, List, Set

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, texts
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall

_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)

#: Longest file content in a report, in characters.
REPORT_LIMIT = 16384


def kind(mode: int) -> str:
    """What an `st_mode` stands for, in words."""
    return next((words for test, words in _KINDS if test(mode)), "something unknown")


def _is(wanted: str, *, follow: bool = True) -> Callable[[MethodCall], Finding]:
    def look(call: MethodCall) -> Finding:
        path = call["path"]
        try:
            found = kind((os.stat if follow else os.lstat)(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return outcome.drift(f"{path} does not exist; {wanted} is expected.")
        if found == wanted:
            return outcome.compliant(f"{path} is {wanted}.")
        return outcome.drift(f"{path} is {found}; {wanted} is expected.")

    return look


def _exists(call: MethodCall) -> Finding:
    if os.path.lexists(call["path"]):
        return outcome.compliant(f"{call['path']} exists.")
    return outcome.drift(f"{call['path']} does not exist.")


def _hardlink(call: MethodCall) -> Finding:
    one, other = call["path"], call["path_2"]
    for path in (one, other):
        if not os.path.exists(path):
            return outcome.drift(f"{path} does not exist.")
    if os.path.samefile(one, other):
        return outcome.compliant(f"{one} and {other} are the same file.")
    return outcome.drift(f"{one} and {other} are different files.")


def _symlink_to(call: MethodCall) -> Finding:
    path, wanted = call["path"], call["target"]
    if not os.path.islink(path):
        return outcome.drift(f"{path} is no symbolic link; a link to {wanted} is expected.")
    found = os.readlink(path)
    if found == wanted:
        return outcome.compliant(f"{path} points to {wanted}.")
    return outcome.drift(f"{path} points to {found}; {wanted} is expected.")


def _lines(call: MethodCall) -> List[str]:
    path = call["path"]
    if contents.is_secret(path):
        raise UnableError(f"{path} holds secrets and is never reported.")
    data = contents.read(path)
    if data is None:
        raise UnableError(f"{path} does not exist.")
    return [body.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for body in texts.parse(data).bodies()]


def _report(path: str, lines: List[str]) -> Finding:
    text = "\n".join(lines)
    if len(text) > REPORT_LIMIT:
        text = text[:REPORT_LIMIT] + f"\n... and {len(text) - REPORT_LIMIT} more characters"
    return outcome.compliant(f"Content of {path}:\n{text}")


def _number(call: MethodCall, name: str, default: int) -> int:
    text = call[name].strip()
    if text and not text.isdigit():
        raise UnableError(f"The parameter {name} must be a number, not {text}.")
    return int(text) if text else default


def _content(call: MethodCall) -> Finding:
    lines, context = _lines(call), _number(call, "context", 0)
    if not call["regex"]:
        return _report(call["path"], lines)
    pattern = re.compile(call["regex"])
    shown: Set[int] = set()
    for number, line in enumerate(lines):
        if pattern.search(line):
            shown.update(range(max(number - context, 0), min(number + context + 1, len(lines))))
    return _report(call["path"], [lines[number] for number in sorted(shown)])


def _head(call: MethodCall) -> Finding:
    return _report(call["path"], _lines(call)[: _number(call, "limit", 10)])


def _tail(call: MethodCall) -> Finding:
    limit = _number(call, "limit", 10)
    return _report(call["path"], _lines(call)[-limit:] if limit else [])


register("file_check_exists", "path", _exists)
register("file_check_regular", "path", _is("a regular file"))
register("file_check_block_device", "path", _is("a block device"))
register("file_check_character_device", "path", _is("a character device"))
register("file_check_FIFO_pipe", "path", _is("a named pipe"))
register("file_check_socket", "path", _is("a socket"))
register("file_check_symlink", "path", _is("a symbolic link", follow=False))
register("file_check_symlinkto", "path target", _symlink_to)
register("file_check_hardlink", "path path_2", _hardlink)
register("directory_check_exists", "path", _is("a directory"))
register("file_report_content", "path regex? context?", _content)
register("file_report_content_head", "path limit?", _head)
register("file_report_content_tail", "path limit?", _tail)
