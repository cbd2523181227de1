# SPDX-License-Identifier: Apache-2.0
"""The envelope of every answer: action, id, result, then data or errorDetails, in this order."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.dialects.rudder import body
from quarterdeck.web.operation import Answer, Operation, Reply, Request

CONTENT_TYPE = ("Content-Type", "application/json; charset=utf-8")


def success(operation: Operation, request: Request, reply: Reply) -> Answer:
    """A reply under the operation's container (`wrap`), or as it is where the row has none."""
    wrap = operation.options.get("wrap")
    document: dict[str, Any] = {"action": reply.action or operation.name}
    if reply.id is not None:
        document["id"] = reply.id
    document["result"] = "success"
    document["data"] = {wrap: reply.data} if wrap else reply.data
    return _answer(200, request, document)


def error(status: int, request: Request, *, action: str | None, details: Any, id: str | None = None) -> Answer:  # noqa: A002
    """An error; `action` is None where not even the operation is known."""
    document: dict[str, Any] = {}
    if action is not None:
        document["action"] = action
    if id is not None:
        document["id"] = id
    document["result"] = "error"
    document["errorDetails"] = details
    return _answer(status, request, document)


def _answer(status: int, request: Request, document: Any) -> Answer:
    raw = msgspec.json.encode(document)
    if body.general(request, "prettify") == "true":
        raw = msgspec.json.format(raw, indent=2)
    return Answer(status=status, headers=(CONTENT_TYPE,), body=raw)
