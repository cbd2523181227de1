# SPDX-License-Identifier: Apache-2.0
"""Relays chapter: what relays fetch for the nodes below them, and what they bring. Requests are signed by the relay.

A relay serves the same to the relays below it: `relayed_agents.py`.
"""

from __future__ import annotations

from quarterdeck.core.errors import NotFound
from quarterdeck.dialects.native import agents, envelope, parts, relay_answers, signed_requests
from quarterdeck.formats import relay_documents
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.services import agent_policies, relayed_parcels, relays, technique_resources
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Relays", {"max_body": 64 * 1024})


@section.operation("listRelayNodes", "GET", "/agent/1/relay/nodes", right=None)
def list_relay_nodes(ctx: Context, request: Request) -> Answer:
    """List the nodes below a relay, with their keys, unless the relay has this list already."""
    known = parts.of(request)
    relay = relays.admit(ctx, known.gate, signed_requests.read(request))
    address = request.headers.get(relay_documents.HEADER_ADDRESS.lower(), "")
    if address and known.addresses is not None:
        known.addresses.learn(relay, address, request.headers.get(relay_documents.HEADER_STATE.lower(), ""))
    return relay_answers.tagged(
        request, relay_documents.encode(relays.document_for(ctx, relay, known.signing_key.public_pem))
    )


@section.operation("listRelayPolicies", "GET", "/agent/1/relay/policies", right=None)
def list_relay_policies(ctx: Context, request: Request) -> Answer:
    """List the configurations that the nodes below a relay should have, unless the relay has this list already."""
    relay = relays.admit(ctx, parts.of(request).gate, signed_requests.read(request))
    return relay_answers.tagged(request, relay_documents.encode(relays.config_ids(ctx, relay)))


@section.operation("fetchRelayPolicy", "GET", "/agent/1/relay/policies/{nodeId}", right=None)
def fetch_relay_policy(ctx: Context, request: Request) -> Answer:
    """Fetch the policy of a node below a relay, as the server signed it."""
    known = parts.of(request)
    offer = agent_policies.fetch_for_relay(
        ctx,
        known.gate,
        known.signing_key,
        signed_requests.read(request),
        request.params["nodeId"],
        known_id=signed_requests.known_tag(request),
    )
    return agents.policy(offer)


@section.operation("fetchRelayResource", "GET", "/agent/1/relay/resources/{digest}", right=None)
def fetch_relay_resource(ctx: Context, request: Request) -> Answer:
    """Fetch a file of a technique, by its SHA-256, that the policy of a node below a relay names."""
    gate, signed = parts.of(request).gate, signed_requests.read(request)
    return agents.content(technique_resources.fetch_for_relay(ctx, gate, signed, request.params["digest"]))


@section.operation(
    "deliverParcels", "POST", "/agent/1/relay/parcels", right=None, max_body=relay_documents.MAX_BATCH_BYTES, long=True
)
def deliver_parcels(ctx: Context, request: Request) -> Answer:
    """Deliver reports and inventories of nodes below a relay; answered once they are durable."""
    known = parts.of(request)
    taken = relayed_parcels.receive(ctx, known.gate, known.spool, signed_requests.read(request), request.body)
    return envelope.success(taken, status=202)


@section.operation("listSharedFolder", "GET", "/agent/1/relay/tree", right=None, long=True)
def list_shared_folder(ctx: Context, request: Request) -> Answer:
    """List the files of the shared folder with their digests, unless the relay has this list already."""
    relays.admit(ctx, parts.of(request).gate, signed_requests.read(request))
    return relay_answers.tagged(request, _folder(request).document())


@section.operation("fetchSharedContent", "GET", "/agent/1/relay/files/{digest}", right=None)
def fetch_shared_content(ctx: Context, request: Request) -> Answer:
    """Fetch a file of the shared folder by its SHA-256, or a part of it."""
    relays.admit(ctx, parts.of(request).gate, signed_requests.read(request))
    return relay_answers.content(request, _folder(request).open(request.params["digest"]))


@section.operation("listNodeFiles", "GET", "/agent/1/relay/share", right=None, long=True)
def list_node_files(ctx: Context, request: Request) -> Answer:
    """List the files of nodes below a relay and those for all, with their digests, unless the relay has this list."""
    relay = relays.admit(ctx, parts.of(request).gate, signed_requests.read(request))
    return relay_answers.tagged(request, _share(request).document(relays.shared_with(ctx, relay)))


@section.operation("fetchNodeFile", "GET", "/agent/1/relay/share/{digest}", right=None)
def fetch_node_file(ctx: Context, request: Request) -> Answer:
    """Fetch a file of nodes below a relay, or for all, by its SHA-256, or a part of it."""
    relay = relays.admit(ctx, parts.of(request).gate, signed_requests.read(request))
    share, digest = _share(request), request.params["digest"]
    shared = relays.first_shared_with(ctx, relay, share.directories_with(digest))
    return relay_answers.content(request, share.open(digest, shared))


def _share(request: Request) -> FolderTree:
    share = parts.of(request).share
    if share is None:
        raise NotFound("This server has no files of nodes.")
    return share


def _folder(request: Request) -> FolderTree:
    folder = parts.of(request).folder
    if folder is None:
        raise NotFound("This server has no shared folder.")
    return folder
