# SPDX-License-Identifier: Apache-2.0
"""Remote runs on their way to a relay just below: one request, whose answer is read as long as it comes.

How that is done: `streams.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import Signer, Times
from quarterdeck.relaying.streams import Place

_PATH = "/rudder/relay-api/remote-run"
#: A little more than the longest run may take.
ANSWER_SECONDS = 3900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRunHops:
    """Asks relays just below; a `Hop` of `remote_runs.py`. One that never said where it is has its usual address."""

    addresses: Addresses
    signer: Signer
    #: of the relays whose clock is not ours
    times: dict[NodeId, Times] = field(default_factory=dict)

    async def __call__(
        self, relay: NodeId, listed: ListedNode, where: Literal["all", "nodes"], form: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """What the relay answers, as it comes. Raises Unavailable."""
        if listed.key_hash is None:
            raise Unavailable("its key is not known.")
        url, body = self.addresses.of(relay) or f"https://{listed.hostname}", urlencode(form).encode()
        place = Place(
            url=url,
            key_hash=listed.key_hash,
            signer=self.signer,
            read_seconds=ANSWER_SECONDS,
            times=self.times.setdefault(relay, Times()),
        )
        asking = place.ask("POST", f"{_PATH}/{where}", body, "application/x-www-form-urlencoded")
        async with aclosing(asking) as pieces:
            async for piece in pieces:
                yield piece
