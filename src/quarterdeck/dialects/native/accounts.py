# SPDX-License-Identifier: Apache-2.0
"""Tokens, users and enrolment tokens. Secrets are in the answer to a creation and nowhere else."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from quarterdeck.core.accounts import ROLES, Access, Account
from quarterdeck.core.enrolment import EnrolmentToken
from quarterdeck.dialects.native import body
from quarterdeck.services import accounts, enrolment
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Accounts")


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new token is to be called, and what it may do."""

    name: str
    access: Access
    roles: frozenset[str] = frozenset()
    expires: datetime | None = None


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new user's name, password and roles."""

    name: str
    password: str
    roles: frozenset[str]


class NewPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user's new password."""

    password: str


class NewEnrolmentToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`accept`: nodes that present it are accepted at once. `uses` is null for as often as wanted."""

    name: str
    accept: bool = False
    uses: int | None = None
    expires: datetime | None = None


@section.operation("whoAmI", "GET", "/api/1/me", right="system.read")
def who_am_i(ctx: Context, request: Request) -> Reply:
    """Say which account the token belongs to, and what it may do."""
    return Reply(encode_account(ctx.account) | {"rights": sorted(ctx.account.rights)})


@section.operation("listRoles", "GET", "/api/1/roles", right="system.read")
def list_roles(ctx: Context, request: Request) -> Reply:
    """List all roles with their rights."""
    return Reply([{"name": name, "rights": sorted(rights)} for name, rights in sorted(ROLES.items())])


@section.operation("listTokens", "GET", "/api/1/tokens", right="account.read")
def list_tokens(ctx: Context, request: Request) -> Reply:
    """List all tokens, without their secrets."""
    return Reply([encode_account(account) for account in accounts.tokens(ctx)])


@section.operation("createToken", "POST", "/api/1/tokens", right="account.write", body=NewToken, status=201)
def create_token(ctx: Context, request: Request) -> Reply:
    """Make a token; its secret is in this answer and never again."""
    new = body.read(request, NewToken)
    account, secret = accounts.create_token(
        ctx, new.name, access=new.access, roles=new.roles, expires_at=body.aware(new.expires)
    )
    return Reply(encode_account(account) | {"token": secret})


@section.operation("revokeToken", "DELETE", "/api/1/tokens/{id}", right="account.write")
def revoke_token(ctx: Context, request: Request) -> Reply:
    """End a token, named by its id or name, at once."""
    accounts.revoke_token(ctx, request.params["id"])
    return Reply({"revoked": request.params["id"]})


@section.operation("listUsers", "GET", "/api/1/users", right="account.read")
def list_users(ctx: Context, request: Request) -> Reply:
    """List all users."""
    return Reply([encode_account(account) for account in accounts.users(ctx)])


@section.operation("createUser", "POST", "/api/1/users", right="account.write", body=NewUser, status=201)
def create_user(ctx: Context, request: Request) -> Reply:
    """Make a user who logs in with a password."""
    new = body.read(request, NewUser)
    return Reply(encode_account(accounts.create_user(ctx, new.name, new.password, new.roles)))


@section.operation("setPassword", "POST", "/api/1/users/{name}/password", right="account.write", body=NewPassword)
def set_password(ctx: Context, request: Request) -> Reply:
    """Replace a user's password."""
    accounts.set_password(ctx, request.params["name"], body.read(request, NewPassword).password)
    return Reply({"changed": request.params["name"]})


@section.operation("removeUser", "DELETE", "/api/1/users/{name}", right="account.write")
def remove_user(ctx: Context, request: Request) -> Reply:
    """Remove a user."""
    accounts.remove_user(ctx, request.params["name"])
    return Reply({"removed": request.params["name"]})


@section.operation("listEnrolmentTokens", "GET", "/api/1/enrolment-tokens", right="account.read")
def list_enrolment_tokens(ctx: Context, request: Request) -> Reply:
    """List all enrolment tokens, without their secrets."""
    return Reply([_encode_enrolment(token) for token in enrolment.tokens(ctx)])


@section.operation(
    "createEnrolmentToken",
    "POST",
    "/api/1/enrolment-tokens",
    right="enrolment.write",
    body=NewEnrolmentToken,
    status=201,
)
def create_enrolment_token(ctx: Context, request: Request) -> Reply:
    """Make an enrolment token; its secret is in this answer and never again."""
    new = body.read(request, NewEnrolmentToken)
    token, secret = enrolment.make_token(
        ctx, new.name, accept=new.accept, uses=new.uses, expires_at=body.aware(new.expires)
    )
    return Reply(_encode_enrolment(token) | {"token": secret})


@section.operation("revokeEnrolmentToken", "DELETE", "/api/1/enrolment-tokens/{id}", right="enrolment.write")
def revoke_enrolment_token(ctx: Context, request: Request) -> Reply:
    """End an enrolment token; the nodes that came through it stay."""
    enrolment.revoke_token(ctx, request.params["id"])
    return Reply({"revoked": request.params["id"]})


def encode_account(account: Account) -> dict[str, Any]:
    """An account as this dialect shows it."""
    return {
        "id": account.id,
        "name": account.name,
        "kind": account.kind,
        "access": account.access,
        "roles": sorted(account.roles),
        "enabled": account.enabled,
        "created": account.created_at,
        "expires": account.expires_at,
    }


def _encode_enrolment(token: EnrolmentToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "accept": token.accept,
        "usesLeft": token.uses_left,
        "created": token.created_at,
        "expires": token.expires_at,
    }
