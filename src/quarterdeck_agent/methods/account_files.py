# SPDX-License-Identifier: Apache-2.0
"""The local accounts and groups as /etc/passwd, /etc/group and /etc/shadow tell them, and changes to them.

Directory services are not asked: what they serve is not this node's to change. Changes go through
the system's own tools, except password hashes, which would show in the list of processes; they are
written into /etc/shadow under the lock that those tools use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Set

from quarterdeck_agent.methods import contents, processes, system
from quarterdeck_agent.methods.system import UnableError

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]*\$?")

#: Seconds to wait for somebody else who is changing accounts.
LOCK_SECONDS = 15


class User(NamedTuple):
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


class Group(NamedTuple):
    """A line of /etc/group."""

    name: str
    gid: int
    members: List[str]


def checked(name: str) -> str:
    """The name, when it can be one of an account or group. Raises UnableError."""
    if not _NAME.fullmatch(name):
        raise UnableError(f"{name} is not the name of an account or group.")
    return name


def user(name: str) -> Optional[User]:
    """The local account of that name."""
    fields = _rows("/etc/passwd", 7).get(checked(name))
    if fields is None:
        return None
    return User(fields[0], int(fields[2]), int(fields[3]), fields[4], fields[5], fields[6])


def groups() -> Dict[str, Group]:
    """All local groups by name."""
    rows = _rows("/etc/group", 4).values()
    return {row[0]: Group(row[0], int(row[2]), [one for one in row[3].split(",") if one]) for row in rows}


def groups_of(account: User) -> Set[str]:
    """Names of the groups of an account, its primary group included."""
    return {one.name for one in groups().values() if account.name in one.members or one.gid == account.gid}


def password_hash(name: str) -> str:
    """What /etc/shadow has for an account; never to be shown. Raises UnableError."""
    fields = _rows("/etc/shadow", 9).get(checked(name))
    if fields is None:
        raise UnableError(f"{name} has no entry in /etc/shadow.")
    return fields[1]


def act(program: str, *arguments: str) -> None:
    """Run useradd, usermod and the like on this node's files. Raises UnableError."""
    prefix = ["--prefix", system.sysroot()] if system.sysroot() else []
    processes.act(system.tool(program), *prefix, *arguments)


def set_password_hash(name: str, wanted: str) -> None:
    """Put a hash into /etc/shadow, changed today. Raises UnableError, OSError."""
    path = system.path("/etc/shadow")
    with _locked():
        lines = (contents.read(path) or b"").decode("utf-8", "surrogateescape").split("\n")
        for number, line in enumerate(lines):
            fields = line.split(":")
            if fields[0] == name and len(fields) == 9:
                fields[1:3] = [wanted, str(int(time.time() // 86400))]
                lines[number] = ":".join(fields)
        contents.write(path, "\n".join(lines).encode("utf-8", "surrogateescape"), None)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock of lckpwdf(3), which every tool that changes accounts takes first."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(system.path("/etc/.pwd.lock"), flags, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as problem:
                if time.monotonic() > deadline:
                    raise UnableError("Somebody else is changing the accounts of this node.") from problem
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _rows(path: str, width: int) -> Dict[str, List[str]]:
    data = contents.read(system.path(path))
    if data is None:
        raise UnableError(f"{path} does not exist.")
    rows = (line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    return {row[0]: row for row in rows if len(row) == width and not row[0].startswith(("#", "+", "-"))}
