# SPDX-License-Identifier: Apache-2.0
"""Secrets: names for everybody who works with projects, values for the few who may read them."""

from __future__ import annotations

import msgspec

from quarterdeck.dialects.native import body
from quarterdeck.services import secrets
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Secrets")


class NewSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without a description the present one stays."""

    value: str
    description: str | None = None


@section.operation("listSecrets", "GET", "/api/1/secrets", right="project.read")
def list_secrets(ctx: Context, request: Request) -> Reply:
    """List the names and descriptions of all secrets."""
    found = secrets.descriptions(ctx)
    return Reply([{"name": name, "description": description} for name, description in found.items()])


@section.operation("getSecret", "GET", "/api/1/secrets/{name}", right="secret.read")
def get_secret(ctx: Context, request: Request) -> Reply:
    """Show one secret with its value."""
    found = secrets.get(ctx, request.params["name"])
    return Reply({"name": found.name, "description": found.description, "value": found.value})


@section.operation("setSecret", "PUT", "/api/1/secrets/{name}", right="secret.write", body=NewSecret)
def set_secret(ctx: Context, request: Request) -> Reply:
    """Keep a secret, new or changed; the answer does not repeat its value."""
    new = body.read(request, NewSecret)
    kept = secrets.put(ctx, request.params["name"], new.value, new.description)
    return Reply({"name": kept.name, "description": kept.description})


@section.operation("removeSecret", "DELETE", "/api/1/secrets/{name}", right="secret.write")
def remove_secret(ctx: Context, request: Request) -> Reply:
    """Forget a secret; whoever refers to it fails from then on."""
    secrets.remove(ctx, request.params["name"])
    return Reply({"removed": request.params["name"]})
