# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the web room: an operation is a row on its handler; requests and replies are values.

No dialect's grammar here, and nothing that reads a socket (`runner.py`) or chooses a route (`router.py`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a multipart body."""

    name: str
    filename: str
    content: bytes


@dataclass(kw_only=True)
class Request:
    """One request, read completely. `params` are the path's; `query` keeps repeated keys in order."""

    method: str
    #: the path as the client sent it, with the query string
    target: str
    params: Mapping[str, str]
    query_string: str
    #: names in lower case; repeated headers joined by a comma
    headers: Mapping[str, str]
    body: bytes = b""
    #: the body of an operation whose row says `stream_body`, at its beginning; closed when the answer is made
    body_file: IO[bytes] | None = None
    #: SHA-256 of what is in `body_file`
    body_digest: str = ""
    version: int = 0
    request_id: str = ""
    #: http or https, as the client speaks it
    scheme: str = "http"
    #: address of the client, or of the last proxy
    client: str = ""
    #: what the dialect decoded once and wants to find again
    memo: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query string's values by key."""
        return group_pairs(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def path(self) -> str:
        """The path as the client sent it. What logs show: queries may hold tokens and secret values."""
        return self.target.partition("?")[0]

    @property
    def content_type(self) -> str:
        """The media type of the body, lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def first(self, key: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(key, [default])[0]


def group_pairs(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Pairs as lists of values by key, order kept."""
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


@dataclass(slots=True, kw_only=True)
class Excerpt:
    """Bytes of an open file, which whoever writes them closes."""

    descriptor: int
    start: int
    length: int

    def close(self) -> None:
        """Let the file go; once is enough."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes on the wire: header names are sent spelled as given; a body is bytes, a file or a source."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Path | Excerpt | AsyncIterator[bytes] = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler says; the dialect makes an Answer of it. `id` and `action` override what the row says."""

    data: Any = None
    id: str | None = None
    action: str | None = None


#: What it gets first is what its dialect's edge gives: accounts' dialects a service's context, a relay something less.
Handler = Callable[[Any, Any], Reply | Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of a dialect's API table."""

    name: str
    method: str
    path: str
    #: the right it needs; None: no login is needed
    right: str | None
    handler: Handler
    section: str
    #: first sentence of the handler's docstring
    summary: str
    #: msgspec type of the body, for decoding and for the OpenAPI document
    body: type | None = None
    #: the version of the API that brought it
    since: int = 2
    #: False for what is served beside the published reference
    documented: bool = True
    #: words that only the dialect understands
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/"))


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of a dialect: collects the operations declared on its handlers."""

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def operation(
        self,
        name: str,
        method: str,
        path: str,
        *,
        right: str | None,
        body: type | None = None,
        since: int = 2,
        documented: bool = True,
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Declare a handler's row: the decorator line is the API table."""

        def declare(handler: Handler) -> Handler:
            row = Operation(
                name=name,
                method=method,
                path=path,
                right=right,
                handler=handler,
                section=self.title,
                summary=(handler.__doc__ or "").strip().partition("\n")[0],
                body=body,
                since=since,
                documented=documented,
                options={**self.options, **options},
            )
            self.operations.append(row)
            return handler

        return declare
