# SPDX-License-Identifier: Apache-2.0
"""Shared folder chapter: files that every node may have, and whether a node's copy is still the same."""

from __future__ import annotations

from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.dialects.relay import version
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.formats import agent, relay_documents
from quarterdeck.formats.nodes_list import ALGORITHMS
from quarterdeck.relaying import folder_trees, shared_folder
from quarterdeck.relaying.shared_folder import NotAFile, OpenedFile
from quarterdeck.web import files
from quarterdeck.web.operation import Answer, Excerpt, Request, Section

section = Section("Shared folder", {"callers": Callers.PROVEN, "max_body": 64 * 1024})

_INDEX = "index.html"
_DEFAULT_ALGORITHM = "sha256"


@section.operation("headSharedFolder", "HEAD", "/shared-folder/{path}", right=None, since=1)
def head_shared_folder(visit: Visit, request: Request) -> Answer:
    """Tell whether a file is there, and whether it differs from the one that has this hash."""
    parts = shared_folder.segments(version.exactly(request.params["path"]))
    with visit.parts.folder.opened(parts) as file:
        wanted = request.first("hash")
        if not wanted:
            return Answer()
        algorithm = request.first("hash_type") or _DEFAULT_ALGORITHM
        same = _digest(wanted, algorithm) == visit.parts.folder.digest(file, algorithm)
        return Answer(status=304 if same else 200)


def _digest(text: str, algorithm: str) -> bytes:
    if algorithm not in ALGORITHMS:
        raise Invalid(f"Invalid hash type: {algorithm[:40]}, expected one of {', '.join(ALGORITHMS)}")
    try:
        digest = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        digest = b""
    if len(digest) != ALGORITHMS[algorithm]:
        raise Invalid(f"Invalid hash: not {ALGORITHMS[algorithm]} bytes in hexadecimal")
    return digest


@section.operation("getSharedFolder", "GET", "/shared-folder/{path}", right=None, since=1)
def get_shared_folder(visit: Visit, request: Request) -> Answer:
    """Download a file, or a part of it."""
    try:
        parts = shared_folder.segments(version.exactly(request.params["path"]))
        file = _opened(visit, parts)
    except Invalid as error:
        raise NotFound(error.message, detail=error.detail) from error
    excerpt = Excerpt(descriptor=file.descriptor, start=0, length=file.size)
    return files.answer(request, excerpt, file.modified_ns, file.name)


@section.operation("listSharedFolder", "GET", "/shared-folder-tree/{path}", right=None, since=1, documented=False)
def list_shared_folder(visit: Visit, request: Request) -> Answer:
    """List what is at a path and some levels below it (`depth`: a number, or inf), with the SHA-256 of each file."""
    try:
        parts = shared_folder.segments(version.exactly(request.params["path"]))
        entries = folder_trees.below(visit.parts.folder, parts, _levels(request.first("depth")))
    except NotAFile as error:
        raise NotFound(error.message, detail=error.detail) from error
    listing: agent.FolderListing = {"entries": entries}
    return Answer(headers=(("Content-Type", "application/json"),), body=relay_documents.encode(listing))


def _levels(text: str) -> int | None:
    if text == "inf":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10) and text:
        raise Invalid("The depth must be a number, or inf.")
    return int(text or "0")


def _opened(visit: Visit, parts: tuple[str, ...]) -> OpenedFile:
    """A file, or what stands for a directory."""
    try:
        return visit.parts.folder.open(parts)
    except NotAFile:
        return visit.parts.folder.open((*parts, _INDEX))
