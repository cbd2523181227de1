# SPDX-License-Identifier: Apache-2.0
"""A relay's mirror of the files of techniques: what the policies of the nodes below it name, by SHA-256.

A node gets what its own policy names and nothing else, so that a relay gives no more than the server would. The
policies are copies of what the root signed (`copies.py`); nodes verify that, and the digest of each content.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.technique_resources import is_digest
from quarterdeck.formats import relay_documents
from quarterdeck.relaying.complaints import Complaints
from quarterdeck.relaying.contents import Contents
from quarterdeck.relaying.copies import PolicyCopies, PolicyCopy
from quarterdeck.relaying.links import Link

log = logging.getLogger(__name__)


class _Resource(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class _Item(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...] = ()


class _Policy(msgspec.Struct, frozen=True):
    """What counts of a policy here."""

    policies: tuple[_Item, ...] = ()


class ResourceCopies:
    """One mirror: rounds use the link `mirrored`, requests of nodes `for_nodes`. Safe for threads."""

    def __init__(self, directory: Path, policies: PolicyCopies, *, mirrored: Link, for_nodes: Link) -> None:
        self._contents = Contents(directory)
        self._policies = policies
        self._mirrored = mirrored
        self._for_nodes = for_nodes
        #: of each node, the configuration that was read last, and what it names: digest -> bytes
        self._named: dict[str, tuple[str, Mapping[str, int]]] = {}
        #: by digest
        self._complaints = Complaints()

    def open(self, node: NodeId, digest: str) -> tuple[int, int]:
        """A content that the policy of a node names: its file's descriptor, for the caller to close, and its length.

        It is fetched when it is not here. Raises NotFound when the policy does not name it, Unavailable.
        """
        size = self._names(node, self._policies.kept(node)).get(digest)
        if size is None:
            size = self._names(node, self._policies.fetch(node)).get(digest)
        return self._open(digest, size)

    def content(self, node: NodeId, digest: str) -> bytes:
        """The same, read."""
        descriptor, _ = self.open(node, digest)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def open_for(self, nodes: Iterable[NodeId], digest: str) -> tuple[int, int]:
        """The same for a relay: one that the policy of some node below it names."""
        some = list(nodes)
        # What was read lately answers mostly; only then are all policies read anew.
        lately = (read[1].get(digest) for node in some if (read := self._named.get(node)) is not None)
        anew = (self._names(node, self._policies.kept(node)).get(digest) for node in some)
        return self._open(digest, next((size for size in itertools.chain(lately, anew) if size is not None), None))

    def refresh(self) -> int:
        """Fetch what the policies name and is not here, and forget what none names; how many came.

        Raises Unavailable when nobody answers; one that cannot be had does not hold up the others.
        """
        # In this order: what a node asks for meanwhile is not among those that may go.
        before = self._contents.digests()
        wanted = self._all_named()
        self._contents.keep_only(wanted, before)
        self._complaints.keep_only(wanted)
        return sum(self._is_new_here(digest, size) for digest, size in wanted.items())

    def _is_new_here(self, digest: str, size: int) -> bool:
        """Fetch a content unless it is here; whether it came now. Raises Unavailable when nobody answers."""
        came = not self._contents.has(digest)
        try:
            if came:
                self._fetch(self._mirrored, digest, size)
        except Unavailable as error:
            if self._mirrored.rests:
                raise
            if self._complaints.are_news(digest, error.message):
                log.warning("The resource %s is not here yet: %s", digest, error.message)
            return False
        if self._complaints.are_over(digest):
            log.info("The resource %s is here now.", digest)
        return came

    # -- what policies name --------------------------------------------------------------------

    def _all_named(self) -> dict[str, int]:
        found: dict[str, int] = {}
        wanted = self._policies.wanted()
        for node, config_id in wanted.items():
            read = self._named.get(node)
            if read is not None and read[0] == config_id:
                found.update(read[1])
            else:
                found.update(self._names(NodeId(node), self._policies.kept(NodeId(node))))
        for node in self._named.keys() - wanted.keys():
            self._named.pop(node, None)
        return found

    def _names(self, node: NodeId, copy: PolicyCopy | None) -> Mapping[str, int]:
        if copy is None:
            return {}
        read = self._named.get(node)
        if read is None or read[0] != copy.config_id:
            read = self._named[node] = copy.config_id, names_of(copy.body)
        return read[1]

    # -- contents ------------------------------------------------------------------------------

    def _open(self, digest: str, size: int | None) -> tuple[int, int]:
        if size is None:
            raise NotFound(f"No policy of yours names the resource {digest[:64]}.")
        if not self._contents.has(digest):
            self._fetch(self._for_nodes, digest, size)
        try:
            return os.open(self._contents.path(digest), os.O_RDONLY | os.O_CLOEXEC), size
        except OSError as error:
            raise Unavailable(f"The resource cannot be read here: {error.strerror}.", detail=str(error)) from error

    def _fetch(self, link: Link, digest: str, size: int) -> None:
        self._contents.fetch(link, f"{relay_documents.PATH_RESOURCES}/{digest}", digest, size)


def names_of(body: bytes) -> dict[str, int]:
    """Digest and length of each resource in a policy's document; none of what is no policy of ours."""
    if b'"resources":' not in body:
        return {}
    try:
        document = msgspec.json.decode(body, type=_Policy)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}  # no policy of ours; nodes refuse it, too
    return {one.sha256: one.size for item in document.policies for one in item.resources if is_digest(one.sha256)}
