# SPDX-License-Identifier: Apache-2.0
"""Run logs of genuine agents at the server: who signed one, and which run of ours it tells of.

What is kept of the runs, and how they are judged, is `reports.py`, as for our own agents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.formats import report_files, run_documents, runlog, smime
from quarterdeck.formats.run_documents import Run
from quarterdeck.services.context import Context

#: Node -> its certificates and keys, PEM each. Only accepted nodes have any here.
Keys = Mapping[NodeId, tuple[str, ...]]


class Stranger(Invalid):
    """The report is of a node that is not known, or not accepted, here."""


def keys(ctx: Context, nodes: Collection[str]) -> Keys:
    """What may have signed for each of these nodes that is accepted."""
    if not nodes:
        return {}
    known = ctx.store.agent_requests.keys(nodes)
    return {node: smime.pems(one.pem) for node, one in known.items() if one.status is NodeStatus.ACCEPTED}


def text_of(keys: Keys, node: str, file: str, content: bytes) -> bytes:
    """The text that a node signed, from its file. Raises Stranger, and Invalid for everything else that is wrong."""
    known = keys.get(NodeId(node))
    if known is None:
        raise Stranger(f"There is no accepted node {node}.")
    return smime.verified(report_files.unpacked(file, content), known)


def run_of(node: str, text: bytes) -> Run:
    """The run that a node's text tells of. Raises Invalid."""
    found = runlog.decode(text)
    if not found.events:
        raise Invalid("There is no report in the run log.")
    others = sorted(found.nodes - {node})
    if others:
        raise Invalid(f"The run log of node {node} has reports of node {others[0]}.")
    return run_documents.of_run_log(found)
