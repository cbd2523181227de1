# SPDX-License-Identifier: Apache-2.0
"""What people do with the keys that hosts showed: look, approve, forget. Noting what a host shows is the engine's.

A host has at most one trusted key of a type: approving one replaces the other, so that a host that was set up anew is
reached again and its old key opens nothing any more.
"""

from __future__ import annotations

from dataclasses import replace

from quarterdeck.core.connections import Address
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.formats import host_keys
from quarterdeck.services.context import Context
from quarterdeck.storage import notices
from quarterdeck.storage.host_keys import HostKeyRecord

#: What the history calls them.
KIND = "host_key"


def listed(ctx: Context) -> list[HostKeyRecord]:
    """Every key, trusted or waiting, sorted by host and port."""
    return ctx.store.host_keys.all()


def approve(ctx: Context, address: Address, *, fingerprint: str = "", key: str = "") -> HostKeyRecord:
    """Trust a key that the host showed, named by its fingerprint, or one that is given whole.

    Other keys of its type are forgotten. Raises NotFound, Invalid.
    """
    if bool(fingerprint) == bool(key):
        raise Invalid("Name the key by its fingerprint, or give it whole.")
    present = ctx.store.host_keys.of([address])
    wanted = _given(ctx, address, key) if key else _shown(present, address, fingerprint)
    known = next((one for one in present if one.key == wanted.key), wanted)
    approved = replace(known, trusted=True, approved_by=ctx.account.name)
    replaced = [one for one in present if one.key != approved.key and _same_kind(one, approved)]
    for one in replaced:
        ctx.store.host_keys.remove(address, one.key)
    ctx.store.host_keys.put(approved)
    had_trusted = any(one.trusted for one in present)
    ctx.store.history.append(KIND, str(address), "modified" if had_trusted else "created", _told(ctx, address))
    return approved


def forget(ctx: Context, address: Address, *, fingerprint: str = "") -> int:
    """Forget a key of a host, or all of them; the next one it shows is its first. Returns how many. Raises NotFound."""
    present = ctx.store.host_keys.of([address])
    gone = [_shown(present, address, fingerprint)] if fingerprint else present
    if not gone:
        raise NotFound(f"No key of {address} is known.")
    for one in gone:
        ctx.store.host_keys.remove(address, one.key)
    notices.host_key_forgotten(ctx.store, address)
    left = _told(ctx, address)
    ctx.store.history.append(
        KIND, str(address), "modified" if left["keys"] else "deleted", left if left["keys"] else None
    )
    return len(gone)


def _given(ctx: Context, address: Address, key: str) -> HostKeyRecord:
    return HostKeyRecord(address=address, key=host_keys.normalised(key), trusted=True, seen_at=ctx.now)


def _shown(present: list[HostKeyRecord], address: Address, fingerprint: str) -> HostKeyRecord:
    found = next((one for one in present if host_keys.fingerprint(one.key) == fingerprint), None)
    if found is None:
        raise NotFound(f"{address} has shown no key with the fingerprint {fingerprint}.")
    return found


def _same_kind(one: HostKeyRecord, other: HostKeyRecord) -> bool:
    return host_keys.kind(one.key) == host_keys.kind(other.key)


def _told(ctx: Context, address: Address) -> dict[str, list[str]]:
    """The trusted keys of a host as the history keeps them."""
    return {"keys": [one.key for one in ctx.store.host_keys.of([address]) if one.trusted]}
