# SPDX-License-Identifier: Apache-2.0
"""The agent protocol: enrolling, fetching the policy, delivering reports and inventories, the agent itself.

No tokens here: each request is signed by the node's key (`agent.request_message`). The bodies and headers are
those of the contract that `formats/agent.py` passes on.
"""

from __future__ import annotations

import base64

from quarterdeck.dialects.native import body, envelope, parts, relay_answers, signed_requests
from quarterdeck.formats import agent, relay_documents
from quarterdeck.relaying.agent_copies import AgentFile
from quarterdeck.services import agent_policies, enrolment, inventories, reports, technique_resources
from quarterdeck.services.agent_policies import Offer
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Agent protocol")

_ENROLMENT_BYTES = 64 * 1024
_REPORT_BYTES = 8 * 1024 * 1024
_INVENTORY_BYTES = 16 * 1024 * 1024


@section.operation("enroll", "POST", "/agent/1/enroll", right=None, body=enrolment.Request, max_body=_ENROLMENT_BYTES)
def enroll(ctx: Context, request: Request) -> Answer:
    """Become a node, with an enrolment token and a certificate."""
    known = parts.of(request)
    status = enrolment.enroll(
        ctx,
        known.gate,
        signed_requests.read(request),
        body.read(request, enrolment.Request),
        voucher=request.headers.get(relay_documents.HEADER_VOUCHER.lower(), ""),
    )
    answer: agent.Enrolled = {"status": status.value, "policy_key": known.signing_key.public_pem}
    return envelope.success(answer)


@section.operation("fetchPolicy", "GET", "/agent/1/policy", right=None)
def fetch_policy(ctx: Context, request: Request) -> Answer:
    """Fetch the node's own policy, unless the configuration named in If-None-Match is still the present one."""
    known = parts.of(request)
    offer = agent_policies.fetch(
        ctx, known.gate, known.signing_key, signed_requests.read(request), known_id=signed_requests.known_tag(request)
    )
    return policy(offer)


def policy(offer: Offer) -> Answer:
    """A signed policy, or that the one that is known is still the present one."""
    tag = ("ETag", f'"{offer.config_id}"')
    if offer.body is None:
        return Answer(status=304, headers=(tag,))
    signature_header = (agent.HEADER_SIGNATURE, base64.b64encode(offer.signature).decode())
    return Answer(headers=(envelope.CONTENT_TYPE, tag, signature_header), body=offer.body)


@section.operation("fetchResource", "GET", "/agent/1/resources/{digest}", right=None)
def fetch_resource(ctx: Context, request: Request) -> Answer:
    """Fetch a file of a technique, by its SHA-256, that the node's present policy names."""
    gate, signed = parts.of(request).gate, signed_requests.read(request)
    return content(technique_resources.fetch(ctx, gate, signed, request.params["digest"]))


def content(body: bytes) -> Answer:
    """Bytes as they are; who asked for them by their digest checks it."""
    return Answer(headers=(("Content-Type", "application/octet-stream"),), body=body)


@section.operation("deliverReport", "POST", "/agent/1/reports", right=None, max_body=_REPORT_BYTES)
def deliver_report(ctx: Context, request: Request) -> Answer:
    """Deliver the signed report of one run; answered once it is durable."""
    known = parts.of(request)
    reports.receive(ctx, known.gate, known.spool, signed_requests.read(request), request.body)
    return envelope.success({"status": "received"}, status=202)


@section.operation("deliverInventory", "POST", "/agent/1/inventories", right=None, max_body=_INVENTORY_BYTES, long=True)
def deliver_inventory(ctx: Context, request: Request) -> Answer:
    """Deliver a signed inventory; answered once it is kept."""
    inventories.receive_parcel(ctx, parts.of(request).gate, signed_requests.read(request), request.body)
    return envelope.success({"status": "received"}, status=202)


@section.operation("downloadAgent", "GET", "/agent/1/quarterdeck-agent.pyz", right=None)
def download_agent(ctx: Context, request: Request) -> Answer:
    """Download the agent as one file; its tag is its SHA-256, which is signed like a policy."""
    known = parts.of(request)
    file = AgentFile(known.agent_file, known.agent_file_digest, known.agent_file_signature)
    return relay_answers.agent(request, file)
