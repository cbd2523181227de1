# SPDX-License-Identifier: Apache-2.0
"""How a machine becomes a node: enrolment tokens, and the request that presents a certificate."""

from __future__ import annotations

import hmac
import uuid
from datetime import datetime

from quarterdeck.core.enrolment import EnrolmentToken
from quarterdeck.core.errors import Invalid
from quarterdeck.services import accounts
from quarterdeck.services.context import Context


def create_token(
    ctx: Context, name: str, *, accept: bool, uses: int | None = None, expires_at: datetime | None = None
) -> str:
    """Make an enrolment token; the secret is in the answer and nowhere else. Raises Invalid."""
    if expires_at is not None and expires_at <= ctx.now:
        raise Invalid("The expiry lies in the past.")
    token = EnrolmentToken(
        id=str(uuid.uuid4()), name=name, accept=accept, uses_left=uses, created_at=ctx.now, expires_at=expires_at
    )
    secret = accounts.new_secret()
    ctx.store.enrolment_tokens.keep(token, accounts.secret_digest(secret))
    return secret


def tokens(ctx: Context) -> list[EnrolmentToken]:
    """All enrolment tokens, used up and expired ones included, sorted by name."""
    return sorted(ctx.store.enrolment_tokens.all(), key=lambda token: token.name)


def revoke_token(ctx: Context, token_id: str) -> None:
    """End an enrolment token; nodes that came through it stay. Raises NotFound."""
    ctx.store.enrolment_tokens.get(token_id)
    ctx.store.enrolment_tokens.remove(token_id)


def _token_of(ctx: Context, secret: str) -> EnrolmentToken | None:
    """The usable token of a secret; compares with every digest, so that time tells nothing."""
    presented = accounts.secret_digest(secret)
    found = None
    for digest, token in ctx.store.enrolment_tokens.digests():
        if hmac.compare_digest(digest, presented):
            found = token
    return found if found is not None and found.usable(ctx.now) else None
