# SPDX-License-Identifier: Apache-2.0
"""Compliance of nodes as it was last decided: one narrow row per node, counters shared by those that have the same.

Whoever reads compares `valid_until` with the present moment, so that a late sweep never makes an answer wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import psycopg

from quarterdeck.core.compliance import Counts
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId
from quarterdeck.core.modes import OwnMode, PolicyMode
from quarterdeck.core.policies import Overridden
from quarterdeck.storage.driver import raw_connection, translated

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store


class Counter(NamedTuple):
    """One directive on one node. `promise` is what the last run that counted had to keep; empty when there is none."""

    rule: RuleId
    directive: DirectiveId
    counts: Counts
    #: How many values there are to miss when the node is silent.
    silent: int
    promise: str


#: Any constant.
_SWEEP_LOCK = 0x636F_756E


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was decided about a node, and until when that holds."""

    node: NodeId
    config_id: str
    state: str
    status_since: datetime
    totals: Counts
    silent: int
    counters: tuple[Counter, ...]


class Group(NamedTuple):
    """Nodes with the same counters. `expired`: their time is up, they count as silent."""

    expired: bool
    nodes: int
    counters: bytes
    totals: Counts
    silent: int


class Subject(NamedTuple):
    """A node that compliance is about."""

    node: NodeId
    last_run: datetime | None
    run_config_id: str


class ComplianceTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    # -- reading ----------------------------------------------------------------

    def subjects(self, nodes: Collection[str]) -> list[Subject]:
        """Those of these nodes that are accepted and not ignored, sorted by id."""
        rows = self._execute(
            "SELECT n.id, s.last_run, coalesce(s.last_run_config_id, '') FROM nodes n "
            "LEFT JOIN node_status s ON s.node_id = n.id "
            "WHERE n.id = ANY(%s) AND n.status = 'accepted' AND n.state <> 'ignored' ORDER BY n.id",
            [list(nodes)],
        )
        return [Subject(NodeId(node), last_run, config) for node, last_run, config in rows]

    def judged(self, nodes: Collection[str] | None) -> dict[NodeId, Judged]:
        """What was decided about these nodes, or about all."""
        query = "SELECT node_id, config_id, state, status_since, totals, silent, counters FROM node_compliance"
        if nodes is None:
            rows = self._execute(query).fetchall()
        else:
            rows = self._execute(f"{query} WHERE node_id = ANY(%s)", [list(nodes)]).fetchall()
        counters = self.counters({bytes(row[6]) for row in rows})
        return {
            NodeId(node): Judged(
                node=NodeId(node),
                config_id=config_id,
                state=state,
                status_since=since,
                totals=tuple(totals),
                silent=silent,
                counters=counters.get(bytes(digest), ()),
            )
            for node, config_id, state, since, totals, silent, digest in rows
        }

    def counters(self, digests: Collection[bytes]) -> dict[bytes, tuple[Counter, ...]]:
        """Counters by their digest."""
        query = "SELECT digest, counters::text FROM compliance_counters WHERE digest = ANY(%s)"
        rows = self._execute(query, [list(digests)])
        return {bytes(digest): _decode(text) for digest, text in rows}

    def groups(self) -> list[Group]:
        """All nodes, grouped by what they count."""
        rows = self._execute(
            "SELECT coalesce(s.valid_until <= %s, false), count(*), c.counters, c.totals, c.silent "
            "FROM node_compliance c LEFT JOIN node_status s ON s.node_id = c.node_id GROUP BY 1, 3, 4, 5",
            [self._store.now],
        )
        return [
            Group(expired, nodes, bytes(key), tuple(totals), silent) for expired, nodes, key, totals, silent in rows
        ]

    def expired_nodes(self, nodes: Collection[str] | None = None) -> set[NodeId]:
        """Nodes whose time is up, among these or all."""
        query = (
            "SELECT s.node_id FROM node_status s JOIN node_compliance c ON c.node_id = s.node_id "
            "WHERE s.valid_until <= %s"
        )
        if nodes is None:
            return {NodeId(row[0]) for row in self._execute(query, [self._store.now])}
        rows = self._execute(f"{query} AND s.node_id = ANY(%s)", [self._store.now, list(nodes)])
        return {NodeId(row[0]) for row in rows}

    def node_names(self, nodes: Collection[str] | None = None) -> dict[NodeId, tuple[str, OwnMode]]:
        """Host name and own policy mode of these accepted nodes, or of all."""
        query = "SELECT id, hostname, mode FROM nodes WHERE status = 'accepted'"
        rows = self._execute(query) if nodes is None else self._execute(f"{query} AND id = ANY(%s)", [list(nodes)])
        return {
            NodeId(node): (hostname, PolicyMode(mode) if mode is not None else None) for node, hostname, mode in rows
        }

    def overridden(self, nodes: Collection[str]) -> dict[NodeId, tuple[Overridden, ...]]:
        """Directives that gave way to others, of those of these nodes that have any."""
        rows = self._execute(
            "SELECT p.node_id, o.overridden FROM node_policies p JOIN policy_outlines o ON o.digest = p.outline "
            "WHERE p.node_id = ANY(%s) AND jsonb_array_length(o.overridden) > 0",
            [list(nodes)],
        )
        return {NodeId(node): tuple(Overridden(*one) for one in some) for node, some in rows}

    # -- writing ----------------------------------------------------------------

    def put(self, verdicts: Sequence[Judged]) -> None:
        """Keep what was decided about nodes that exist."""
        if not verdicts:
            return
        encoded = {one.node: msgspec.json.encode(one.counters) for one in verdicts}
        digests = {node: hashlib.sha256(text).digest()[:16] for node, text in encoded.items()}
        self._put_counters({digests[node]: text for node, text in encoded.items()})
        ordered = sorted(verdicts, key=lambda one: one.node)
        self._execute(
            "INSERT INTO node_compliance (node_id, config_id, state, status_since, totals, silent, counters, "
            "computed_at) SELECT node_id, config_id, state, since, totals::integer[], silent, counters, %s "
            "FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::integer[], %b::bytea[])"
            " AS new (node_id, config_id, state, since, totals, silent, counters) "
            "ON CONFLICT (node_id) DO UPDATE SET config_id = excluded.config_id, state = excluded.state, "
            "status_since = excluded.status_since, totals = excluded.totals, silent = excluded.silent, "
            "counters = excluded.counters, computed_at = excluded.computed_at",
            [
                self._store.now,
                [one.node for one in ordered],
                [one.config_id for one in ordered],
                [one.state for one in ordered],
                [one.status_since for one in ordered],
                ["{" + ",".join(map(str, one.totals)) + "}" for one in ordered],
                [one.silent for one in ordered],
                [digests[one.node] for one in ordered],
            ],
        )

    def _put_counters(self, texts: Mapping[bytes, bytes]) -> None:
        ordered = sorted(texts.items())
        # Together with the other lock: none of these goes before the nodes that have them are committed.
        self._execute("SELECT pg_advisory_xact_lock_shared(%s)", [_SWEEP_LOCK])
        self._execute(
            "INSERT INTO compliance_counters (digest, counters) "
            "SELECT digest, counters::jsonb FROM unnest(%b::bytea[], %b::text[]) AS new (digest, counters) "
            "ON CONFLICT DO NOTHING",
            [[digest for digest, _ in ordered], [text.decode() for _, text in ordered]],
        )

    def set_valid_until(self, moments: Iterable[tuple[NodeId, datetime | None]]) -> None:
        """Note when nodes whose status rows are locked have to be looked at again."""
        ordered = sorted(moments, key=lambda one: one[0])
        if not ordered:
            return
        self._execute(
            "UPDATE node_status SET valid_until = new.valid_until "
            "FROM unnest(%b::text[], %b::timestamptz[]) AS new (node_id, valid_until) "
            "WHERE node_status.node_id = new.node_id",
            [[node for node, _ in ordered], [moment for _, moment in ordered]],
        )

    def forget(self, nodes: Collection[str]) -> None:
        """Compliance is no longer about these nodes."""
        self._execute("DELETE FROM node_compliance WHERE node_id = ANY(%s)", [list(nodes)])

    def sweep(self) -> None:
        """Forget counters that no node has."""
        self._execute("SELECT pg_advisory_xact_lock(%s)", [_SWEEP_LOCK])
        self._execute(
            "DELETE FROM compliance_counters c WHERE NOT EXISTS "
            "(SELECT FROM node_compliance n WHERE n.counters = c.digest)"
        )

    def _execute(self, query: Any, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        with translated():
            return raw_connection(self._store).execute(query, parameters)


def _decode(text: str) -> tuple[Counter, ...]:
    return tuple(
        Counter(rule, directive, tuple(counts), silent, promise)
        for rule, directive, counts, silent, promise in msgspec.json.decode(text)
    )
