# SPDX-License-Identifier: Apache-2.0
"""Policies as generated: rows in bulk, and the one that a node fetches. What to generate stands in `generations.py`.

A node's row has what is its own; what it shares with others is in outlines and fragments, content-addressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy
from sqlalchemy.dialects.postgresql import ARRAY, insert

from quarterdeck.core import policy_items
from quarterdeck.core.ids import GroupId, NodeId, RuleId
from quarterdeck.core.policies import NodePolicy, Overridden
from quarterdeck.storage import tables
from quarterdeck.storage.driver import raw_connection, translated

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_policies = tables.node_policies
_outlines = tables.policy_outlines
_fragments = tables.policy_fragments
_errors = tables.generation_errors
_nodes = tables.nodes

_WRITTEN = ("node_id", "config_id", "digest", "outline", "head", "hole_values")
_KEEP_POLICIES = (
    f"INSERT INTO node_policies ({', '.join(_WRITTEN)}, begin_at) SELECT new.*, %b "  # noqa: S608  # our own names
    "FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::bytea[]) "
    f"AS new ({', '.join(_WRITTEN)}) WHERE EXISTS (SELECT FROM nodes WHERE nodes.id = new.node_id) "
    "ON CONFLICT (node_id) DO UPDATE SET begin_at = excluded.begin_at, signature = NULL, "
    + ", ".join(f"{name} = excluded.{name}" for name in _WRITTEN[1:])
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A node's policy as `core.policies.assemble` and `items` take it."""

    policy: NodePolicy
    config_id: str
    begin_at: datetime
    #: the bytes of every fragment that the policy names
    fragments: Mapping[str, bytes]
    #: None until the node first fetched this configuration
    signature: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What nodes of the same groups, rules and mode share."""

    fragments: tuple[str, ...]
    rules: tuple[RuleId, ...]
    groups: tuple[GroupId, ...]
    overridden: tuple[Overridden, ...]

    def digest(self) -> str:
        """Equal for equal outlines."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Written(NamedTuple):
    """What tells whether a node's row is still right."""

    digest: str
    outline: str


class PolicyTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    # -- reading ----------------------------------------------------------------

    def find(self, node: str) -> StoredPolicy | None:
        """The policy of one node, or None when none was generated yet."""
        found = self.load([node])
        return found[0] if found else None

    def load(self, nodes: Sequence[str]) -> list[StoredPolicy]:
        """The policies of these nodes, sorted by id, those without one left out."""
        query = (
            sqlalchemy.select(_policies, _outlines.c.fragments, _outlines.c.overridden)
            .join(_outlines, _outlines.c.digest == _policies.c.outline)
            .where(_policies.c.node_id.in_(list(nodes)))
            .order_by(_policies.c.node_id)
        )
        while True:
            rows = self._store.rows(query)
            wanted = {digest for row in rows for digest in row.fragments}
            bodies = self._bodies(wanted)
            if len(bodies) == len(wanted):
                return [_stored(row, {digest: bodies[digest] for digest in row.fragments}) for row in rows]
            # A generation was committed in between, and what only the former policies used is gone.

    def _bodies(self, digests: Iterable[str]) -> dict[str, bytes]:
        query = sqlalchemy.select(_fragments).where(_fragments.c.digest.in_(list(digests)))
        return {row.digest: bytes(row.body) for row in self._store.rows(query)}

    def config_ids(self, nodes: Iterable[str] | None = None) -> dict[NodeId, str]:
        """The configuration id of each of these nodes, or of all, that has a policy."""
        query = sqlalchemy.select(_policies.c.node_id, _policies.c.config_id)
        if nodes is not None:
            query = query.where(_policies.c.node_id.in_(list(nodes)))
        return {NodeId(row.node_id): row.config_id for row in self._store.rows(query)}

    def sign(self, node: str, config_id: str, signature: bytes) -> None:
        """Keep the signature of a node's document; nothing happens when the configuration is another by now."""
        here = (_policies.c.node_id == node) & (_policies.c.config_id == config_id)
        self._store.run(sqlalchemy.update(_policies).where(here).values(signature=signature))

    def errors(self) -> dict[NodeId, str]:
        """Nodes that the last generation could not serve, and why."""
        return {NodeId(row.node_id): row.message for row in self._store.rows(sqlalchemy.select(_errors))}

    def built_from(self, *, rules: Iterable[RuleId], groups: Iterable[GroupId]) -> set[NodeId]:
        """Nodes whose present policy was made while one of these rules applied or they were in one of these groups."""
        some_rules = sqlalchemy.cast(list(rules), ARRAY(tables.Id))
        some_groups = sqlalchemy.cast(list(groups), ARRAY(tables.Id))
        query = (
            sqlalchemy.select(_policies.c.node_id)
            .join(_outlines, _outlines.c.digest == _policies.c.outline)
            .where(_outlines.c.rules.overlap(some_rules) | _outlines.c.groups.overlap(some_groups))
        )
        return {NodeId(row.node_id) for row in self._store.rows(query)}

    def naming(self, content: str, nodes: Iterable[str] | None = None) -> set[NodeId]:
        """Those of these nodes, or of all, whose present policy names a resource with this SHA-256 (hex)."""
        named = sqlalchemy.select(_fragments.c.digest).where(
            sqlalchemy.literal(content, tables.Id) == sqlalchemy.any_(_fragments.c.resources)
        )
        fragments = sqlalchemy.cast([row.digest for row in self._store.rows(named)], ARRAY(tables.Id))
        query = (
            sqlalchemy.select(_policies.c.node_id)
            .join(_outlines, _outlines.c.digest == _policies.c.outline)
            .where(_outlines.c.fragments.overlap(fragments))
        )
        if nodes is not None:
            query = query.where(_policies.c.node_id.in_(list(nodes)))
        return {NodeId(row.node_id) for row in self._store.rows(query)}

    def written(self, nodes: Sequence[str] | None) -> dict[NodeId, Written]:
        """What is kept of these nodes, or of all."""
        query = sqlalchemy.select(_policies.c.node_id, _policies.c.digest, _policies.c.outline)
        if nodes is not None:
            query = query.where(_policies.c.node_id.in_(list(nodes)))
        return {NodeId(row.node_id): Written(row.digest, row.outline) for row in self._store.rows(query)}

    # -- writing in bulk ------------------------------------------------------------

    def put_fragments(self, fragments: Mapping[str, bytes]) -> None:
        """Keep fragments; those known already cost a look."""
        known = {
            row.digest
            for row in self._store.rows(
                sqlalchemy.select(_fragments.c.digest).where(_fragments.c.digest.in_(list(fragments)))
            )
        }
        rows = [
            {"digest": digest, "body": body, "resources": list(policy_items.contents_of(body))}
            for digest, body in sorted(fragments.items())
            if digest not in known
        ]
        if rows:
            self._store.run(insert(_fragments).on_conflict_do_nothing(), rows)

    def put_outlines(self, outlines: Mapping[str, Outline]) -> None:
        """Keep outlines by their digest."""
        rows = [
            {
                "digest": digest,
                "fragments": list(one.fragments),
                "rules": list(one.rules),
                "groups": list(one.groups),
                "overridden": [list(some) for some in one.overridden],
            }
            for digest, one in sorted(outlines.items())
        ]
        if rows:
            self._store.run(insert(_outlines).on_conflict_do_nothing(), rows)

    def put(self, policies: Iterable[tuple[NodePolicy, str, str]], begin_at: datetime) -> None:
        """Keep changed policies: (policy, configuration id, outline). Nodes that are gone meanwhile are left out."""
        rows = [
            (policy.node, config_id, policy.digest, outline, policy.head, _values_json(policy))
            for policy, config_id, outline in policies
        ]
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            with translated():
                raw_connection(self._store).execute(_KEEP_POLICIES, [begin_at, *columns])

    def reoutline(self, outlines: Mapping[NodeId, str]) -> None:
        """Note other groups, rules or overrides of nodes whose documents stay as they are."""
        statement = (
            sqlalchemy.update(_policies)
            .where(_policies.c.node_id == sqlalchemy.bindparam("node"))
            .values(outline=sqlalchemy.bindparam("new"))
        )
        if outlines:
            self._store.run(statement, [{"node": node, "new": outline} for node, outline in sorted(outlines.items())])

    def put_errors(self, nodes: Sequence[str] | None, errors: Mapping[NodeId, str]) -> None:
        """Of these nodes, or of all, exactly those in `errors` could not be served."""
        statement = sqlalchemy.delete(_errors)
        self._store.run(statement if nodes is None else statement.where(_errors.c.node_id.in_(list(nodes))))
        rows = [{"node_id": node, "message": text, "at": self._store.now} for node, text in sorted(errors.items())]
        if rows:
            self._store.run(insert(_errors), rows)

    def drop_gone(self) -> list[NodeId]:
        """Forget the policies and errors of nodes that are not accepted; returns the nodes that had policies."""
        accepted = sqlalchemy.select(_nodes.c.id).where(_nodes.c.status == "accepted")
        self._store.run(sqlalchemy.delete(_errors).where(_errors.c.node_id.not_in(accepted)))
        gone = sqlalchemy.delete(_policies).where(_policies.c.node_id.not_in(accepted)).returning(_policies.c.node_id)
        return [NodeId(row.node_id) for row in self._store.rows(gone)]

    def sweep(self) -> None:
        """Forget outlines and fragments that no policy uses."""
        used = sqlalchemy.select(_policies.c.outline)
        if not self._store.run(sqlalchemy.delete(_outlines).where(_outlines.c.digest.not_in(used))).rowcount:
            return
        kept = sqlalchemy.select(sqlalchemy.func.unnest(_outlines.c.fragments))
        self._store.run(sqlalchemy.delete(_fragments).where(_fragments.c.digest.not_in(kept)))


def _values_json(policy: NodePolicy) -> bytes:
    return msgspec.json.encode(policy.values, order="deterministic")


def _stored(row: sqlalchemy.Row[Any], fragments: Mapping[str, bytes]) -> StoredPolicy:
    policy = NodePolicy(
        node=NodeId(row.node_id),
        digest=row.digest,
        head=bytes(row.head),
        fragments=tuple(row.fragments),
        values=msgspec.json.decode(row.hole_values),
        overridden=tuple(Overridden(*one) for one in row.overridden),
    )
    return StoredPolicy(
        policy=policy,
        config_id=row.config_id,
        begin_at=row.begin_at,
        fragments=fragments,
        signature=bytes(row.signature) if row.signature is not None else None,
    )
