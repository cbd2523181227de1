# SPDX-License-Identifier: Apache-2.0
"""The agent protocol as a relay serves it, without a database: to the nodes below it, and to the relays below it.

What a known node sends is checked with the keys of the nodes list, kept on disk and carried up later. What a stranger
sends (a machine that enrols, a node that is not accepted yet) goes up at once as it is, with this relay's voucher.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.core import relays
from quarterdeck.core.agent_requests import BadSignature, Signed, UnknownNode
from quarterdeck.core.errors import Forbidden, Invalid, NotFound, QuarterdeckError
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import MAX_LEVELS, Topology
from quarterdeck.dialects.native import command_answers, envelope, relay_answers, run_answers, signed_requests
from quarterdeck.formats import agent, relay_documents, signature
from quarterdeck.formats.relay_documents import Refused, Slip, Taken
from quarterdeck.relaying import copies, policy_files
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.agent_requests import Gate
from quarterdeck.relaying.copies import PolicyCopies, PolicyCopy
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.links import Link
from quarterdeck.relaying.mirror import Mirror
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands
from quarterdeck.web.edges import Edge
from quarterdeck.web.operation import Answer, Excerpt, Operation, Reply, Request, Section
from quarterdeck.web.router import Match, Router

section = Section("Behind a relay", {"max_body": 64 * 1024})

PREFIX = "/quarterdeck"
_REPORT_BYTES = 8 * 1024 * 1024
_INVENTORY_BYTES = 16 * 1024 * 1024
#: Strangers and wrong signatures make the relay look for a newer nodes list, but not more often.
_LOOK_SECONDS = 5.0
#: Requests that may hang with the server above take turns with each other, so that reports find a thread.
LINES = _UP, _POLICIES = "up", "policies"
_PASSED_UP = (
    agent.HEADER_NODE,
    agent.HEADER_TIME,
    agent.HEADER_NONCE,
    agent.HEADER_SIGNATURE,
    "Content-Type",
    "If-None-Match",
)
_PASSED_DOWN = ("Content-Type", "ETag", agent.HEADER_SIGNATURE)


@dataclass(kw_only=True)
class Parts:
    """One relay as its nodes see it. `certificate` (PEM) is its own, as a node."""

    certificate: str
    up: Link
    nodes: NodesList
    mirror: Mirror
    policies: PolicyCopies
    folder: FolderTree
    share: FolderTree
    spool: Spool
    addresses: Addresses
    waiting_agents: WaitingAgents
    waiting_commands: WaitingCommands
    gate: Gate = field(init=False)
    _looked_at: float = 0.0

    def __post_init__(self) -> None:
        self.gate = Gate(self.nodes, self.up.times.now)

    def known(self, signed: Signed) -> NodeId | None:
        """The node below this relay that signed a request; None when it is none that is known here.

        Raises ClockSkew, BadSignature, Invalid.
        """
        if signed.node not in self.nodes.current().topology and not (
            self._look_again() and signed.node in self.nodes.current().topology
        ):
            return None
        try:
            return self.gate.admit(signed)
        except BadSignature:
            if not self._look_again():
                raise
        return self.gate.admit(signed)  # the node has another key by now

    def relay(self, signed: Signed) -> tuple[Listing, NodeId]:
        """The relay below this one that signed a request. Raises Forbidden, and what `known` raises."""
        node = self.known(signed)
        listing = self.nodes.current()
        if node is None or node not in listing.relays:
            raise Forbidden(
                f"Node {signed.node} is no relay that this one knows; an administrator may promote it "
                "(quarterdeck relays promote)."
            )
        return listing, node

    def _look_again(self) -> bool:
        """Fetch the nodes list, unless that was done a moment ago; whether it could be fetched."""
        now = time.monotonic()
        if self._looked_at and now - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = now
        try:
            self.mirror.refresh_nodes()
        except (QuarterdeckError, OSError):
            return False
        return True


# -- for nodes ---------------------------------------------------------------------------------


@section.operation("enroll", "POST", "/agent/1/enroll", right=None, long=_UP)
def enroll(parts: Parts, request: Request) -> Answer:
    """Pass a machine's wish to become a node on to the server above."""
    return _pass_up(parts, request, insist=True)  # somebody waits for the answer, once


@section.operation("fetchPolicy", "GET", "/agent/1/policy", right=None, long=_POLICIES)
def fetch_policy(parts: Parts, request: Request) -> Answer:
    """Give a node its policy, the last known one while the server above is away."""
    node = parts.known(signed_requests.read(request))
    if node is None:
        return _pass_up(parts, request)
    return _policy(request, parts.policies.fetch(node))


@section.operation("fetchResource", "GET", "/agent/1/resources/{digest}", right=None, long=_POLICIES)
def fetch_resource(parts: Parts, request: Request) -> Answer:
    """Give a node a file of a technique, by its SHA-256, that its policy names."""
    node = parts.known(signed_requests.read(request))
    if node is None:
        return _pass_up(parts, request)
    return _resource(*parts.mirror.resources.open(node, request.params["digest"]))


def _resource(descriptor: int, size: int) -> Answer:
    excerpt = Excerpt(descriptor=descriptor, start=0, length=size)
    return Answer(headers=(("Content-Type", "application/octet-stream"),), body=excerpt)


@section.operation("deliverReport", "POST", "/agent/1/reports", right=None, max_body=_REPORT_BYTES)
def deliver_report(parts: Parts, request: Request) -> Answer:
    """Take the signed report of one run; answered once it is durable here."""
    return _deliver(parts, request, "report")


@section.operation("deliverInventory", "POST", "/agent/1/inventories", right=None, max_body=_INVENTORY_BYTES)
def deliver_inventory(parts: Parts, request: Request) -> Answer:
    """Take a signed inventory; answered once it is durable here."""
    return _deliver(parts, request, "inventory")


@section.operation("downloadAgent", "GET", "/agent/1/quarterdeck-agent.pyz", right=None)
def download_agent(parts: Parts, request: Request) -> Answer:
    """Download the agent as one file, as the root has it."""
    return relay_answers.agent(request, parts.mirror.agent.file())


@section.operation("awaitRun", "POST", "/agent/1/wake", right=None, max_body=1024)
def await_run(parts: Parts, request: Request) -> Answer:
    """Wait to be told to run; answered when there is something to do, or after a while."""
    return run_answers.held(parts.waiting_agents, _accepted(parts, request))


@section.operation(
    "deliverOutput", "POST", "/agent/1/remote-runs/{id}/output", right=None, max_body=agent.MAX_PIECE_BYTES
)
def deliver_output(parts: Parts, request: Request) -> Answer:
    """Deliver a piece of what a run prints; answered when there is room."""
    return run_answers.delivered(parts.waiting_agents, _accepted(parts, request), request)


@section.operation("awaitCommand", "POST", "/agent/1/commands", right=None, max_body=1024)
def await_command(parts: Parts, request: Request) -> Answer:
    """Wait for commands; answered when there is one, or one is to stop, or after a while."""
    return command_answers.held(parts.waiting_commands, _accepted(parts, request), request)


@section.operation(
    "deliverCommandOutput", "POST", "/agent/1/commands/{id}/output", right=None, max_body=agent.MAX_COMMAND_PIECE_BYTES
)
def deliver_command_output(parts: Parts, request: Request) -> Answer:
    """Deliver a piece of what a command prints, or how it ended; answered when there is room."""
    return command_answers.delivered(parts.waiting_commands, _accepted(parts, request), request)


def _accepted(parts: Parts, request: Request) -> NodeId:
    node = parts.known(signed_requests.read(request))
    if node is None:
        raise UnknownNode("There is no such node below this relay.")
    return node


def _deliver(parts: Parts, request: Request, kind: Literal["report", "inventory"]) -> Answer:
    node = parts.known(signed_requests.read(request))
    if node is None:
        return _pass_up(parts, request)
    try:
        parcel = agent.open_parcel(request.body)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    if (parcel.kind, parcel.node) != (kind, node):
        raise Invalid(f"The parcel is a {parcel.kind} of node {parcel.node}, not a {kind} of {node}.")
    signed = signature.decode_base64(parcel.signature)
    if not any(signature.verify(pem, parcel.message(), signed) for pem in parts.nodes.current().keys_of(node)):
        raise Invalid(f"The {kind} is not signed with this node's key.")
    parts.spool.append(relay_documents.pack_slip(Slip(kind, node, parts.up.times.now()), request.body))
    return envelope.success({"status": "received"}, status=202)


def _policy(request: Request, copy: PolicyCopy) -> Answer:
    tag = ("ETag", f'"{copy.config_id}"')
    if signed_requests.known_tag(request) == copy.config_id:
        return Answer(status=304, headers=(tag,))
    return Answer(headers=(envelope.CONTENT_TYPE, tag, (agent.HEADER_SIGNATURE, copy.signature)), body=copy.body)


def _pass_up(parts: Parts, request: Request, *, insist: bool = False) -> Answer:
    """What the server above says to a request as it is. Raises Unavailable."""
    headers = {name: request.headers[name.lower()] for name in _PASSED_UP if name.lower() in request.headers}
    voucher = request.headers.get(relay_documents.HEADER_VOUCHER.lower(), "")
    headers[relay_documents.HEADER_VOUCHER] = voucher or _voucher(parts.up, headers.get(agent.HEADER_SIGNATURE, ""))
    told = parts.up.pass_on(request.method, request.target, request.body, headers, insist=insist)
    if parts.up.times.learn(told) and not voucher:  # ours was of the wrong time
        headers[relay_documents.HEADER_VOUCHER] = _voucher(parts.up, headers.get(agent.HEADER_SIGNATURE, ""))
        told = parts.up.pass_on(request.method, request.target, request.body, headers)
    kept = tuple((name, told.headers[name.lower()]) for name in _PASSED_DOWN if name.lower() in told.headers)
    return Answer(status=told.status, headers=kept, body=told.body)


def _voucher(up: Link, node_signature: str) -> str:
    relay, moment, nonce = up.signer.node, str(int(up.times.now())), os.urandom(16).hex()
    message = relay_documents.voucher_message(relay, moment, nonce, node_signature)
    return relay_documents.written_voucher(relay, moment, nonce, up.signer.key.sign(message))


# -- for relays below --------------------------------------------------------------------------


@section.operation("listRelayNodes", "GET", "/agent/1/relay/nodes", right=None)
def list_relay_nodes(parts: Parts, request: Request) -> Answer:
    """List the nodes below a relay, with their keys."""
    listing, relay = parts.relay(signed_requests.read(request))
    address = request.headers.get(relay_documents.HEADER_ADDRESS.lower(), "")
    if address:
        parts.addresses.learn(relay, address, request.headers.get(relay_documents.HEADER_STATE.lower(), ""))
    document = copies.document_below(listing, relay, parts.certificate)
    return relay_answers.tagged(request, relay_documents.encode(document))


@section.operation("listRelayPolicies", "GET", "/agent/1/relay/policies", right=None)
def list_relay_policies(parts: Parts, request: Request) -> Answer:
    """List the configurations that the nodes below a relay should have."""
    listing, relay = parts.relay(signed_requests.read(request))
    wanted = parts.policies.wanted()
    mine = {node: found for node, found in wanted.items() if _is_below(listing.topology, NodeId(node), relay)}
    return relay_answers.tagged(request, relay_documents.encode(mine))


@section.operation("fetchRelayPolicy", "GET", "/agent/1/relay/policies/{nodeId}", right=None, long=_POLICIES)
def fetch_relay_policy(parts: Parts, request: Request) -> Answer:
    """Give the policy of a node below a relay, as the root signed it."""
    listing, relay = parts.relay(signed_requests.read(request))
    node = NodeId(request.params["nodeId"])
    if not _is_below(listing.topology, node, relay):
        raise NotFound(f"There is no node {node} below this relay.")
    return _policy(request, parts.policies.fetch(node))


@section.operation("fetchRelayResource", "GET", "/agent/1/relay/resources/{digest}", right=None, long=_POLICIES)
def fetch_relay_resource(parts: Parts, request: Request) -> Answer:
    """Give a file of a technique, by its SHA-256, that the policy of a node below a relay names."""
    listing, relay = parts.relay(signed_requests.read(request))
    below = relays.below(relay, listing.topology.nodes)
    return _resource(*parts.mirror.resources.open_for(below, request.params["digest"]))


@section.operation(
    "deliverParcels", "POST", "/agent/1/relay/parcels", right=None, max_body=relay_documents.MAX_BATCH_BYTES
)
def deliver_parcels(parts: Parts, request: Request) -> Answer:
    """Take reports and inventories from a relay; the root verifies each, for its list of nodes is the newest."""
    parts.relay(signed_requests.read(request))
    refused, taken = [], []
    for position, record in enumerate(relay_documents.unpack_batch(request.body)):
        try:
            relay_documents.unpack_slip(record)
        except Invalid as error:
            refused.append(Refused(position, error.message))
        else:
            taken.append(record)
    if taken:
        parts.spool.append_all(taken)
    return envelope.success(Taken(tuple(refused)), status=202)


@section.operation("listSharedFolder", "GET", "/agent/1/relay/tree", right=None)
def list_shared_folder(parts: Parts, request: Request) -> Answer:
    """List the files of the shared folder with their digests."""
    parts.relay(signed_requests.read(request))
    return relay_answers.tagged(request, parts.folder.document())


@section.operation("fetchSharedContent", "GET", "/agent/1/relay/files/{digest}", right=None)
def fetch_shared_content(parts: Parts, request: Request) -> Answer:
    """Give a file of the shared folder by its SHA-256."""
    parts.relay(signed_requests.read(request))
    return relay_answers.content(request, parts.folder.open(request.params["digest"]))


@section.operation("listNodeFiles", "GET", "/agent/1/relay/share", right=None)
def list_node_files(parts: Parts, request: Request) -> Answer:
    """List the files of nodes below a relay and those for all, with their digests, as the root gave them."""
    _, relay = parts.relay(signed_requests.read(request))
    return relay_answers.tagged(request, parts.share.document(_shared_with(parts, relay)))


@section.operation("fetchNodeFile", "GET", "/agent/1/relay/share/{digest}", right=None)
def fetch_node_file(parts: Parts, request: Request) -> Answer:
    """Give a file of nodes below a relay, or for all, by its SHA-256."""
    _, relay = parts.relay(signed_requests.read(request))
    return relay_answers.content(request, parts.share.open(request.params["digest"], _shared_with(parts, relay)))


def _shared_with(parts: Parts, relay: NodeId) -> frozenset[str]:
    return policy_files.directories_for(relays.below(relay, parts.nodes.current().topology.nodes))


def _is_below(topology: Topology, node: NodeId, relay: NodeId) -> bool:
    at = node
    for _ in range(MAX_LEVELS):
        listed = topology.nodes.get(at)
        if listed is None:
            return False
        at = listed.policy_server
        if at == relay:
            return True
    return False


# -- the edge ----------------------------------------------------------------------------------


class RelayedAgents:
    """The grammar: the agent protocol's, and nothing of the native API."""

    max_body = 64 * 1024

    def __init__(self) -> None:
        self.router = Router(section.operations)

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        match = self.router.find(request.method, segments)
        if match is None:
            raise NotFound(f"There is no operation '{request.method} {request.path}' on a relay.")
        return match

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(reply.data)

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        return envelope.refusal(request, error)


@dataclass(kw_only=True)
class RelayedEdge(Edge):
    """An ASGI application for it."""

    parts: Parts

    def work(self, operation: Operation, request: Request) -> Reply | Answer:
        """What the operation does; who asks, its handler finds out."""
        reply: Reply | Answer = operation.handler(self.parts, request)
        return reply
