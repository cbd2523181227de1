# SPDX-License-Identifier: Apache-2.0
"""From a token to an account. Which header carries it is the dialect's business."""

from __future__ import annotations

from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.services import accounts
from quarterdeck.storage.database import Store


def account_of_token(store: Store, token: str) -> Account:
    """The account that a token belongs to. Raises Unauthenticated, with one sentence that says why."""
    if not token:
        raise Unauthenticated("A token is needed.")
    account = store.accounts.by_token(accounts.secret_digest(token))
    if account is None:
        raise Unauthenticated("The token is not known.")
    if not account.enabled:
        raise Unauthenticated("The token is revoked.")
    if not account.usable(store.now):
        raise Unauthenticated("The token has expired.")
    return account
