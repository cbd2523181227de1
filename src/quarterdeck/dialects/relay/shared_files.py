# SPDX-License-Identifier: Apache-2.0
"""Shared files chapter: files that one node gives to another, by way of the servers between them."""

from __future__ import annotations

import os

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.relay import version
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.relaying.shared_files import Address
from quarterdeck.web.operation import Answer, Excerpt, Request, Section

section = Section("Shared files", {"callers": Callers.NODES})

_PATH = "/shared-files/{target}/{source}/{file}"


@section.operation("headSharedFiles", "HEAD", _PATH, right=None, since=1, max_body=64 * 1024)
def head_shared_files(visit: Visit, request: Request) -> Answer:
    """Tell whether a file with this hash is there already: 200, or 404 when it must be sent."""
    word = _needed(request, "hash")
    found = visit.parts.files.look(_address(request), word)
    if found is True:
        return Answer()
    return Answer(status=404 if found is False else found)


@section.operation("putSharedFiles", "PUT", _PATH, right=None, since=1, stream_body=True)
def put_shared_files(visit: Visit, request: Request) -> Answer:
    """Share a file for a time; its signature says whose it is."""
    word = _needed(request, "ttl")
    assert request.body_file is not None
    passed = visit.parts.files.take(_address(request), word, request.body_file, vouched=visit.caller.upstream)
    return Answer(status=200 if passed is None else passed)


@section.operation(
    "getOwnSharedFiles",
    "GET",
    "/own-shared-files/{source}/{file}",
    right=None,
    since=1,
    max_body=64 * 1024,
    documented=False,
    callers=Callers.PROVEN,
)
def get_own_shared_files(visit: Visit, request: Request) -> Answer:
    """Fetch a file that another node shares with the node that asks."""
    assert visit.caller.node is not None
    source, file = (version.lossily(request.params[name]) for name in ("source", "file"))
    address = Address(target=visit.caller.node, source=NodeId(source), file=file)
    content, metadata = visit.parts.files.give(address)
    with content:
        descriptor = os.dup(content.fileno())
    excerpt = Excerpt(descriptor=descriptor, start=0, length=os.fstat(descriptor).st_size)
    headers = (("Content-Type", "application/octet-stream"), ("ETag", f'"{metadata.hash_value.hex()}"'))
    return Answer(headers=headers, body=excerpt)


def _needed(request: Request, name: str) -> str:
    """A parameter; without it there is no such operation, peers say."""
    if name not in request.query:
        raise NotFound(f"The parameter '{name}' is missing.")
    return request.first(name)


def _address(request: Request) -> Address:
    target, source, file = (version.lossily(request.params[name]) for name in ("target", "source", "file"))
    return Address(target=NodeId(target), source=NodeId(source), file=file)
