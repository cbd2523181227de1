# SPDX-License-Identifier: Apache-2.0
"""Files that come with techniques: fetched once by their SHA-256, and a directory of them for each technique.

    resources/contents/<sha256>    resources/trees/<technique>/<version>/<path>, hard links to contents

What is here is checked anew before each run, for methods execute it; what the policy does not name goes. Whatever
cannot be had is the problem of the techniques that it belongs to, and of nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from typing import IO, Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from quarterdeck_agent import storing
from quarterdeck_agent.documents import PATH_RESOURCES, Policy, Resource
from quarterdeck_agent.errors import AgentError, Refused

#: Id and version of a technique.
Key = Tuple[str, str]
#: Writes what is at a path of the server into a stream. Raises AgentError.
Download = Callable[[str, IO[bytes]], None]

_DIRECTORY = "resources"
_PIECE_BYTES = 256 * 1024


class Place(NamedTuple):
    """Where the files of one technique are."""

    directory: str
    #: Why they cannot be used; empty when they can.
    problem: str = ""


class LaidOut(NamedTuple):
    """All techniques with files; `refused`: the server did not want to give one, perhaps because the policy is old."""

    places: Dict[Key, Place]
    refused: bool


class Missing(Exception):
    """A content that cannot be had now."""


def lay_out(state: str, policy: Policy, download: Optional[Download], reason: str = "") -> LaidOut:
    """Fetch what is missing, make the directories, remove what is not needed any more. Only with the run lock.

    `download` is None when there is nobody to ask; `reason` then says why.
    """
    wanted = _wanted(policy)
    here = os.path.join(state, _DIRECTORY)
    if not wanted and not os.path.isdir(here):
        return LaidOut({}, refused=False)
    contents = _Contents(os.path.join(here, "contents"), download, reason)
    trees = os.path.join(here, "trees")
    places = {key: _placed(key, files, os.path.join(trees, *key), contents) for key, files in wanted.items()}
    with contextlib.suppress(OSError):  # what stays now goes another time
        _tidy(trees, wanted)
        contents.keep_only({one["sha256"] for files in wanted.values() for one in files.values()})
    return LaidOut(places, contents.refused)


def _wanted(policy: Policy) -> Dict[Key, Dict[str, Resource]]:
    found: Dict[Key, Dict[str, Resource]] = {}
    for item in policy["policies"]:
        files = item.get("resources")
        if files:
            found[item["technique"], item["version"]] = {one["path"]: one for one in files}
    return found


def _placed(key: Key, files: Mapping[str, Resource], directory: str, contents: _Contents) -> Place:
    at = ""
    try:
        sources = {}
        for at, one in files.items():
            sources[at] = contents.path(one)
        if not _is_laid_out(directory, sources):
            _build(directory, sources)
    except (Missing, OSError) as error:
        what = f"The resource {at} of technique {key[0]} {key[1]} is not here"
        return Place(directory, f"{what}: {error}")
    return Place(directory)


# -- contents ------------------------------------------------------------------------------------


class _Contents:
    """The contents that are here, each checked once."""

    def __init__(self, directory: str, download: Optional[Download], reason: str) -> None:
        self._directory = directory
        self._download = download
        self._reason = reason
        self._known: Dict[str, str] = {}
        self.refused = False

    def path(self, wanted: Resource) -> str:
        """The file with a content, fetched when it is not here as it should be. Raises Missing, OSError."""
        digest = wanted["sha256"]
        path = os.path.join(self._directory, digest)
        if digest not in self._known:
            if _digest(path) != digest:
                self._fetch(wanted, path)
            self._known[digest] = path
        return path

    def _fetch(self, wanted: Resource, path: str) -> None:
        if self._download is None:
            raise Missing(self._reason or "It was not fetched.")
        _make(self._directory)
        fresh = os.path.join(self._directory, f"{storing.LEFTOVER_PREFIX}{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                checked = _Checked(stream, wanted["size"])
                self._ask(wanted["sha256"], checked)
                checked.require(wanted["sha256"])
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(fresh, path)
        finally:
            storing.remove(fresh)
        storing.sync_directory(self._directory)

    def _ask(self, digest: str, target: Any) -> None:
        assert self._download is not None
        try:
            self._download(f"{PATH_RESOURCES}/{digest}", target)
        except Refused as error:
            self.refused = True
            raise Missing(str(error)) from error
        except AgentError as error:
            self._download, self._reason = None, str(error)  # the next one would only wait as long
            raise Missing(str(error)) from error

    def keep_only(self, digests: Any) -> None:
        """Remove all others."""
        for name in os.listdir(self._directory) if os.path.isdir(self._directory) else ():
            if name not in digests:
                storing.remove(os.path.join(self._directory, name))


class _Checked:
    """A stream that takes no more bytes than it was promised, and knows their digest."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._left -= len(piece)
        if self._left < 0:
            raise Missing("The server sent more than it has.")
        self._digest.update(piece)
        return self._stream.write(piece)

    def require(self, digest: str) -> None:
        """Raises Missing when it is another content."""
        if self._digest.hexdigest() != digest:
            raise Missing("What the server sent is another content.")


def _digest(path: str) -> str:
    """The SHA-256 of a regular file; empty when there is none."""
    if not os.path.isfile(path) or os.path.islink(path):
        return ""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(_PIECE_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


# -- directories ---------------------------------------------------------------------------------


def _is_laid_out(directory: str, sources: Mapping[str, str]) -> bool:
    """Whether a directory has exactly these files, each the very file of its content."""
    found = {}
    for at, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(at, name))]
        for name in [*names, *links]:
            found[os.path.relpath(os.path.join(at, name), directory)] = os.path.join(at, name)
    if found.keys() != sources.keys():
        return False
    return all(os.path.samestat(os.lstat(found[path]), os.lstat(source)) for path, source in sources.items())


def _build(directory: str, sources: Mapping[str, str]) -> None:
    """Make a directory anew; a crash leaves the old one, none, or the new one."""
    fresh = f"{directory}{storing.LEFTOVER_PREFIX}"
    _remove(fresh)
    _make(fresh)
    for path, source in sources.items():
        target = os.path.join(fresh, path)
        _make(os.path.dirname(target))
        os.link(source, target)
    _remove(directory)
    os.rename(fresh, directory)


def _tidy(trees: str, wanted: Mapping[Key, object]) -> None:
    """Remove the directories of techniques that the policy does not have, and what a crash left."""
    for technique in os.listdir(trees) if os.path.isdir(trees) else ():
        at = os.path.join(trees, technique)
        versions = [version for name, version in wanted if name == technique]
        if not versions:
            _remove(at)
            continue
        for version in os.listdir(at):
            if version not in versions:
                _remove(os.path.join(at, version))


def _make(directory: str) -> None:
    """Make a directory, and those above it, for nobody else."""
    if not os.path.isdir(directory):
        _make(os.path.dirname(directory))
        os.mkdir(directory, 0o700)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        storing.remove(path)
