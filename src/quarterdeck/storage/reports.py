# SPDX-License-Identifier: Apache-2.0
"""Runs and what they reported, in bulk: one statement per table and batch, COPY where rows are new.

What an unchanged run leaves is one narrow row, and a change of place of its node's row in `node_status`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import sqlalchemy
import zstandard

from quarterdeck.core.ids import NodeId
from quarterdeck.storage import tables
from quarterdeck.storage.driver import raw_connection, translated
from quarterdeck.storage.partitions import DailyPartitions

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_status = tables.node_status
_compliance = tables.node_compliance
_states = tables.report_states
_DAYS = DailyPartitions("runs", "start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is kept of a node's last run, and of the compliance that came of it. None where there was none."""

    last_run: datetime | None
    run_config_id: str
    run_digest: bytes | None
    valid_until: datetime | None
    #: of the configuration that compliance was computed for
    config_id: str | None
    state: str | None


class RunRow(NamedTuple):
    node: str
    start: datetime
    duration_ms: int
    config_id: str
    digest: bytes


class StatusRow(NamedTuple):
    """A node's latest run. `valid_until` is None when compliance does not depend on time."""

    node: str
    last_run: datetime
    config_id: str
    digest: bytes
    valid_until: datetime | None


class ReportKey(NamedTuple):
    """Everything that identifies a report within its node's run."""

    rule: str
    directive: str
    component: str
    value: str
    report_id: str
    ordinal: int

    def digest(self) -> bytes:
        """Short, and equal for equal keys."""
        return hashlib.sha256("\0".join((*self[:5], str(self.ordinal))).encode()).digest()[:16]


class StateRow(NamedTuple):
    """One report. `status` is its number."""

    key: ReportKey
    status: int
    message: str
    since: datetime


class ReportTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    # -- reading ----------------------------------------------------------------

    def known(self, nodes: Collection[str]) -> dict[NodeId, Known]:
        """What is known of each of these nodes that ever ran or was judged."""
        query = (
            sqlalchemy.select(
                tables.nodes.c.id,
                _status.c.last_run,
                _status.c.last_run_config_id,
                _status.c.last_run_digest,
                _status.c.valid_until,
                _compliance.c.config_id,
                _compliance.c.state,
            )
            .outerjoin_from(tables.nodes, _status, _status.c.node_id == tables.nodes.c.id)
            .outerjoin(_compliance, _compliance.c.node_id == tables.nodes.c.id)
            .where(tables.nodes.c.id.in_(list(nodes)))
        )
        return {
            NodeId(row.id): Known(
                last_run=row.last_run,
                run_config_id=row.last_run_config_id or "",
                run_digest=bytes(row.last_run_digest) if row.last_run_digest is not None else None,
                valid_until=row.valid_until,
                config_id=row.config_id,
                state=row.state,
            )
            for row in self._store.rows(query)
        }

    def states(
        self, nodes: Collection[str] | None, *, rule: str | None = None, directive: str | None = None
    ) -> dict[NodeId, dict[bytes, StateRow]]:
        """What the last runs of these nodes, or of all, reported, by the digest of its key; or a part of it."""
        columns = "node_id, key, rule_id, directive_id, component, value, report_id, ordinal, status, message, since"
        wanted = {
            "node_id = ANY(%s)": list(nodes) if nodes is not None else None,
            "rule_id = %s": rule,
            "directive_id = %s": directive,
        }
        given = {condition: value for condition, value in wanted.items() if value is not None}
        query = f"SELECT {columns} FROM report_states WHERE {' AND '.join(['true', *given])}"  # noqa: S608  # own names
        found: dict[NodeId, dict[bytes, StateRow]] = {}
        with translated(), raw_connection(self._store).cursor(binary=True) as cursor:
            cursor.execute(query, list(given.values()))
            for node, key, *identity, status, message, since in cursor:
                rows = found.setdefault(NodeId(node), {})
                rows[bytes(key)] = StateRow(ReportKey(*identity), status, message, since)
        return found

    # -- writing ----------------------------------------------------------------

    def lock(self, nodes: Collection[str]) -> None:
        """Keep others from changing the status of these nodes until the end of the unit of work."""
        self._execute(
            "INSERT INTO node_status (node_id) SELECT id FROM nodes WHERE id = ANY(%s) ORDER BY id "
            "ON CONFLICT (node_id) DO NOTHING",
            [list(nodes)],
        )
        self._execute("SELECT FROM node_status WHERE node_id = ANY(%s) ORDER BY node_id FOR UPDATE", [list(nodes)])

    def add_runs(self, rows: Sequence[RunRow]) -> set[tuple[str, datetime]]:
        """Keep runs; (node, start) of those that were not there yet."""
        if not rows:
            return set()
        columns = list(zip(*rows, strict=True))
        cursor = self._execute(
            "WITH new AS (SELECT * FROM unnest(%b::text[], %b::timestamptz[], %b::integer[], %b::text[], %b::bytea[]) "
            "AS new (node_id, start, duration_ms, config_id, digest)), "
            "kept AS (INSERT INTO runs (node, start, duration_ms, config_id, digest) "
            "SELECT s.number, new.start, new.duration_ms, new.config_id, new.digest "
            "FROM new JOIN node_status s ON s.node_id = new.node_id ON CONFLICT DO NOTHING RETURNING node, start) "
            "SELECT s.node_id, kept.start FROM kept JOIN node_status s ON s.number = kept.node",
            [list(column) for column in columns],
        )
        return {(node, start) for node, start in cursor.fetchall()}

    def missing_bodies(self, digests: Collection[bytes]) -> set[bytes]:
        """Those of which nothing is kept."""
        known = self._execute("SELECT digest FROM run_bodies WHERE digest = ANY(%s)", [list(digests)]).fetchall()
        return set(digests) - {bytes(row[0]) for row in known}

    def add_bodies(self, bodies: Mapping[bytes, bytes]) -> None:
        """Keep what runs reported, compressed."""
        compressor = zstandard.ZstdCompressor(level=3)
        packed = [(digest, compressor.compress(body)) for digest, body in sorted(bodies.items())]
        if packed:
            self._execute(
                "INSERT INTO run_bodies (digest, body) SELECT * FROM unnest(%b::bytea[], %b::bytea[]) "
                "ON CONFLICT DO NOTHING",
                [[digest for digest, _ in packed], [body for _, body in packed]],
            )

    def body(self, digest: bytes) -> bytes | None:
        """What a run reported, as JSON."""
        row = self._execute("SELECT body FROM run_bodies WHERE digest = %s", [digest]).fetchone()
        return zstandard.ZstdDecompressor().decompress(row[0]) if row is not None else None

    def runs(self, node: str, limit: int) -> list[RunRow]:
        """The latest runs of a node, newest first."""
        rows = self._execute(
            "SELECT s.node_id, r.start, r.duration_ms, r.config_id, r.digest FROM runs r "
            "JOIN node_status s ON s.number = r.node WHERE s.node_id = %s ORDER BY r.start DESC LIMIT %s",
            [node, limit],
        )
        return [RunRow(node, start, ms, config, bytes(digest)) for node, start, ms, config, digest in rows]

    def original(self, node: str, start: datetime) -> bytes | None:
        """The signed parcel of a run, when it is kept."""
        query = "SELECT parcel FROM raw_runs WHERE node_id = %s AND start = %s"
        row = self._execute(query, [node, start]).fetchone()
        return bytes(row[0]) if row is not None else None

    def add_originals(self, originals: Sequence[tuple[str, datetime, bool, bytes]]) -> None:
        """Keep signed originals: (node, start, changed, parcel); older ones of unchanged runs go."""
        if not originals:
            return
        columns = list(zip(*originals, strict=True))
        self._execute(
            "DELETE FROM raw_runs USING unnest(%b::text[], %b::timestamptz[]) AS new (node, start) "
            "WHERE raw_runs.node_id = new.node AND raw_runs.start < new.start AND NOT raw_runs.changed",
            [list(columns[0]), list(columns[1])],
        )
        self._execute(
            "INSERT INTO raw_runs (node_id, start, changed, parcel) "
            "SELECT * FROM unnest(%b::text[], %b::timestamptz[], %b::boolean[], %b::bytea[]) ON CONFLICT DO NOTHING",
            [list(column) for column in columns],
        )

    def set_status(self, rows: Sequence[StatusRow]) -> None:
        """Note the latest runs of nodes whose status rows are locked."""
        columns = [list(column) for column in zip(*sorted(rows), strict=True)]
        self._execute(
            "UPDATE node_status SET last_run = new.last_run, last_run_config_id = new.config_id, "
            "last_run_digest = new.digest, valid_until = new.valid_until, last_contact = %s "
            "FROM unnest(%b::text[], %b::timestamptz[], %b::text[], %b::bytea[], %b::timestamptz[]) "
            "AS new (node_id, last_run, config_id, digest, valid_until) WHERE node_status.node_id = new.node_id",
            [self._store.now, *columns],
        )

    def replace_states(self, gone: Sequence[tuple[str, bytes]], new: Iterable[tuple[str, bytes, StateRow]]) -> None:
        """Drop some report rows, by (node, key), and add others: (node, key, row)."""
        if gone:
            self._execute(
                "DELETE FROM report_states USING unnest(%b::text[], %b::bytea[]) AS gone (node_id, key) "
                "WHERE report_states.node_id = gone.node_id AND report_states.key = gone.key",
                [[node for node, _ in gone], [key for _, key in gone]],
            )
        copying = (
            "COPY report_states (node_id, key, rule_id, directive_id, component, value, report_id, ordinal, status, "
            "message, since) FROM STDIN (FORMAT BINARY)"
        )
        with translated(), raw_connection(self._store).cursor() as cursor, cursor.copy(copying) as copy:
            copy.set_types(_STATE_TYPES)
            for node, key, row in new:
                copy.write_row((node, key, *row.key, row.status, row.message, row.since))

    # -- partitions and retention -----------------------------------------------

    def ensure_partition(self, day: date) -> None:
        """Make the partition of a day (UTC) unless it is there."""
        _DAYS.ensure(self._store, day)

    def drop_runs_before(self, day: date) -> int:
        """Forget the runs of all days before this one (UTC), and bodies and originals of nothing; dropped days."""
        dropped = _DAYS.drop_before(self._store, day)
        self._execute("DELETE FROM raw_runs WHERE start < %s AND changed", [datetime.combine(day, time(), UTC)])
        self._execute(
            "DELETE FROM run_bodies WHERE NOT EXISTS (SELECT FROM runs WHERE runs.digest = run_bodies.digest)", []
        )
        return dropped

    def _execute(self, query: Any, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        with translated():
            return raw_connection(self._store).execute(query, parameters)


_STATE_TYPES = ("text", "bytea", "text", "text", "text", "text", "text", "int4", "int2", "text", "timestamptz")
