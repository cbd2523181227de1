# SPDX-License-Identifier: Apache-2.0
"""What people do with secrets: list their names, set, read and remove them."""

from __future__ import annotations

import re

from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.secrets import Secret
from quarterdeck.services.context import Context

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
#: Private keys are the longest of what is kept here.
MOST_CHARACTERS = 64 * 1024


def descriptions(ctx: Context) -> dict[str, str]:
    """Name -> description of every secret, sorted by name; nothing is opened."""
    return ctx.store.secrets.descriptions()


def get(ctx: Context, name: str) -> Secret:
    """A secret with its value. Raises NotFound, Unavailable."""
    return ctx.store.secrets.get(name)


def put(ctx: Context, name: str, value: str, description: str | None = None) -> Secret:
    """Keep a secret, new or changed; without a description the present one stays. Raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            "A secret's name has letters, digits and _ . -, begins with a letter, digit or _, "
            f"and is at most 255 characters long: '{name}'"
        )
    if not value or len(value) > MOST_CHARACTERS:
        raise Invalid(f"A secret has from 1 to {MOST_CHARACTERS} characters.")
    known = ctx.store.secrets.descriptions()
    kept = known.get(name, "") if description is None else description
    secret = Secret(name=name, description=kept, value=value)
    if name in known:
        ctx.store.secrets.replace(secret)
    else:
        ctx.store.secrets.add(secret)
    return secret


def remove(ctx: Context, name: str) -> None:
    """Forget a secret. Raises NotFound."""
    if name not in ctx.store.secrets.descriptions():
        raise NotFound(ctx.store.secrets.not_found.format(id=name))
    ctx.store.secrets.remove(name)
