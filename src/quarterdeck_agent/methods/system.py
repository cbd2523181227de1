# SPDX-License-Identifier: Apache-2.0
"""Where this machine's files and tools are: the one place that knows about another file root.

Absolute paths named by a policy are taken as they are; only the paths that methods know themselves
(/etc/passwd, /proc/sys, ...) go through `path()`, so that QUARTERDECK_AGENT_SYSROOT can point them
at a scratch directory. Nothing here runs a program; see processes.py.
"""

from __future__ import annotations

import os
import stat
from typing import List, Optional

SYSROOT = "QUARTERDECK_AGENT_SYSROOT"

#: Searched after PATH on a real root: timers and cron often start the agent with a short PATH.
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


#: Links that one path may lead through.
MAX_LINKS = 40


class UnableError(Exception):
    """A method cannot look or act; the text is one sentence fit for a report."""


def sysroot() -> str:
    """The scratch root, without slash at its end; empty on the real machine."""
    return os.environ.get(SYSROOT, "").rstrip("/")


def path(absolute: str) -> str:
    """Where the file that this machine knows as `absolute` really is."""
    return sysroot() + absolute


def resolved(path: str) -> str:
    """The absolute path with its links followed, as `os.path.realpath` does, but only where nobody is led astray.

    A link is followed when root or this user made it, or the owner of what it points to. Otherwise whoever may write
    to a directory could let the agent, which is root, change files of others. Raises UnableError, OSError.
    """
    real, rest, links = "/", path.split("/")[::-1], 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        candidate = os.path.dirname(real) if name == ".." else os.path.join(real, name)
        try:
            status = os.lstat(candidate)
        except FileNotFoundError:
            return os.path.normpath(os.path.join(candidate, *reversed(rest)))
        if not stat.S_ISLNK(status.st_mode):
            real = candidate
            continue
        links += 1
        if links > MAX_LINKS:
            raise UnableError(f"{path} leads through too many links.")
        if status.st_uid not in (0, os.geteuid(), _owner(candidate)):
            raise UnableError(f"{candidate} is a link to a file of somebody else, made by user {status.st_uid}.")
        target = os.readlink(candidate)
        real = "/" if target.startswith("/") else real
        rest += target.split("/")[::-1]
    return real


def _owner(path: str) -> int:
    """Who owns what the link points to; nobody when there is nothing."""
    try:
        return os.stat(path).st_uid
    except FileNotFoundError:
        return -1


def search_path() -> List[str]:
    """Directories to look for programs in: PATH, on the real root also the usual system directories."""
    directories = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    if not sysroot():
        directories += [entry for entry in SYSTEM_DIRECTORIES if entry not in directories]
    return directories


def find_tool(*names: str) -> Optional[str]:
    """Full path of the first of the programs `names` that can be executed; None when none can."""
    for name in names:
        for directory in search_path():
            candidate = os.path.join(directory, name)
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
    return None


def tool(*names: str) -> str:
    """Like `find_tool`; raises UnableError, naming the programs, when there is none."""
    found = find_tool(*names)
    if found is None:
        raise UnableError(f"This node has no {' or '.join(names)} program.")
    return found
