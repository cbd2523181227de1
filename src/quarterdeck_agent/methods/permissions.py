# SPDX-License-Identifier: Apache-2.0
"""Methods on mode, owner and group of one path or of a tree. Access control lists are in acl_permissions.py.

Below the given path links are changed themselves, never what they point to.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Set

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import system, trees
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall

_CLAUSE = re.compile(r"([ugoa]*)((?:[+=-][rwxXst]*)+)")
_ACTION = re.compile(r"([+=-])([rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}

#: Differences that a message names one by one.
_SHOWN = 10

_KINDS = {
    "all": lambda _mode: True,
    "plain": stat.S_ISREG,
    "reg": stat.S_ISREG,
    "file": stat.S_ISREG,
    "dir": stat.S_ISDIR,
    "symlink": stat.S_ISLNK,
    "fifo": stat.S_ISFIFO,
    "socket": stat.S_ISSOCK,
    "char": stat.S_ISCHR,
    "block": stat.S_ISBLK,
}


@dataclass(frozen=True)
class Wish:
    """The wanted mode (octal or symbolic text), owner and group; empty or None is "as it is"."""

    mode: str
    uid: Optional[int]
    gid: Optional[int]


def wanted_mode(text: str, before: int) -> int:
    """The permission bits that `text` (`640`, `u+x,go=`) makes of the mode `before`. Raises UnableError."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return int(text, 8)
    bits = stat.S_IMODE(before)
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause.strip())
        if not found:
            raise UnableError(f"{text} is not a mode like 640 or u=rw,go=r.")
        who = set(found[1] or "a")
        for sign, letters in _ACTION.findall(found[2]):
            bits = _symbolic(bits, set("ugo") if "a" in who else who, sign, letters, before)
    return bits


def _symbolic(bits: int, who: Set[str], sign: str, letters: str, before: int) -> int:
    run = "X" in letters and (stat.S_ISDIR(before) or bits & 0o111)
    rights = ("r" in letters) * 4 | ("w" in letters) * 2 | (1 if "x" in letters or run else 0)
    mask, value = 0, 0
    for name in who:
        mask |= 7 << _SHIFTS[name]
        value |= rights << _SHIFTS[name]
    if "s" in letters:
        value |= stat.S_ISUID * ("u" in who) | stat.S_ISGID * ("g" in who)
    if "t" in letters:
        value |= stat.S_ISVTX
    if sign == "+":
        return bits | value
    return bits & ~value if sign == "-" else bits & ~mask | value


def _wish(call: MethodCall) -> Wish:
    mode, owner, group = call["mode"].strip(), call["owner"].strip(), call["group"].strip()
    if mode:
        wanted_mode(mode, 0)
    return Wish(mode, _number(owner, "user"), _number(group, "group"))


def _number(name: str, kind: str) -> Optional[int]:
    if not name or name.isdigit():
        return int(name) if name else None
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError as problem:
        raise UnableError(f"There is no {kind} {name}.") from problem


def _differences(path: str, wish: Wish, status: os.stat_result) -> List[str]:
    found = []
    mode = stat.S_IMODE(status.st_mode)
    if wish.mode and not stat.S_ISLNK(status.st_mode) and wanted_mode(wish.mode, status.st_mode) != mode:
        found.append(f"{path} has mode {mode:04o}; {wanted_mode(wish.mode, status.st_mode):04o} is expected.")
    if wish.uid is not None and wish.uid != status.st_uid:
        found.append(f"{path} belongs to user {status.st_uid}; {wish.uid} is expected.")
    if wish.gid is not None and wish.gid != status.st_gid:
        found.append(f"{path} belongs to group {status.st_gid}; {wish.gid} is expected.")
    return found


def _apply(path: str, wish: Wish, *, follow: bool) -> None:
    uid, gid = (-1 if number is None else number for number in (wish.uid, wish.gid))
    if not follow and os.path.islink(path):
        os.lchown(path, uid, gid)
        return
    if follow:
        system.resolved(path)
    # Through one descriptor, so that nobody can put a link in place between the look and the change.
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        mode, itself = os.fstat(descriptor).st_mode, f"/proc/self/fd/{descriptor}"
        if stat.S_ISLNK(mode):
            raise UnableError(f"{path} became a link while it was looked at.")
        if (uid, gid) != (-1, -1):
            os.chown(itself, uid, gid)
        if wish.mode:  # last: a change of owner clears the set-id bits
            os.chmod(itself, wanted_mode(wish.mode, mode))
    finally:
        os.close(descriptor)


#: Which paths a call is about; the first is the given path itself.
Choice = Callable[[MethodCall], Iterator[str]]


def _itself(call: MethodCall) -> Iterator[str]:
    yield call["path"]


def _directory_itself(call: MethodCall) -> Iterator[str]:
    if not os.path.isdir(call["path"]):
        raise UnableError(f"{call['path']} is not a directory.")
    yield call["path"]


def _everything(call: MethodCall) -> Iterator[str]:
    return trees.walk(call["path"], None)


def _directories(call: MethodCall) -> Iterator[str]:
    for path in trees.walk(next(_directory_itself(call)), None):
        if path == call["path"] or (os.path.isdir(path) and not os.path.islink(path)):
            yield path


def _of_type(call: MethodCall) -> Iterator[str]:
    test = _KINDS.get(call["type"].strip().lower())
    if test is None:
        raise UnableError(f"The parameter type must be one of {', '.join(_KINDS)}, not {call['type']}.")
    for path in trees.walk(call["path"], trees.depth(call["recursion"])):
        if test(os.lstat(path).st_mode):
            yield path


def _status(call: MethodCall, path: str) -> os.stat_result:
    return os.stat(path) if path == call["path"] else os.lstat(path)


def _audit(choose: Choice) -> outcome.Look:
    def audit(call: MethodCall) -> Finding:
        wish, count, differing = _wish(call), 0, 0
        found: List[str] = []  # a tree may hold millions
        for path in choose(call):
            count += 1
            differences = _differences(path, wish, _status(call, path))
            differing += len(differences)
            found += differences[: _SHOWN - len(found)] if len(found) < _SHOWN else []
        if not found:
            return outcome.compliant(f"Permissions of {count} {'path' if count == 1 else 'paths'} are as expected.")
        more = [f"... and {differing - len(found)} more."] if differing > len(found) else []
        return outcome.drift("\n".join(found + more))

    return audit


def _enforce(choose: Choice) -> outcome.Look:
    def enforce(call: MethodCall) -> Finding:
        wish, count = _wish(call), 0
        for path in choose(call):
            if _differences(path, wish, _status(call, path)):
                _apply(path, wish, follow=path == call["path"])
                count += 1
        return outcome.compliant(f"Permissions of {count} {'path' if count == 1 else 'paths'} were changed.")

    return enforce


def _register(name: str, choose: Choice, more: str = "") -> None:
    parameters = f"path mode? owner? group? {more}"
    register(name, parameters, _audit(choose), _enforce(choose), prefix="permissions")


_register("permissions", _itself)
_register("permissions_dirs", _directory_itself)
_register("permissions_recursive", _everything)
_register("permissions_dirs_recursive", _directories)
_register("permissions_type_recursion", _of_type, "type recursion")
