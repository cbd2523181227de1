# SPDX-License-Identifier: Apache-2.0
"""Methods that copy files and directories that are on the node already. Only content counts.

A new file or directory gets the mode of its source, an existing one keeps its own; what is only in
the target stays. Files are compared and copied in pieces, whatever their size.
"""

from __future__ import annotations

import os
import shlex
import stat
from typing import Iterator, Optional, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, processes, trees
from quarterdeck_agent.methods.processes import exit_codes
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


def _pairs(call: MethodCall, levels: Optional[int]) -> Iterator[Tuple[str, str]]:
    """Each source path with its target path."""
    source, target = call["source"], call["path"]
    if not source.startswith("/"):
        raise UnableError(f"The source {source} must be absolute.")
    if not os.path.exists(source):
        raise UnableError(f"The source {source} does not exist.")
    real = os.path.realpath(source)
    if os.path.isdir(real) and os.path.realpath(target).startswith(real + "/"):
        raise UnableError(f"{target} is inside its own source {source}.")
    for path in trees.walk(real, levels):
        inside = os.path.relpath(path, real)
        yield path, target if inside == "." else os.path.join(target, inside)


def _difference(source: str, target: str) -> str:
    """Why the target is not a copy of the source; empty when it is one.

    Raises UnableError when it cannot become one.
    """
    mode = os.lstat(source).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UnableError(f"{source} is neither a file, a directory nor a link and is not copied.")
    if not os.path.lexists(target):
        return f"{target} does not exist."
    if stat.S_ISLNK(mode):
        same = os.path.islink(target) and os.readlink(target) == os.readlink(source)
        return "" if same else f"{target} is not the same link as {source}."
    if stat.S_ISDIR(mode):
        if os.path.isdir(target):
            return ""
        raise UnableError(f"{target} is not a directory, but {source} is.")
    if os.path.exists(target) and not os.path.isfile(target):
        raise UnableError(f"{target} is not a regular file, but {source} is.")
    return "" if _same(source, target) else f"{target} differs from {source}."


def _same(source: str, target: str) -> bool:
    if not os.path.exists(target) or os.path.getsize(source) != os.path.getsize(target):
        return False
    with open(source, "rb") as one, open(target, "rb") as other:
        while True:
            piece = one.read(1024 * 1024)
            if piece != other.read(1024 * 1024):
                return False
            if not piece:
                return True


def _copy(source: str, target: str, backups: Optional[str]) -> None:
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target, stat.S_IMODE(status.st_mode))
    elif stat.S_ISLNK(status.st_mode):
        if os.path.lexists(target):
            contents.remove(target, backups)
        os.symlink(os.readlink(source), target)
    else:
        with open(source, "rb") as stream:
            contents.replace(target, lambda new: contents.copy(stream, new), backups, stat.S_IMODE(status.st_mode))


def _levels(call: MethodCall) -> Optional[int]:
    return trees.depth(call["recursion"] or "0")


def _audit(call: MethodCall) -> Finding:
    count = 0
    for source, target in _pairs(call, _levels(call)):
        count += 1
        difference = _difference(source, target)
        if difference:
            return outcome.drift(difference)
    return outcome.compliant(f"{call['path']} is a copy of {call['source']} ({count} compared).")


def _enforce(call: MethodCall) -> Finding:
    count = 0
    for source, target in _pairs(call, _levels(call)):
        if _difference(source, target):
            _copy(source, target, call.backups)
            count += 1
    return outcome.compliant(f"{count} of {call['source']} copied to {call['path']}.")


def _enforce_with_check(call: MethodCall) -> Finding:
    command = f"{call['check_command']} {shlex.quote(call['source'])}"
    done = processes.shell(command)
    if done.code not in exit_codes(call["rc_ok"] or "0"):
        return outcome.error(f"Nothing was copied: {command} returned {done.code}{done.told}")
    return _enforce(call)


register("file_from_local_source", "source path", _audit, _enforce, value="path")
register(
    "file_from_local_source_recursion",
    "source path recursion",
    _audit,
    _enforce,
    value="path",
    prefix="file_from_local_source",
)
register(
    "file_from_local_source_with_check",
    "source path check_command rc_ok?",
    _audit,
    _enforce_with_check,
    value="path",
)
