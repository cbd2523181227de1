# SPDX-License-Identifier: Apache-2.0
"""Keys that hosts showed over SSH: which are trusted, which wait."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.core.connections import Address
from quarterdeck.dialects.native import body
from quarterdeck.formats import host_keys as texts
from quarterdeck.services import host_keys
from quarterdeck.services.context import Context
from quarterdeck.storage.host_keys import HostKeyRecord
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Host keys")

_HIGHEST_PORT = 65535
_SSH_PORT = 22


class HostKeyApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either the `fingerprint` (SHA256:...) of a key that the host showed, or a whole `key`."""

    host: str
    port: int = _SSH_PORT
    fingerprint: str = ""
    key: str = ""


@section.operation("listHostKeys", "GET", "/api/1/host-keys", right="node.read")
def list_host_keys(ctx: Context, request: Request) -> Reply:
    """List the keys of all hosts with their fingerprints; those not trusted wait for somebody's approval."""
    return Reply([_encode(one) for one in host_keys.listed(ctx)])


@section.operation("approveHostKey", "POST", "/api/1/host-keys/approve", right="node.write", body=HostKeyApproval)
def approve_host_key(ctx: Context, request: Request) -> Reply:
    """Trust a key of a host from now on, in place of any other of its type."""
    asked = body.read(request, HostKeyApproval)
    address = Address(asked.host, asked.port)
    return Reply(_encode(host_keys.approve(ctx, address, fingerprint=asked.fingerprint, key=asked.key)))


@section.operation("forgetHostKeys", "DELETE", "/api/1/host-keys/{host}", right="node.write")
def forget_host_keys(ctx: Context, request: Request) -> Reply:
    """Forget the keys of a host, at `port` (22), or only the one of `fingerprint`."""
    port = body.integer(request, "port", _SSH_PORT, low=1, high=_HIGHEST_PORT)
    address = Address(request.params["host"], port)
    return Reply({"forgotten": host_keys.forget(ctx, address, fingerprint=request.first("fingerprint"))})


def _encode(one: HostKeyRecord) -> dict[str, Any]:
    return {
        "host": one.address.host,
        "port": one.address.port,
        "type": texts.kind(one.key),
        "fingerprint": texts.fingerprint(one.key),
        "key": one.key,
        "trusted": one.trusted,
        "seen": one.seen_at,
        "approvedBy": one.approved_by,
    }
