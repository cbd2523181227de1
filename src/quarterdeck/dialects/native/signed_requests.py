# SPDX-License-Identifier: Apache-2.0
"""What agents say about themselves in the headers of a request. Nothing of it is believed here.

The server and relays, which have no database, read it alike.
"""

from __future__ import annotations

from quarterdeck.core.agent_requests import Signed
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, signature
from quarterdeck.web.operation import Request


def read(request: Request) -> Signed:
    """What the request claims. Raises Unauthenticated when it lacks a header."""
    names = (agent.HEADER_NODE, agent.HEADER_TIME, agent.HEADER_NONCE, agent.HEADER_SIGNATURE)
    values = [request.headers.get(name.lower(), "") for name in names]
    for name, value in zip(names, values, strict=True):
        if not value:
            raise Unauthenticated(f"The request lacks the header {name}; requests of agents are signed.")
    node, moment, nonce, signed = values
    message = agent.request_message(request.method, request.target, node, moment, nonce, request.body)
    return Signed(
        node=NodeId(node), time=moment, nonce=nonce, signature=signature.decode_base64(signed), message=message
    )


def known_tag(request: Request) -> str:
    """The tag in If-None-Match, without its quotes; empty when there is none."""
    return request.headers.get("if-none-match", "").strip().removeprefix("W/").strip('"')
