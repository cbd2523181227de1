# SPDX-License-Identifier: Apache-2.0
"""What people do with the files of techniques, and how nodes and relays get the contents that policies name.

Every change is one of the technique: it stands in its history, and the policies that use it follow.
"""

from __future__ import annotations

from quarterdeck.core import technique_resources
from quarterdeck.core.agent_requests import Signed
from quarterdeck.core.errors import Conflict, NotFound, TooLarge
from quarterdeck.core.events import TechniqueChanged
from quarterdeck.core.techniques import Technique, TechniqueResource
from quarterdeck.services import agent_requests, relays, techniques
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context


def of_technique(ctx: Context, technique: str, version: str) -> tuple[TechniqueResource, ...]:
    """The files of one version of a technique, by path. Raises NotFound, Invalid."""
    return techniques.get(ctx, technique, version).resources


def get(ctx: Context, technique: str, version: str, path: str) -> tuple[TechniqueResource, bytes]:
    """One file with its content. Raises NotFound, Invalid."""
    found = _named(techniques.get(ctx, technique, version), path)
    return found, content(ctx, found.sha256)


def put(ctx: Context, technique: str, version: str, path: str, body: bytes) -> TechniqueResource:
    """Keep a file, new or changed. Raises NotFound, Invalid, TooLarge, and Conflict for a built-in technique."""
    technique_resources.check_path(path)
    if len(body) > technique_resources.MAX_BYTES:
        raise TooLarge(f"A resource has at most {technique_resources.MAX_BYTES} bytes.")
    known = _changeable(ctx, technique, version)
    technique_resources.check_beside(path, (one.path for one in known.resources))
    kept = ctx.store.technique_resources.put(known.key, path, body)
    if kept not in known.resources:
        _changed(ctx, known)
    return kept


def delete(ctx: Context, technique: str, version: str, path: str) -> TechniqueResource:
    """Forget a file. Raises NotFound, Invalid, and Conflict for a built-in technique."""
    known = _changeable(ctx, technique, version)
    found = _named(known, path)
    ctx.store.technique_resources.remove(known.key, path)
    _changed(ctx, known)
    return found


def _changeable(ctx: Context, technique: str, version: str) -> Technique:
    ctx.store.techniques.lock(techniques.key(technique, version))
    known = techniques.get(ctx, technique, version)
    if known.source == techniques.BUILT_IN:
        raise Conflict(f"Technique '{technique}' is built in and can not be modified")
    return known


def _changed(ctx: Context, technique: Technique) -> None:
    ctx.store.techniques.record_resources(technique.key)
    ctx.emit(TechniqueChanged(technique.key))


def _named(technique: Technique, path: str) -> TechniqueResource:
    found = next((one for one in technique.resources if one.path == path), None)
    if found is None:
        raise NotFound(f"Technique '{technique.id}' version '{technique.version}' has no resource '{path}'.")
    return found


# -- for nodes and relays ----------------------------------------------------------------------


def fetch(ctx: Context, gate: Gate, signed: Signed, digest: str) -> bytes:
    """A content for the node that signed the request. Raises NotFound unless its policy names it; as `Gate.admit`."""
    agent_requests.require_accepted(gate.admit(ctx, signed))
    if not technique_resources.is_digest(digest) or not ctx.store.policies.naming(digest, [signed.node]):
        raise _not_named(digest)
    return content(ctx, digest)


def fetch_for_relay(ctx: Context, gate: Gate, signed: Signed, digest: str) -> bytes:
    """A content for the relay that signed the request. Raises NotFound unless a policy below it names it."""
    relay = relays.admit(ctx, gate, signed)
    naming = ctx.store.policies.naming(digest) if technique_resources.is_digest(digest) else ()
    if not relays.below(ctx, relay, naming):
        raise _not_named(digest)
    return content(ctx, digest)


def _not_named(digest: str) -> NotFound:
    return NotFound(f"No policy of yours names the resource {digest[:64]}.")


def content(ctx: Context, digest: str) -> bytes:
    """A content by its SHA-256, for those who may have it. Raises NotFound."""
    body = ctx.store.technique_resources.content(digest)
    if body is None:
        raise NotFound(f"The content {digest[:64]} is not kept here.")
    return body
