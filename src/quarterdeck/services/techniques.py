# SPDX-License-Identifier: Apache-2.0
"""What people do with techniques: the built-in library, and those written in the editor."""

from __future__ import annotations

from dataclasses import replace

from quarterdeck.core import technique_checks
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from quarterdeck.core.events import TechniqueChanged
from quarterdeck.core.ids import TechniqueId
from quarterdeck.core.techniques import Technique, TechniqueKey
from quarterdeck.formats import method_catalogue, technique_library
from quarterdeck.services import directives
from quarterdeck.services.context import Context
from quarterdeck.storage.history import Change

BUILT_IN = "built-in"


def all_techniques(ctx: Context) -> list[Technique]:
    """Every version of every technique that is not the system's, by id, then version."""
    return [technique for technique in ctx.store.techniques.all() if not technique.system]


def versions(ctx: Context, technique: str) -> list[Technique]:
    """Every version of a technique, oldest first. Raises NotFound."""
    found = ctx.store.techniques.versions(technique)
    if not found:
        raise NotFound(f"Technique '{technique}' does not exist")
    return sorted(found, key=lambda one: version_order(one.version))


def get(ctx: Context, technique: str, version: str) -> Technique:
    """One version of a technique. Raises NotFound, Invalid."""
    version_order(version)
    known = versions(ctx, technique)
    found = next((one for one in known if one.version == version), None)
    if found is None:
        raise NotFound(f"Version '{version}' of Technique '{technique}' does not exist")
    return found


def newest(ctx: Context, technique: str) -> Technique:
    """The newest version of a technique. Raises NotFound."""
    return versions(ctx, technique)[-1]


def version_order(version: str) -> tuple[int, ...]:
    """Something to sort versions by. Raises Invalid when it is not made of digits and dots."""
    pieces = version.split(".")
    if not all(piece.isdecimal() for piece in pieces):
        raise Invalid("Technique version must be composed of digits")
    return tuple(int(piece) for piece in pieces)


def create(ctx: Context, technique: Technique) -> Technique:
    """Add a technique from the editor. Raises Invalid, AlreadyExists."""
    _check(technique)
    for other in ctx.store.techniques.all():
        same_id, same_name = (
            other.id.lower() == technique.id.lower(),
            other.name.lower() == technique.name.lower(),
        )
        if same_id or same_name:
            raise AlreadyExists(_taken(technique, same_id=same_id, same_name=same_name))
    return _put(ctx, technique)


def _taken(technique: Technique, *, same_id: bool, same_name: bool) -> str:
    said = [f"Name '{technique.name}'"] if same_name else []
    if same_id:
        said.append(f"ID '{technique.id}'")
    unique = "name and ID" if same_id and same_name else ("ID" if same_id else "name")
    ending = "they are case insensitive" if len(said) > 1 else "it is case insensitive"
    return f"Technique {unique} must be unique. {' and '.join(said)} already used, {ending}"


def update(ctx: Context, technique: Technique) -> Technique:
    """Change an editor technique, or add another version of it. Raises Invalid, NotFound, Conflict."""
    _check(technique)
    if any(one.source == BUILT_IN for one in versions(ctx, technique.id)):
        raise Conflict(f"Technique '{technique.id}' is built in and can not be modified")
    return _put(ctx, technique)


def _put(ctx: Context, technique: Technique) -> Technique:
    kept = ctx.store.techniques.put(technique)
    ctx.emit(TechniqueChanged(kept.key))
    return kept


def delete(ctx: Context, key: TechniqueKey, *, force: bool) -> None:
    """Remove an editor technique; an unknown one is no error. With `force` its directives go too.

    Raises Conflict when directives use it, or when it is built in.
    """
    known = ctx.store.techniques.find(key)
    if known is None:
        return
    if known.source == BUILT_IN:
        raise Conflict(f"Technique '{key.id}' is built in and can not be deleted")
    users = ctx.store.directives.having(technique=key.id, version=key.version)
    if users and not force:
        raise Conflict(
            f"{len(users)} directives are defined for '{key.id}/{key.version}': please delete them, or force deletion"
        )
    for directive in users:
        directives.delete(ctx, directive.id)
    ctx.store.techniques.remove(key)
    ctx.emit(TechniqueChanged(key))


def reload(ctx: Context) -> list[Technique]:
    """Read the built-in library again; answers the editor's techniques, each checked again."""
    for technique in technique_library.load():
        wanted = replace(technique, source=BUILT_IN)
        if ctx.store.techniques.find(wanted.key) != wanted:
            _put(ctx, wanted)
    return [technique for technique in all_techniques(ctx) if technique.source != BUILT_IN]


def directives_of(ctx: Context, technique: str, version: str | None = None) -> list[Directive]:
    """The directives made of a technique, or of one version of it. Raises NotFound, Invalid."""
    if version is None:
        versions(ctx, technique)
        return ctx.store.directives.having(technique=technique)
    get(ctx, technique, version)
    return ctx.store.directives.having(technique=technique, version=version)


def revisions(ctx: Context, technique: str, version: str) -> list[Change]:
    """Every change of one version, newest first. Raises NotFound."""
    get(ctx, technique, version)
    return ctx.store.history.of("technique", f"{technique}/{version}")[::-1]


def _check(technique: Technique) -> None:
    version_order(technique.version)
    technique_checks.check(technique, method_catalogue.load())


def key(technique: str, version: str) -> TechniqueKey:
    """The name of one version."""
    return TechniqueKey(TechniqueId(technique), version)
