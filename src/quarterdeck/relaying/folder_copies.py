# SPDX-License-Identifier: Apache-2.0
"""A relay's mirror of the shared folder, or of files of nodes: contents by their SHA-256, and trees of links to them.

    objects/ab/abcd…   contents, each fetched once        trees/ID/…   one state of all files, made of hard links
    tree.json          the state that is complete here    current      names the tree that is served

A state is served when it is whole: the switch is one rename. A file that cannot be fetched stays as it was, and does
not hold up the others. What a kill left over goes with the next round.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.technique_resources import is_digest
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.relay_documents import FileEntry, TreeDocument
from quarterdeck.relaying import kept_files, shared_folder
from quarterdeck.relaying.complaints import Complaints
from quarterdeck.relaying.contents import Contents
from quarterdeck.relaying.copies import fetched
from quarterdeck.relaying.links import Link
from quarterdeck.relaying.shared_folder import MOST_HASHES, SharedFolder

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Files of the server above: the paths of their tree and of their contents, and how log lines call them."""

    tree: str
    contents: str
    name: str


SHARED_FOLDER = Source(relay_documents.PATH_TREE, relay_documents.PATH_FILES, "the shared folder")
#: Of the nodes below, and for all: `policy_files.py` gives them out.
SHARE = Source(relay_documents.PATH_SHARE, relay_documents.PATH_SHARE, "the files of nodes")


class FolderCopy:
    """One mirror. `folder` is what is served; its root moves from state to state. For one thread."""

    def __init__(
        self, directory: Path, link: Link, source: Source = SHARED_FOLDER, most_hashes: int = MOST_HASHES
    ) -> None:
        """`most_hashes` as for `SharedFolder`."""
        self._directory = directory
        self._link = link
        self._source = source
        #: by path
        self._complaints = Complaints()
        self._objects, self._trees = Contents(directory / "objects"), directory / "trees"
        self._trees.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self.folder = SharedFolder(self._current() or _empty(self._trees), most_hashes)
        #: whoever began to open a file a moment ago still looks there
        self._before = self.folder.root

    def refresh(self) -> bool:
        """Fetch what changed; whether another state is served now. Raises Unavailable; then nothing changes."""
        known = kept_files.content(self._directory / "tree.json")
        body = fetched(self._link, self._source.tree, known)
        if body is None:
            return False
        wanted = self._checked(relay_documents.decode(body, TreeDocument).files)
        here, complete = self._fetch_all(wanted)
        # First, so that nobody takes a state for complete here once another one is served.
        (self._directory / "tree.json").unlink(missing_ok=True)
        changed = self._serve(here)
        if complete:
            kept_files.replace(self._directory / "tree.json", body)
        self._clean(here)
        return changed

    def _checked(self, files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
        """Those files whose path stays below the folder."""
        found: dict[str, FileEntry] = {}
        self._complaints.keep_only(files)
        for path, entry in files.items():
            if path and "/".join(_segments(path)) == path and is_digest(entry.sha256):
                found[path] = entry
            elif self._complaints.are_news(path, "no path"):
                log.warning("The file %r of %s above is left out: that is no path.", path, self._source.name)
        return found

    # -- contents ----------------------------------------------------------------------------

    def _fetch_all(self, wanted: Mapping[str, FileEntry]) -> tuple[dict[str, FileEntry], bool]:
        """What can be served of a state, and whether that is all of it. Raises Unavailable when nobody answers."""
        here: dict[str, FileEntry] = {}
        complete = True
        for path, entry in wanted.items():
            try:
                if not self._objects.has(entry.sha256):
                    self._fetch(entry)
                here[path] = entry
                if self._complaints.are_over(path):
                    log.info("The file %s of %s is here now.", path, self._source.name)
            except Unavailable as error:
                if self._link.rests:
                    raise
                if self._complaints.are_news(path, f"{entry.sha256} {error.message}"):
                    log.warning("The file %s of %s stays as it is here: %s", path, self._source.name, error.message)
                complete = False
                if (old := self._served(path)) is not None:
                    here[path] = old
        return here, complete

    def _fetch(self, entry: FileEntry) -> None:
        target = f"{self._source.contents}/{entry.sha256}"
        self._objects.fetch(self._link, target, entry.sha256, entry.size, modified_ns=entry.modified)

    def _served(self, path: str) -> FileEntry | None:
        """What is served at a path now, kept as an object again where that is needed."""
        try:
            with self.folder.opened(shared_folder.segments(path)) as file:
                digest = self.folder.digest(file, "sha256").hex()
                entry = FileEntry(sha256=digest, size=file.size, modified=file.modified_ns)
        except QuarterdeckError:
            return None
        return entry if self._objects.has(digest) else None

    # -- trees -------------------------------------------------------------------------------

    def _serve(self, files: Mapping[str, FileEntry]) -> bool:
        """Make a tree of these and serve it; False when it is the one that is served already."""
        name = agent.digest(relay_documents.encode(TreeDocument(dict(files))))[:32]
        place = self._trees / name
        if self._current() == place:
            return False
        if not place.exists():
            temporary = Path(tempfile.mkdtemp(prefix=kept_files.UNFINISHED, dir=self._trees))
            for path, entry in files.items():
                self._link_file(temporary, path, entry)
            temporary.rename(place)
        kept_files.replace(self._directory / "current", name.encode())
        self._before, self.folder.root = self.folder.root, place
        return True

    def _link_file(self, tree: Path, path: str, entry: FileEntry) -> None:
        target = tree.joinpath(*shared_folder.segments(path))
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(self._objects.path(entry.sha256), target)
        except (FileExistsError, NotADirectoryError):
            log.warning("The file %s of %s above is left out: its directory is a file, too.", path, self._source.name)

    def _current(self) -> Path | None:
        name = (kept_files.content(self._directory / "current") or b"").decode(errors="replace")
        place = self._trees / name
        return place if name and place.is_dir() else None

    # -- what nobody needs -------------------------------------------------------------------

    def _clean(self, files: Mapping[str, FileEntry]) -> None:
        """Remove other trees, and contents that no tree has. Who reads one now goes on reading."""
        for tree in self._trees.iterdir():
            if tree not in (self.folder.root, self._before):
                shutil.rmtree(tree, ignore_errors=True)
        self._objects.keep_only({entry.sha256 for entry in files.values()})

    def _sweep(self) -> None:
        kept_files.sweep(self._directory)
        for left in self._trees.glob(f"{kept_files.UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)


def _segments(path: str) -> Iterable[str]:
    try:
        return shared_folder.segments(path)
    except QuarterdeckError:
        return ()


def _empty(trees: Path) -> Path:
    place = trees / "empty"
    place.mkdir(mode=0o700, exist_ok=True)
    return place
