# SPDX-License-Identifier: Apache-2.0
"""Tokens and users: making, listing, revoking, and checking a password.

Nobody gives away a right they do not have themselves, or for longer than they have it. Secrets are returned once
and kept as digests.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import threading
import uuid
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from quarterdeck.core.accounts import Access, Account, check_roles
from quarterdeck.core.errors import AlreadyExists, Forbidden, Invalid, NotFound
from quarterdeck.core.ids import AccountId
from quarterdeck.services.context import Context

TOKEN_LENGTH = 32
MIN_PASSWORD_LENGTH = 8
_ALPHABET = string.ascii_letters + string.digits

#: A hash takes 64 MB and most of a core on purpose: two at once, the others wait.
_hashing = threading.BoundedSemaphore(2)
_hasher = PasswordHasher()


def new_secret() -> str:
    """A random token of TOKEN_LENGTH letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))


def secret_digest(secret: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode()).digest()


def create_token(
    ctx: Context,
    name: str,
    *,
    access: Access | None,
    roles: frozenset[str] = frozenset(),
    expires_at: datetime | None = None,
) -> tuple[Account, str]:
    """Make a token; it is in the answer and nowhere else. Raises Invalid, AlreadyExists, Forbidden."""
    account = _new(ctx, name, kind="token", access=access, roles=roles, expires_at=expires_at)
    secret = new_secret()
    ctx.store.accounts.add(account)
    ctx.store.accounts.set_token(account.id, secret_digest(secret))
    return account, secret


def revoke_token(ctx: Context, id_or_name: str) -> None:
    """End a token at once, for good. Raises NotFound."""
    account = _named(ctx, id_or_name, "token")
    ctx.store.accounts.remove(account.id)


def tokens(ctx: Context) -> list[Account]:
    """All tokens, sorted by name."""
    return sorted(ctx.store.accounts.having(kind="token"), key=lambda account: account.name)


def create_user(ctx: Context, name: str, password: str, roles: frozenset[str]) -> Account:
    """Make a user who logs in with a password. Raises Invalid, AlreadyExists, Forbidden."""
    account = _new(ctx, name, kind="user", access=None, roles=roles, expires_at=None)
    hashed = _hashed(password)
    ctx.store.accounts.add(account)
    ctx.store.accounts.set_password(account.id, hashed)
    return account


def set_password(ctx: Context, name: str, password: str) -> None:
    """Replace a user's password; whoever is logged in with the old one is no longer. Raises NotFound, Invalid."""
    account = _named(ctx, name, "user")
    _check_grant(ctx, account)
    ctx.store.accounts.set_password(account.id, _hashed(password))
    ctx.store.sessions.remove_of(account.id)


def remove_user(ctx: Context, name: str) -> None:
    """Forget a user. Raises NotFound."""
    ctx.store.accounts.remove(_named(ctx, name, "user").id)


def users(ctx: Context) -> list[Account]:
    """All users, sorted by name."""
    return sorted(ctx.store.accounts.having(kind="user"), key=lambda account: account.name)


def check_password(ctx: Context, name: str, password: str) -> Account | None:
    """The user, when name and password fit and the account may act; as slow for names nobody has."""
    account = ctx.store.accounts.by_name(name)
    known = account is not None and account.kind == "user"
    stored = ctx.store.accounts.password_hash(account.id) if account is not None and known else None
    fits = _verify(stored or _nobody(), password)
    return account if fits and stored and account is not None and account.usable(ctx.now) else None


def _new(
    ctx: Context, name: str, *, kind: str, access: Access | None, roles: frozenset[str], expires_at: datetime | None
) -> Account:
    if not name.strip():
        raise Invalid("A token or a user needs a name.")
    if expires_at is not None and expires_at <= ctx.now:
        raise Invalid("The expiry lies in the past.")
    if ctx.store.accounts.by_name(name) is not None:
        raise AlreadyExists(f"There is already an account named '{name}'.")
    account = Account(
        id=AccountId(str(uuid.uuid4())),
        name=name,
        kind=kind,
        access=access,
        roles=check_roles(roles),
        created_at=ctx.now,
        expires_at=expires_at,
    )
    _check_grant(ctx, account)
    return account


def _check_grant(ctx: Context, account: Account) -> None:
    missing = sorted(account.rights - ctx.account.rights)
    if missing:
        raise Forbidden(f"'{ctx.account.name}' cannot give the right {missing[0]} without having it.")
    end = ctx.account.expires_at
    if end is not None and (account.expires_at is None or account.expires_at > end):
        raise Forbidden(f"'{ctx.account.name}' expires at {end.isoformat()} and cannot give rights beyond that.")


def _named(ctx: Context, id_or_name: str, kind: str) -> Account:
    accounts = ctx.store.accounts
    account = accounts.find(id_or_name) or accounts.by_name(id_or_name)
    if account is None or account.kind != kind:
        raise NotFound(f"There is no {kind} '{id_or_name}'.")
    return account


def _hashed(password: str) -> str:
    if len(password) < MIN_PASSWORD_LENGTH:
        raise Invalid(f"A password has at least {MIN_PASSWORD_LENGTH} characters.")
    with _hashing:
        return _hasher.hash(password)


def _verify(hashed: str, password: str) -> bool:
    try:
        with _hashing:
            return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _nobody() -> str:
    """A hash no password fits, so that unknown names take as long as known ones."""
    return _hasher_of_nobody


_hasher_of_nobody = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
