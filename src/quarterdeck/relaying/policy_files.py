# SPDX-License-Identifier: Apache-2.0
"""Files of one node each, and files for all nodes, below a share directory that a site fills by itself.

A relay has those of the server above besides, for its nodes. Where no archive of a node's policy lies, one is made of
the policy as the root signed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.errors import NotFound, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.relaying import resource_copies, shared_folder
from quarterdeck.relaying.copies import PolicyCopy
from quarterdeck.relaying.policy_archives import Archives
from quarterdeck.relaying.shared_folder import NotAFile, SharedFolder

#: The directory of the files for all nodes.
COMMON = "common"
#: Below a node's directory, the archive that is made where there is none.
ARCHIVE = "rules/dsc/rudder.zip"

_DIRECTORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HASH = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFile:
    """An open file; whoever has it closes `descriptor`. `tag` is the same as long as the content is."""

    descriptor: int
    size: int
    name: str
    tag: str
    #: None for what was made here
    modified_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """The share directory of one server; at a relay `mirrored` has what is not there. Safe for threads.

    `signed` gives the present policy of a node and raises NotAccepted when there is none, `resource` a file that this
    policy names, by its SHA-256; `archives` makes one of it.
    """

    share: SharedFolder
    signed: Callable[[NodeId], PolicyCopy]
    resource: Callable[[NodeId, str], bytes]
    archives: Archives
    mirrored: SharedFolder | None = None

    def open(self, node: NodeId, path: str) -> GivenFile:
        """A file of a node by its decoded path. Raises NotFound, Invalid, Unavailable, and what `signed` raises."""
        parts = shared_folder.segments(path)
        try:
            return self._opened(node, parts)
        except NotFound:
            if "/".join(parts) != ARCHIVE:
                raise
        return self._made(node)

    def open_common(self, path: str) -> GivenFile:
        """A file for all nodes by its decoded path. Raises NotFound, Invalid."""
        return self._opened(COMMON, shared_folder.segments(path))

    def _opened(self, directory: str, parts: tuple[str, ...]) -> GivenFile:
        if not _DIRECTORY.fullmatch(directory):
            raise NotFound("There is no such file.")
        try:
            return _given(self.share, (directory, *parts))
        except NotFound:
            if self.mirrored is None:
                raise
        return _given(self.mirrored, (directory, *parts))

    def _made(self, node: NodeId) -> GivenFile:
        try:
            policy = self.signed(node)
        except NotAccepted as error:
            raise NotFound(error.message) from error
        resources = ((digest, self.resource(node, digest)) for digest in sorted(resource_copies.names_of(policy.body)))
        try:
            made = self.archives.open(policy, resources)
        except OSError as error:
            raise Unavailable("The archive cannot be made here now.", detail=str(error)) from error
        name = ARCHIVE.rpartition("/")[2]
        return GivenFile(descriptor=made.descriptor, size=made.size, name=name, tag=made.digest)


def directories_for(nodes: Iterable[NodeId]) -> frozenset[str]:
    """The directories with files for any of some nodes."""
    return frozenset((*nodes, COMMON))


def _given(share: SharedFolder, parts: tuple[str, ...]) -> GivenFile:
    """A file whose directory is the first of the parts. Raises NotFound."""
    try:
        file = share.open(parts, within=1)
    except NotAFile as error:
        raise NotFound("There is no such file.", detail=error.message) from error
    try:
        tag = share.digest(file, _HASH).hex()
    except BaseException:
        file.close()
        raise
    return GivenFile(descriptor=file.descriptor, size=file.size, name=file.name, tag=tag, modified_ns=file.modified_ns)
