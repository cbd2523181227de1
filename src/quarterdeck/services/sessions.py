# SPDX-License-Identifier: Apache-2.0
"""Sessions of users who logged in with a password: half an hour without use, or half a day in all, ends one.

The secret of a session is returned once and kept as a digest. Cookies are the web room's.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from quarterdeck.core.accounts import Account
from quarterdeck.services import accounts
from quarterdeck.services.context import Context

IDLE = timedelta(minutes=30)
LIFE = timedelta(hours=12)
#: A session that was seen more recently than this is not written to again.
_TOUCH = timedelta(minutes=1)


def open_session(ctx: Context, account: Account) -> str:
    """Begin a session of an account; returns its secret."""
    ctx.store.sessions.forget_expired()
    secret = accounts.new_secret()
    ctx.store.sessions.add(accounts.secret_digest(secret), account.id, expires_at=ctx.now + IDLE)
    return secret


def account_of(ctx: Context, secret: str) -> Account | None:
    """Whose session it is, which lives on by that; None when there is none, or the account may not act."""
    digest = accounts.secret_digest(secret)
    session = ctx.store.sessions.find(digest)
    if session is None or not session.account.usable(ctx.now):
        return None
    if ctx.now - session.seen >= _TOUCH:
        ctx.store.sessions.touch(digest, expires_at=_end(session.created, ctx.now))
    return session.account


def close_session(ctx: Context, secret: str) -> None:
    """End a session; nothing happens when there is none."""
    ctx.store.sessions.remove(accounts.secret_digest(secret))


def _end(created: datetime, now: datetime) -> datetime:
    return min(now + IDLE, created + LIFE)
