# SPDX-License-Identifier: Apache-2.0
"""A run of one node's agent, asked of the server that a worker belongs to, which finds the way to the node.

It is asked as relays are asked (`remote_run_hops.py`), and answers a line of JSON for each thing that happens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from urllib.parse import urlencode

import msgspec

from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import KeyHash
from quarterdeck.core.remote_runs import Form, Order, Printed, RunEnd, Wanted
from quarterdeck.formats import nodes_list
from quarterdeck.relaying.links import Signer, Times
from quarterdeck.relaying.remote_run_hops import ANSWER_SECONDS
from quarterdeck.relaying.streams import Place

_PATH = "/rudder/relay-api/remote-run/nodes"
_FORM = "application/x-www-form-urlencoded"


class _Line(msgspec.Struct):
    """What `remote_runs.py` tells of a node, or of a relay on the way to it."""

    node: str
    hostname: str
    text: str | None = None
    status: int | None = None
    problem: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRuns:
    """Runs that another server finds the way for."""

    url: str
    key_hash: KeyHash
    signer: Signer
    #: its clock
    times: Times = field(default_factory=Times)

    async def run(self, node: NodeId, order: Order) -> AsyncGenerator[Printed | RunEnd, None]:
        """What the agent prints, and at last how it ended. Never raises for what happens on the way.

        A run goes on when nobody reads any more.
        """
        wanted = Wanted(nodes=(node,), conditions=order.conditions, audit=order.audit, keep_output=True, form=Form.JSON)
        place = Place(
            url=self.url, key_hash=self.key_hash, signer=self.signer, read_seconds=ANSWER_SECONDS, times=self.times
        )
        told = False
        try:
            body = urlencode(wanted.fields((node,))).encode()
            async with aclosing(place.lines("POST", _PATH, body, _FORM)) as lines:
                async for line in lines:
                    told = True
                    event = _decode(line, node)
                    yield event
                    if isinstance(event, RunEnd):
                        return
            yield RunEnd(problem="its end was not told." if told else "it is not below this server.")
        except QuarterdeckError as error:
            yield RunEnd(problem=error.message)


def own(url: str, pin: str, signer: Signer) -> PolicyRuns:
    """The runs of the server that one belongs to, by the pin of its key; plain HTTP shows none."""
    return PolicyRuns(url=url, key_hash=nodes_list.key_hash(pin) or KeyHash("sha256", b""), signer=signer)


def _decode(text: bytes, node: NodeId) -> Printed | RunEnd:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except msgspec.MsgspecError as error:
        raise Invalid("What is told of the run cannot be read.", detail=str(error)) from error
    if line.text is not None:
        return Printed(line.text)
    problem = line.problem
    if problem and line.node != node:
        problem = f"it is behind the relay {line.hostname}: {problem}"
    return RunEnd(status=line.status, problem=problem, via=line.via)
