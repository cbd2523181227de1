# SPDX-License-Identifier: Apache-2.0
"""Reports and inventories that relays bring, many at once: verified with the keys of the nodes that made them.

A batch may come twice, since a relay that was killed does not know what was acknowledged: a run is known by its node
and its beginning, an inventory by its content.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from quarterdeck.core.agent_requests import Signed, UnknownNode
from quarterdeck.core.errors import Conflict, Invalid, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.formats import agent, relay_documents, report_files, signature
from quarterdeck.formats.relay_documents import Refused, Slip, Taken
from quarterdeck.relaying.spool import Spool
from quarterdeck.services import inventories, relays, reports
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context
from quarterdeck.storage.agent_requests import KnownKey

log = logging.getLogger(__name__)


class _Stranger(Invalid):
    """The parcel is of nobody below this relay."""


def receive(ctx: Context, gate: Gate, spool: Spool, signed: Signed, body: bytes) -> Taken:
    """Take a batch; reports are durable when this returns, inventories with the transaction.

    Raises the errors of `relays.admit`, Invalid when the batch itself cannot be read, Unavailable.
    """
    relay = relays.admit(ctx, gate, signed)
    refused: list[Refused] = []
    opened: list[tuple[int, Slip, bytes]] = []
    for position, record in enumerate(relay_documents.unpack_batch(body)):
        try:
            opened.append((position, *relay_documents.unpack_slip(record)))
        except Invalid as error:
            refused.append(Refused(position, error.message))
    nodes = {slip.node for _, slip, _ in opened if "\0" not in slip.node}  # no database can be asked for that
    mine = relays.below(ctx, relay, nodes)
    keys = ctx.store.agent_requests.keys(mine)
    spooled: list[bytes] = []
    for position, slip, data in opened:
        at = min(slip.at, gate.clock())
        try:
            if slip.kind == "run-log":
                spooled.append(_run_log(keys, slip, at, data))
                continue
            pem = _verified(keys, slip, data)
            if slip.kind == "inventory":
                _keep_inventory(ctx, slip, data)
            else:
                spooled.append(reports.pack(reports.Slip(slip.node, "", at, reports.key_digest(pem)), data))
        except _Stranger as error:
            refused.append(Refused(position, error.message, "invalid"))
        except (Invalid, UnknownNode) as error:
            refused.append(Refused(position, error.message))
    for node in mine:
        ctx.store.nodes.touch(node)
    if spooled:
        spool.append_all(spooled)
    return Taken(tuple(refused))


def _keep_inventory(ctx: Context, slip: Slip, data: bytes) -> None:
    """Keep one, or nothing of it. Raises Invalid whatever is at fault in it: the others must not wait for ever.

    Unavailable and Conflict pass, for another moment is better then.
    """
    try:
        with ctx.store.savepoint():
            inventories.receive_json(ctx, data)
    except (Unavailable, Conflict, Invalid, UnknownNode):
        raise
    except Exception as error:
        log.exception("The inventory of node %s, which a relay brought, cannot be kept", slip.node)
        raise Invalid(f"The inventory cannot be kept: {type(error).__name__}.") from error


def _run_log(keys: Mapping[NodeId, KnownKey], slip: Slip, at: float, data: bytes) -> bytes:
    """The record of a genuine agent's file, which is verified when it is kept. Raises Invalid."""
    _known(keys, slip)
    if not report_files.is_report(slip.file) or report_files.node_of(slip.file) != slip.node:
        raise Invalid(f"'{slip.file}' is not the name of a run log of node {slip.node}.")
    return reports.pack_file(slip.file, slip.node, at, data)


def _known(keys: Mapping[NodeId, KnownKey], slip: Slip) -> KnownKey:
    """What is known of the node that a slip names. Raises _Stranger."""
    known = keys.get(NodeId(slip.node))
    if known is None or known.status is not NodeStatus.ACCEPTED:
        raise _Stranger(f"There is no accepted node {slip.node} below this relay.")
    return known


def _verified(keys: Mapping[NodeId, KnownKey], slip: Slip, data: bytes) -> str:
    """The key (PEM) that signed a parcel. Raises Invalid."""
    known = _known(keys, slip)
    try:
        parcel = agent.open_parcel(data)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    if (parcel.kind, parcel.node) != (slip.kind, slip.node):
        raise Invalid(f"The parcel is a {parcel.kind} of node {parcel.node}, not a {slip.kind} of {slip.node}.")
    signed = signature.decode_base64(parcel.signature)
    if not known.pem or not signature.verify(known.pem, parcel.message(), signed):
        raise Invalid("The parcel is not signed with its node's key.")
    return known.pem
