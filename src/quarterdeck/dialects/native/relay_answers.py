# SPDX-License-Identifier: Apache-2.0
"""What the server and relays answer alike, to relays and to machines that fetch the agent."""

from __future__ import annotations

from quarterdeck.dialects.native import envelope, signed_requests
from quarterdeck.formats import agent as documents
from quarterdeck.formats import relay_documents
from quarterdeck.relaying.agent_copies import AgentFile
from quarterdeck.relaying.shared_folder import OpenedFile
from quarterdeck.web import files
from quarterdeck.web.operation import Answer, Excerpt, Request


def tagged(request: Request, body: bytes) -> Answer:
    """A JSON document, or that the one that is known is still the present one."""
    tag = relay_documents.etag(body)
    if signed_requests.known_tag(request) == tag.strip('"'):
        return Answer(status=304, headers=(("ETag", tag),))
    return Answer(headers=(envelope.CONTENT_TYPE, ("ETag", tag)), body=body)


def agent(request: Request, file: AgentFile) -> Answer:
    """The agent as one file, or that the one that is known is still the present one."""
    tag = ("ETag", f'"{file.digest}"')
    if signed_requests.known_tag(request) == file.digest:
        return Answer(status=304, headers=(tag,))
    signed = ((documents.HEADER_SIGNATURE, file.signature),) if file.signature else ()
    return Answer(headers=(("Content-Type", "application/zip"), tag, *signed), body=file.body)


def content(request: Request, file: OpenedFile) -> Answer:
    """A file that is asked for by its digest."""
    excerpt = Excerpt(descriptor=file.descriptor, start=0, length=file.size)
    return files.answer(request, excerpt, file.modified_ns, "content")
