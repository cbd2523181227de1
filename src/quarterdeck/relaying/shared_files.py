# SPDX-License-Identifier: Apache-2.0
"""Files from one node to another: kept here for nodes served here, passed on towards the others, forgotten in time.

A file is kept with its metadata beside it, each there whole or not at all. Whose content it is, is proved by the
source's signature; the key must be the one that the nodes list has of the source.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from quarterdeck.core.errors import Invalid, NotFound, Unavailable
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.formats import durations, shared_file
from quarterdeck.formats.shared_file import Metadata
from quarterdeck.relaying.kept_files import sync_directory
from quarterdeck.relaying.nodes_list import Listing, NodesList

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9\-_.]+")
_MAX_ID = 200
_METADATA = ".metadata"
#: Before the names of files that are being written; no id has this character.
_UNFINISHED = "~"
#: What is left of a write that was killed goes after this time.
_LEFTOVER_SECONDS = 86_400.0


class Unprovable(Invalid):
    """What was sent does not prove whose it is, or cannot be read."""


class NoWay(Invalid):
    """The target is nowhere below this server, and there is no server above it to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """From whom, to whom, what. Ids are checked when it is made: raises Invalid."""

    target: NodeId
    source: NodeId
    file: str

    def __post_init__(self) -> None:
        for one in (self.target, self.source, self.file):
            if not _ID.fullmatch(one) or len(one) > _MAX_ID or one in (".", ".."):
                raise Invalid(f"'{one[:80]}' is no id of a node or a file.")
        if self.file.lower().endswith(_METADATA):
            raise Invalid(f"A file may not be called *{_METADATA}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """One request on its way to another relay; `to` is a relay below, or None for the server above."""

    to: NodeId | None
    address: Address
    #: hash or ttl as the source sent it
    word: str
    #: what is sent, from its beginning; None: only asked for
    body: IO[bytes] | None = None


#: Passes a request on and returns the status of the answer. Raises Unavailable.
Pass = Callable[[Passing], int]


class SharedFiles:
    """The files below one directory. Safe for threads. `pass_on` is None where there is no other relay to reach."""

    def __init__(
        self, root: Path, nodes: NodesList, pass_on: Pass | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self._nodes = nodes
        self._pass_on = pass_on
        self._clock = clock
        self._renaming = threading.Lock()

    def look(self, address: Address, hash_: str) -> bool | int:
        """Whether a file with this hash (lower-case hex) is there already, or the status that another relay answered.

        Raises NotFound when there is none, Unprovable when what is there cannot be read, NoWay, Unavailable.
        """
        listing = self._nodes.current()
        if not _is_here(listing, address.target):
            return self._elsewhere(listing, Passing(to=None, address=address, word=hash_))
        try:
            kept = shared_file.parse(_metadata_path(self._path(address)).read_bytes())
        except FileNotFoundError:
            raise NotFound("There is no such file.") from None
        except Invalid as error:
            raise Unprovable(f"The metadata that is kept cannot be read: {error.message}") from error
        return kept.hash_value.hex() == hash_

    def take(self, address: Address, ttl: str, body: IO[bytes], *, vouched: bool = False) -> int | None:
        """Keep a file, or pass it on: None when it is kept, else the status that another relay answered.

        `vouched`: it comes from our own policy server, which has checked the source, perhaps no node of ours.
        Raises NotFound for an unknown source or another's key, Unprovable, Invalid for the ttl, NoWay, Unavailable.
        """
        listing = self._nodes.current()
        here, hop = _is_here(listing, address.target), listing.topology.next_hop(address.target)
        if not here and hop is None:
            return self._elsewhere(listing, Passing(to=None, address=address, word=ttl, body=body))
        if not vouched and address.source not in listing.topology:
            raise NotFound("The source is no node of this server.")
        metadata = _proved(body, None if vouched else (listing, address.source))
        expires = int(self._clock() + durations.seconds(ttl))
        if not here:
            body.seek(0)
            return self._elsewhere(listing, Passing(to=hop, address=address, word=ttl, body=body))
        self._keep(address, metadata.until(expires), body)
        return None

    def give(self, address: Address) -> tuple[IO[bytes], Metadata]:
        """A file that is kept here, for its target; whoever has it closes it. Raises NotFound, Unprovable."""
        path = self._path(address)
        try:
            with self._renaming:  # content and metadata of the same delivery
                content, head = path.open("rb", buffering=0), _metadata_path(path).read_bytes()
        except FileNotFoundError:
            raise NotFound("There is no such file.") from None
        try:
            return content, shared_file.parse(head)
        except Invalid as error:
            content.close()
            raise Unprovable(f"The metadata that is kept cannot be read: {error.message}") from error

    def _elsewhere(self, listing: Listing, passing: Passing) -> int:
        target, top = passing.address.target, listing.topology
        hop = top.next_hop(target)
        if hop is None and (target in top or top.me == ROOT):
            raise NoWay(f"There is no way to the node {target}.")
        if self._pass_on is None:
            raise NoWay(f"This server cannot reach {f'the relay {hop}' if hop else 'the server above it'}.")
        return self._pass_on(Passing(to=hop, address=passing.address, word=passing.word, body=passing.body))

    def _path(self, address: Address) -> Path:
        return self.root / address.target / "files" / address.source / address.file

    def _keep(self, address: Address, metadata: Metadata, content: IO[bytes]) -> None:
        path = self._path(address)
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with _unfinished(path.parent) as (body, new_body), _unfinished(path.parent) as (head, new_head):
                shutil.copyfileobj(content, body, 256 * 1024)
                head.write(metadata.written())
                for one in (body, head):
                    one.flush()
                    os.fsync(one.fileno())
                with self._renaming:  # of two who bring the same file, the parts of one stay together
                    new_body.rename(path)
                    new_head.rename(_metadata_path(path))
            sync_directory(path.parent)
        except OSError as error:
            raise Unavailable("The file could not be kept.", detail=str(error)) from error

    def expire(self) -> int:
        """Remove every file whose time is over, and what writes left that were killed; how many files."""
        removed = 0
        for directory in self.root.glob("*/files/*"):
            for entry in list(os.scandir(directory)):
                path = Path(entry.path)
                if entry.name.startswith(_UNFINISHED):
                    self._remove_leftover(path)
                elif entry.name.endswith(_METADATA):
                    removed += self._remove_expired(path)
        return removed

    def _remove_expired(self, metadata: Path) -> bool:
        content = metadata.with_name(metadata.name.removesuffix(_METADATA))
        with self._renaming:
            try:
                expires = shared_file.parse(metadata.read_bytes()).expires
            except FileNotFoundError:
                return False
            except Invalid as error:
                log.warning("%s cannot be read, so it stays: %s", metadata, error.message)
                return False
            if expires is None or expires >= self._clock():
                return False
            content.unlink(missing_ok=True)
            metadata.unlink(missing_ok=True)
            return True

    def _remove_leftover(self, path: Path) -> None:
        try:
            if path.stat().st_mtime < self._clock() - _LEFTOVER_SECONDS:
                path.unlink()
        except FileNotFoundError:
            return


def _is_here(listing: Listing, target: NodeId) -> bool:
    return target in listing.topology.neighbours


def _metadata_path(path: Path) -> Path:
    return path.with_name(path.name + _METADATA)


@contextmanager
def _unfinished(directory: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file that goes away unless somebody renames it."""
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=_UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _proved(body: IO[bytes], known: tuple[Listing, NodeId] | None) -> Metadata:
    """The metadata of what was sent, when they prove it; `body` then stands at the content."""
    try:
        metadata = shared_file.read(body)
    except Invalid as error:
        raise Unprovable(f"The metadata cannot be read: {error.message}") from error
    if known is not None:
        _require_key(*known, metadata)
    digest = shared_file.content_digest(body, metadata.algorithm)
    if not metadata.signed(digest):
        raise Unprovable("The content is not what the source signed.")
    if digest != metadata.hash_value:
        raise Unprovable("The content has another hash than the metadata say.")
    return metadata


def _require_key(listing: Listing, source: NodeId, metadata: Metadata) -> None:
    node = listing.topology.nodes[source]
    if node.key_hash is None:
        raise Unprovable("No key of the source is known.")
    if not listing.is_key_of(source, metadata.public_key_der):
        raise NotFound("The key is not the source's.")
