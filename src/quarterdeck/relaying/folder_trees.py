# SPDX-License-Identifier: Apache-2.0
"""Which files the shared folder has, or the directory with files of nodes, with their digests.

Relays mirror them: they ask for all that they may have, and for each by its digest. Nodes copy the shared folder: they
ask what is at a path.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

from quarterdeck.core.errors import Invalid, NotFound, QuarterdeckError
from quarterdeck.formats import relay_documents
from quarterdeck.formats.relay_documents import FileEntry, TreeDocument
from quarterdeck.relaying import shared_folder
from quarterdeck.relaying.complaints import Complaints
from quarterdeck.relaying.shared_folder import NotAFile, OpenedFile, SharedFolder

log = logging.getLogger(__name__)

#: The folder is not looked through more often, however many relays ask.
_FRESH_SECONDS = 2.0


class FolderTree:
    """The tree of one folder. Safe for threads.

    With `apart` each directory in it stands for itself: no link leads from one to another, and who asks names those
    that he may have.
    """

    def __init__(
        self,
        folder: SharedFolder,
        clock: Callable[[], float] = time.monotonic,
        *,
        apart: bool = False,
        name: str = "the shared folder",
    ) -> None:
        """`name` is how log lines call it."""
        self._folder = folder
        self._clock = clock
        self._within = 1 if apart else 0
        self._name = name
        self._lock = threading.Lock()
        self._made_at: float | None = None
        self._files: dict[tuple[str, ...], FileEntry] = {}
        self._document: bytes | None = None
        self._paths: dict[str, list[tuple[str, ...]]] = {}
        #: by path
        self._complaints = Complaints()

    def document(self, directories: Container[str] | None = None) -> bytes:
        """The tree as relays get it, or what of it is in some of its directories; at most two seconds old."""
        with self._lock:
            now = self._clock()
            if self._made_at is None or now - self._made_at > _FRESH_SECONDS:
                self._look()
                self._made_at = self._clock()
            if directories is None:
                self._document = self._document or _encoded(self._files)
                return self._document
            files = self._files
        return _encoded({parts: entry for parts, entry in files.items() if _is_in(directories, parts)})

    def open(self, digest: str, directories: Container[str] | None = None) -> OpenedFile:
        """A file with this SHA-256 (hex), in one of some directories, as of the last look; it may have changed since.

        Raises NotFound.
        """
        for parts in self._paths.get(digest, ()):
            if directories is None or _is_in(directories, parts):
                return self._folder.open(parts, within=self._within)
        raise NotFound(f"There is no file with this content in {self._name}.")

    def directories_with(self, digest: str) -> list[str]:
        """The directories that have a file with this SHA-256 (hex), as of the last look."""
        return list(dict.fromkeys(parts[0] for parts in self._paths.get(digest, ()) if len(parts) > 1))

    def _look(self) -> None:
        files: dict[tuple[str, ...], FileEntry] = {}
        paths: dict[str, list[tuple[str, ...]]] = {}
        for parts in self._walk():
            try:
                with self._folder.opened(parts, within=self._within) as file:
                    digest = self._folder.digest(file, "sha256").hex()
                    entry = FileEntry(sha256=digest, size=file.size, modified=file.modified_ns)
            except QuarterdeckError:
                continue  # no file, or gone meanwhile
            files[parts] = entry
            paths.setdefault(digest, []).append(parts)
        self._files, self._document, self._paths = files, None, paths

    def _walk(self) -> Iterator[tuple[str, ...]]:
        """The paths of all that could be asked for; links to directories are not followed."""
        root = self._folder.root
        for directory, _, names in os.walk(root):
            for name in names:
                path = os.path.relpath(os.path.join(directory, name), root)  # noqa: PTH118  # os.walk gives texts
                if _can_be_asked_for(path):
                    yield shared_folder.segments(path)
                elif self._complaints.are_news(path, "no path"):
                    log.warning("Relays do not get the file %r of %s: its name cannot be asked for.", path, self._name)


def _is_in(directories: Container[str], parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and parts[0] in directories


def _encoded(files: Mapping[tuple[str, ...], FileEntry]) -> bytes:
    return relay_documents.encode(TreeDocument({"/".join(parts): entry for parts, entry in files.items()}))


def below(folder: SharedFolder, parts: tuple[str, ...], levels: int | None) -> dict[str, str]:
    """What is at a path, and to `levels` below it (None: all), links to directories not followed.

    By path below it ("" for itself): the SHA-256 of a file in hex, or "" for a directory. Raises NotFound, and NotAFile
    for what is there and cannot be given; what cannot be given below it is left out.
    """
    try:
        return {"": _sha256(folder, parts)}
    except NotAFile:
        place = folder.root.joinpath(*parts)
        if not place.is_dir():
            raise
    found = {"": ""}
    waiting: list[tuple[tuple[str, ...], int | None]] = [((), levels)]
    while waiting:
        inside, left = waiting.pop()
        if left == 0:
            continue
        for name, is_directory in _entries(place.joinpath(*inside)):
            one = (*inside, name)
            if is_directory:
                found["/".join(one)] = ""
                waiting.append((one, None if left is None else left - 1))
                continue
            try:
                found["/".join(one)] = _sha256(folder, (*parts, *one))
            except QuarterdeckError:
                continue
    return found


def _entries(directory: Path) -> list[tuple[str, bool]]:
    """The names in a directory that can be asked for, and which are directories; none when it is gone meanwhile."""
    try:
        with os.scandir(directory) as entries:
            return [(one.name, one.is_dir(follow_symlinks=False)) for one in entries if _can_be_asked_for(one.name)]
    except OSError:
        return []


def _can_be_asked_for(path: str) -> bool:
    try:
        path.encode()
        shared_folder.segments(path)
    except (UnicodeEncodeError, Invalid):
        return False
    return True


def _sha256(folder: SharedFolder, parts: tuple[str, ...]) -> str:
    with folder.opened(parts) as file:
        return folder.digest(file, "sha256").hex()
