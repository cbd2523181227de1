# SPDX-License-Identifier: Apache-2.0
"""What people do with directives. Parameters are kept as sent and complete: defaults filled in, all checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quarterdeck.core import technique_parameters
from quarterdeck.core.directives import Directive
from quarterdeck.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from quarterdeck.core.events import DirectiveChanged, RuleChanged
from quarterdeck.core.ids import DirectiveId, parse_revised
from quarterdeck.core.techniques import Technique, TechniqueKey
from quarterdeck.services.context import Context
from quarterdeck.storage.history import Change

MIN_NAME = 4


def all_directives(ctx: Context) -> list[Directive]:
    """Every directive that is not the system's, sorted by id."""
    return [directive for directive in ctx.store.directives.all() if not directive.system]


def get(ctx: Context, directive_id: str) -> Directive:
    """One directive, or, with `+revision` behind the id, what it was then. Raises NotFound, Invalid."""
    named = parse_revised(directive_id)
    if not named.revision:
        return ctx.store.directives.get(named.uid)
    return replace(ctx.store.directives.revision(named.uid, named.revision), id=DirectiveId(str(named)))


def techniques_of(ctx: Context, some: list[Directive]) -> dict[TechniqueKey, Technique]:
    """The techniques that directives are made of, by key."""
    return ctx.store.techniques.among(TechniqueKey(one.technique, one.version) for one in some)


def create(ctx: Context, directive: Directive) -> Directive:
    """Add a directive. Raises Invalid, AlreadyExists."""
    if ctx.store.directives.find(directive.id) is not None:
        raise AlreadyExists(f"Cannot create a new Directive with id '{directive.id}' already exists")
    complete = checked(ctx, directive)
    ctx.store.directives.add(complete)
    ctx.emit(DirectiveChanged(complete.id))
    return complete


def clone(ctx: Context, source: str, directive_id: DirectiveId, changes: Mapping[str, Any]) -> Directive:
    """Add a copy, disabled whatever is asked; its technique stays. Raises NotFound and what `create` raises."""
    original = get(ctx, source)
    fixed = {"id": directive_id, "enabled": False, "system": False, "technique": original.technique}
    return create(ctx, replace(original, **{**changes, **fixed}))


def update(ctx: Context, directive_id: str, changes: Mapping[str, Any]) -> Directive:
    """Change some fields of a directive. Raises NotFound, Invalid, AlreadyExists, Conflict."""
    after = would_be(ctx, directive_id, changes, lock=True)
    before = get(ctx, directive_id)
    ctx.store.directives.replace(after)
    if after != before:
        ctx.emit(DirectiveChanged(after.id))
    return after


def would_be(ctx: Context, directive_id: str, changes: Mapping[str, Any], *, lock: bool = False) -> Directive:
    """What `update` would keep; nothing is kept. Raises what `update` raises."""
    before = ctx.store.directives.find(directive_id, lock=lock)
    if before is None:
        raise NotFound(f"Could not find Directive {directive_id}")
    if before.system:
        raise Conflict(f"System directive '{before.name}' ({before.id}) can't be updated")
    return checked(ctx, replace(before, **{**changes, "technique": before.technique}))


def delete(ctx: Context, directive_id: str) -> Directive | None:
    """Remove a directive, also from the rules that use it; None when there was none. Raises Conflict."""
    directive = ctx.store.directives.find(directive_id, lock=True)
    if directive is None:
        return None
    if directive.system:
        raise Conflict(f"System directive '{directive.id}' can't be deleted")
    for rule in ctx.store.rules.with_directive(directive.id):
        ctx.store.rules.replace(replace(rule, directives=rule.directives - {directive.id}))
        ctx.emit(RuleChanged(rule.id, targets_before=rule.targets))
    ctx.store.directives.remove(directive.id)
    ctx.emit(DirectiveChanged(directive.id))
    return directive


def revisions(ctx: Context, directive_id: str) -> list[Change]:
    """Every change of a directive, newest first. Raises NotFound."""
    get(ctx, directive_id)
    return ctx.store.history.of("directive", directive_id)[::-1]


def checked(ctx: Context, directive: Directive) -> Directive:
    """The directive, complete and fit to be kept. Raises Invalid, AlreadyExists."""
    if len(directive.name) < MIN_NAME:
        # The peer's check, although its sentence says 3.
        problems = {"displayName": "is too short"}
        raise Invalid("'displayName' is mandatory and must be at least 3 char long", problems=problems)
    if not 0 <= directive.priority <= 10:
        raise Invalid(f"priority is a number from 0 to 10, got {directive.priority}")
    if any(other.id != directive.id for other in ctx.store.directives.having(name=directive.name)):
        raise AlreadyExists(f"Cannot set directive with name '{directive.name}' : this name is already in use.")
    technique = ctx.store.techniques.find(TechniqueKey(directive.technique, directive.version))
    if technique is None:
        # The leading blank is the peer's.
        message = f" Technique '{directive.technique}' version '{directive.version}' is not a valid Technique"
        raise Invalid(message, problems={"techniqueName": "is not known in this version"})
    return replace(directive, parameters=_values(technique, directive))


def _values(technique: Technique, directive: Directive) -> Mapping[str, tuple[str, ...]]:
    try:
        return technique_parameters.check(technique, directive.parameters)
    except Invalid as error:
        message = f"Error with directive Parameters; cause was: {error.message}"
        raise Invalid(message, problems=error.problems) from error
