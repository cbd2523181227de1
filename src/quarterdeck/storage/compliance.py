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

from quarterdeck.core.compliance import Counts, Status
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


class Tally(NamedTuple):
    """Counters of one or many nodes, with their sums."""

    counters: tuple[Counter, ...]
    totals: Counts
    silent: int


class Group(NamedTuple):
    """Nodes with the same counters. `expired`: their time is up, they count as silent."""

    expired: bool
    nodes: int
    #: digest of the counters
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
        query = "SELECT node_id, config_id, state, status_since, counters FROM node_compliance"
        condition, parameters = (" WHERE node_id = ANY(%s)", [list(nodes)]) if nodes is not None else ("", [])
        while True:
            rows = self._execute(query + condition, parameters).fetchall()
            wanted = {bytes(row[4]) for row in rows}
            tallies = self.tallies(wanted)
            if len(tallies) == len(wanted):
                return {NodeId(row[0]): _judged(row, tallies[bytes(row[4])]) for row in rows}
            # In between the nodes that counted something were decided about again, and it was swept away.

    def tallies(self, digests: Collection[bytes]) -> dict[bytes, Tally]:
        """Counters by their digest."""
        query = "SELECT digest, counters::text, totals, silent FROM compliance_counters WHERE digest = ANY(%s)"
        return {
            bytes(digest): Tally(_decode(text), tuple(totals), silent)
            for digest, text, totals, silent in self._execute(query, [list(digests)])
        }

    def counters(self, digests: Collection[bytes]) -> dict[bytes, tuple[Counter, ...]]:
        """Counters by their digest, without their sums."""
        return {digest: tally.counters for digest, tally in self.tallies(digests).items()}

    def groups(self) -> list[Group]:
        """All nodes, grouped by what they count. Two narrow scans, for this is asked often."""
        nodes = dict(self._execute("SELECT counters, count(*) FROM node_compliance GROUP BY counters").fetchall())
        late = self._execute(
            "SELECT c.counters, count(*) FROM node_status s JOIN node_compliance c ON c.node_id = s.node_id "
            "WHERE s.valid_until <= %s GROUP BY c.counters",
            [self._store.now],
        )
        expired = dict(late.fetchall())
        query = "SELECT digest, totals, silent FROM compliance_counters WHERE digest = ANY(%s)"
        found = []
        for digest, totals, silent in self._execute(query, [list(nodes)]):
            silenced = min(expired.get(digest, 0), nodes[digest])
            for is_expired, count in ((False, nodes[digest] - silenced), (True, silenced)):
                if count:
                    found.append(Group(is_expired, count, digest, tuple(totals), silent))
        return found

    def total(self) -> Counts:
        """All values of all nodes; those of nodes whose time is up count as silent."""
        row = self._execute(_TOTAL, [self._store.now]).fetchone()
        assert row is not None
        *sums, silent = (int(one) for one in row)
        sums[Status.NO_REPORT] += silent
        return tuple(sums)

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
        tallies = {}
        digests = {}
        for one in verdicts:
            text = msgspec.json.encode(one.counters)
            digest = digests[one.node] = hashlib.sha256(text).digest()[:16]
            tallies[digest] = (text.decode(), _array(one.totals), one.silent)
        self._put_tallies(tallies)
        ordered = sorted(verdicts, key=lambda one: one.node)
        self._execute(
            "INSERT INTO node_compliance (node_id, config_id, state, status_since, counters, computed_at) "
            "SELECT node_id, config_id, state, since, counters, %s "
            "FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::bytea[]) "
            "AS new (node_id, config_id, state, since, counters) "
            "ON CONFLICT (node_id) DO UPDATE SET config_id = excluded.config_id, state = excluded.state, "
            "status_since = excluded.status_since, counters = excluded.counters, computed_at = excluded.computed_at",
            [
                self._store.now,
                [one.node for one in ordered],
                [one.config_id for one in ordered],
                [one.state for one in ordered],
                [one.status_since for one in ordered],
                [digests[one.node] for one in ordered],
            ],
        )

    def _put_tallies(self, tallies: Mapping[bytes, tuple[str, str, int]]) -> None:
        ordered = sorted(tallies.items())
        # Together with the other lock: none of these goes before the nodes that have them are committed.
        self._execute("SELECT pg_advisory_xact_lock_shared(%s)", [_SWEEP_LOCK])
        self._execute(
            "INSERT INTO compliance_counters (digest, counters, totals, silent) "
            "SELECT digest, counters::jsonb, totals::integer[], silent "
            "FROM unnest(%b::bytea[], %b::text[], %b::text[], %b::integer[]) AS new (digest, counters, totals, silent) "
            "ON CONFLICT DO NOTHING",
            [
                [digest for digest, _ in ordered],
                [text for _, (text, _, _) in ordered],
                [totals for _, (_, totals, _) in ordered],
                [silent for _, (_, _, silent) in ordered],
            ],
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


#: Summed in the database, once per different counters: reading a thousand arrays takes longer than adding them.
_TOTAL = (
    "WITH alike AS (SELECT counters, count(*) AS n FROM node_compliance GROUP BY counters), "  # noqa: S608  # own names
    "late AS (SELECT c.counters, count(*) AS n FROM node_status s JOIN node_compliance c ON c.node_id = s.node_id "
    "WHERE s.valid_until <= %s GROUP BY c.counters) SELECT "
    + ", ".join(f"coalesce(sum((alike.n - coalesce(late.n, 0)) * c.totals[{place + 1}]), 0)" for place in Status)
    + ", coalesce(sum(late.n * c.silent), 0) FROM alike LEFT JOIN late ON late.counters = alike.counters "
    "JOIN compliance_counters c ON c.digest = alike.counters"
)


def _judged(row: Sequence[Any], tally: Tally) -> Judged:
    node, config_id, state, since, _ = row
    return Judged(
        node=NodeId(node),
        config_id=config_id,
        state=state,
        status_since=since,
        totals=tally.totals,
        silent=tally.silent,
        counters=tally.counters,
    )


def _array(counts: Counts) -> str:
    return "{" + ",".join(map(str, counts)) + "}"


def _decode(text: str) -> tuple[Counter, ...]:
    return tuple(
        Counter(rule, directive, tuple(counts), silent, promise)
        for rule, directive, counts, silent, promise in msgspec.json.decode(text)
    )
