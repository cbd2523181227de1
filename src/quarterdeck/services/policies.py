# SPDX-License-Identifier: Apache-2.0
"""Policies: asking for their generation, and keeping what changed.

Between the two stand the snapshot (`fleet.py`) and the computing, which is pure (`core/policies.py`);
`engine/generation.py` runs the parts, so that nothing here knows about processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from quarterdeck.core import events, policies
from quarterdeck.core.events import Event
from quarterdeck.core.ids import NodeId
from quarterdeck.core.policies import Generated, NodePolicy
from quarterdeck.services import group_refresh
from quarterdeck.services.context import Context
from quarterdeck.services.fleet import Snapshot
from quarterdeck.storage import queue
from quarterdeck.storage.generations import Concerns, Generation
from quarterdeck.storage.policies import Outline, StoredPolicy

#: The queue's name of the task that generates.
TASK = "generate policies"
_RETRY_DELAY = timedelta(minutes=5)
#: The queue's name of the task that looks at compliance anew; payload: ids of nodes.
COMPLIANCE_TASK = "recompute compliance"
#: Nodes of one such task: large enough to share work, small enough to leave room for other tasks.
_COMPLIANCE_BATCH = 200


# -- asking -----------------------------------------------------------------------


def request_generation_for(ctx: Context, happened: Sequence[Event]) -> None:
    """Let the policies follow from what happened, soon, unless the settings forbid it."""
    if ctx.store.settings.get().generation_policy == "all":
        _ask(ctx, _concerns(happened))


def request_generation(ctx: Context, *, everything: bool = False) -> bool:
    """Somebody asks by hand; `everything` gives every node a new configuration. Tells whether it will be done."""
    if ctx.store.settings.get().generation_policy == "none":
        return False
    queue.defer(ctx.store, group_refresh.TASK, dedupe_key=group_refresh.TASK)
    _ask(ctx, None, manual=True, afresh=everything)
    return True


def retry_later(ctx: Context, failed: Generation) -> None:
    """After a failure of ours: what was missed is tried again in a while, also when nobody asks."""
    ctx.store.generations.ask(failed.concerns, manual=failed.manual, afresh=failed.afresh)
    queue.defer(ctx.store, TASK, delay=_RETRY_DELAY, dedupe_key=TASK)


def _ask(ctx: Context, concerns: Concerns, *, manual: bool = False, afresh: bool = False) -> None:
    ctx.store.generations.ask(concerns, manual=manual, afresh=afresh)
    queue.defer(ctx.store, TASK, dedupe_key=TASK)


def _concerns(happened: Iterable[Event]) -> Concerns:
    found: dict[str, set[str]] = {}
    for event in happened:
        match event:
            case events.RuleChanged():
                found.setdefault("rules", set()).add(event.rule)
            case events.DirectiveChanged():
                found.setdefault("directives", set()).add(event.directive)
            case events.TechniqueChanged():
                found.setdefault("techniques", set()).add(event.technique.id)
            case events.GroupChanged() | events.GroupMembersChanged():
                found.setdefault("groups", set()).add(event.group)
            case events.NodeAccepted() | events.NodeChanged() | events.NodeRemoved() | events.InventoryChanged():
                found.setdefault("nodes", set()).add(event.node)
            case _:
                return None
    return {kind: sorted(ids) for kind, ids in found.items()}


# -- looking ------------------------------------------------------------------------


def generations(ctx: Context, limit: int = 10) -> list[Generation]:
    """The newest generations, newest first, with what waits and what runs."""
    return ctx.store.generations.latest(limit)


def generation_errors(ctx: Context) -> dict[NodeId, str]:
    """Nodes that keep their former policy because a new one could not be made, and why."""
    return ctx.store.policies.errors()


def find(ctx: Context, node: str) -> StoredPolicy | None:
    """The present policy of a node, or None when none was generated yet."""
    return ctx.store.policies.find(node)


# -- keeping what changed ------------------------------------------------------------------


def save(ctx: Context, generation: Generation, taken: Snapshot, parts: Iterable[Generated]) -> int:
    """Keep the policies that differ from those kept, part by part as they come; returns how many nodes changed."""
    writer = _Writer(ctx, generation, taken)
    for part in parts:
        writer.keep(part)
    return writer.finish()


class _Writer:
    """One generation on its way into the database."""

    def __init__(self, ctx: Context, generation: Generation, taken: Snapshot) -> None:
        self._ctx = ctx
        self._generation = generation
        self._taken = taken
        self._begun = generation.started_at or ctx.now
        self._groups = {node.id: node.groups for node in taken.fleet.nodes}
        self._written = ctx.store.policies.written(taken.scope)
        self._outlines: dict[tuple[Any, ...], str] = {}
        self._errors: dict[NodeId, str] = {}
        self._changed: list[NodeId] = []

    def keep(self, part: Generated) -> None:
        """Keep one part's policies where they changed."""
        fresh: dict[str, Outline] = {}
        changed, reoutlined = [], {}
        for policy in part.policies:
            outline = self._outline(policy, fresh)
            before = self._written.get(policy.node)
            if self._generation.afresh or before is None or before.digest != policy.digest:
                changed.append((policy, policies.name_configuration(policy.digest, self._begun), outline))
            elif before.outline != outline:
                reoutlined[policy.node] = outline
        self._errors.update(part.errors)
        store = self._ctx.store.policies
        if changed or reoutlined:
            store.put_fragments(part.fragments)
            store.put_outlines(fresh)
            store.put(changed, self._begun)
            store.reoutline(reoutlined)
        self._changed.extend(policy.node for policy, _, _ in changed)

    def _outline(self, policy: NodePolicy, fresh: dict[str, Outline]) -> str:
        some = self._taken.rules_of.get(policy.node, ())
        key = (policy.fragments, some, self._groups[policy.node], policy.overridden)
        digest = self._outlines.get(key)
        if digest is None:
            outline = Outline(fragments=key[0], rules=key[1], groups=key[2], overridden=key[3])
            digest = self._outlines[key] = outline.digest()
            fresh[digest] = outline
        return digest

    def finish(self) -> int:
        """Note errors, drop what nobody needs, let compliance follow."""
        store = self._ctx.store
        store.policies.put_errors(self._taken.scope, self._errors)
        dropped = store.policies.drop_gone()
        if self._changed or dropped:
            store.policies.sweep()
        store.technique_resources.sweep()
        for batch in _batches([*self._changed, *dropped], _COMPLIANCE_BATCH):
            queue.defer(store, COMPLIANCE_TASK, batch)
        message = _summary(len(self._errors))
        numbers = {"nodes_total": len(self._groups), "nodes_changed": len(self._changed)}
        store.generations.end(self._generation.id, "done", message, **numbers)
        return len(self._changed)


def _batches(nodes: Sequence[NodeId], size: int) -> Iterator[Sequence[NodeId]]:
    for start in range(0, len(nodes), size):
        yield nodes[start : start + size]


def _summary(errors: int) -> str:
    return f"Generation ended but some nodes were in errors: {errors}" if errors else ""
