# SPDX-License-Identifier: Apache-2.0
"""Starting from the single file without compiling it anew at every run.

Python keeps no bytecode for what it imports from an archive, which costs a run 0.2 s. So the archive
unpacks itself once into the state directory, and every later start takes the modules from there.
Called by the archive's own `__main__`; anything unusual means that the archive itself is used.
"""

from __future__ import annotations

import os
import sys
import zipfile
from typing import List

_PACKAGE = __name__.partition(".")[0]
_LEFTOVER = ".new-"
_STATE_OPTION = "--state-dir"


def prefer_unpacked(archive: str, digest: str) -> None:
    """Let the modules not imported yet come from the unpacked copy of `archive`, made now if it is missing."""
    state = _state_directory(sys.argv[1:])
    if not _is_ours(state) or not os.path.exists(os.path.join(state, "node.id")):
        return
    library = os.path.join(state, "lib")
    target = os.path.join(library, digest)
    try:
        os.makedirs(library, mode=0o700, exist_ok=True)
        if not os.path.isdir(target):
            _unpack(archive, library, target)
        _remove_others(library, digest)
    except (OSError, zipfile.BadZipFile):
        return
    if _is_ours(library) and _is_ours(target):
        sys.modules[_PACKAGE].__path__ = [os.path.join(target, _PACKAGE)]


def _state_directory(arguments: List[str]) -> str:
    """The state directory the command line will turn out to mean; a wrong guess only costs time."""
    for number, argument in enumerate(arguments):
        if argument == _STATE_OPTION and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(_STATE_OPTION + "="):
            return argument.partition("=")[2]
    return os.environ.get("QUARTERDECK_AGENT_STATE") or "/var/lib/quarterdeck-agent"


def _is_ours(path: str) -> bool:
    """Whether only we can have written what is in the directory."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid == os.geteuid() and found.st_mode & 0o170022 == 0o040000


def _unpack(archive: str, library: str, target: str) -> None:
    """Write all sources beside, durably, then give the directory its name."""
    fresh = os.path.join(library, f"{_LEFTOVER}{os.getpid()}")
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            path = os.path.join(fresh, name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(members.read(name))
                stream.flush()
                os.fsync(stream.fileno())
    os.rename(fresh, target)


def _remove_others(library: str, digest: str) -> None:
    """Forget what other versions of the agent unpacked, and what a crash left, also a crash in here."""
    others = [name for name in os.listdir(library) if name != digest]
    if not others:
        return
    import shutil  # rarely needed

    for name in others:
        shutil.rmtree(os.path.join(library, name), ignore_errors=True)
