# SPDX-License-Identifier: Apache-2.0
"""Reports from the spool into the database: each run once, only what changed, nothing lost to a bad neighbour."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from tests.agents import START, Agent, call, give_policy, item, report

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.errors import Conflict
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.engine import intake
from quarterdeck.engine.intake import Intake
from quarterdeck.formats import agent, run_documents
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.spool import Drain, Rejection, Spool
from quarterdeck.services import reports
from quarterdeck.services.context import Context
from quarterdeck.services.reports import Slip
from quarterdeck.storage.database import Database, Provenance, Store


class Reporting:
    """A database of its own, nodes with a policy, and the intake."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = START + timedelta(seconds=1)
        self.intake = Intake(database, clock=lambda: self.now)

    @contextmanager
    def unit_of_work(self, now: datetime = START) -> Iterator[Context]:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            store.now = now
            yield Context(account=SYSTEM, store=store)
            store.commit()

    def node(self, number: int = 1, *, key_number: int = 0) -> Agent:
        one = Agent(hostname=f"web{number}.example.com", key_number=key_number)
        with self.unit_of_work() as ctx:
            ctx.store.nodes.add(one.as_node())
            give_policy(ctx, [one.node], [item(call(1), call(2, value="/etc/issue"))])
        return one

    def take(self, *records: bytes) -> Sequence[Rejection]:
        return self.intake.take(records)

    def count(self, table: str) -> int:
        with self.unit_of_work() as ctx:
            return int(ctx.store.connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@pytest.fixture
def reporting(fresh_postgres_url: str) -> Iterator[Reporting]:
    database = Database(fresh_postgres_url, pool_size=4)
    yield Reporting(database)
    database.close()


def record(one: Agent, run: agent.Run, *, at: datetime | None = None, key: str = "") -> bytes:
    """What the spool holds for a run that arrived a second after its start."""
    arrival = at or datetime.fromisoformat(run["start"]) + timedelta(seconds=1)
    slip = Slip(
        node=one.node,
        nonce=os.urandom(16).hex(),
        at=arrival.timestamp(),
        key=key or reports.key_digest(one.certificate),
    )
    return reports.pack(slip, one.parcel("report", run))


def later(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


GOOD = [report(), report(id="call-2", value="/etc/issue")]
BAD = [report(), report(id="call-2", value="/etc/issue", status="result_error", message="no such directory")]


class Crowded(Database):
    """A database in which the next so many batches meet others."""

    met = 0

    @contextmanager
    def unit_of_work(self, by: Provenance) -> Iterator[Store]:
        if by.reason == "reports" and self.met:
            self.met -= 1
            raise Conflict("It met others.")
        with super().unit_of_work(by) as store:
            yield store


def test_a_batch_that_meets_others_is_kept_again_a_few_times(fresh_postgres_url: str) -> None:
    database, counters = Crowded(fresh_postgres_url, pool_size=2), Counters()
    reporting = Reporting(database)
    reporting.intake = Intake(database, clock=lambda: reporting.now, counters=counters)
    one = reporting.node()
    batch = record(one, one.run(GOOD))

    database.met = 5
    with pytest.raises(Conflict, match="met others"):
        reporting.take(batch)
    database.met = 4
    rejected = reporting.take(batch)
    kept = reporting.count("runs")
    database.close()

    assert (rejected, kept) == ([], 1)
    assert counters.snapshot()["transient_failures"] == 8


def test_a_run_is_kept_with_what_it_reported(reporting: Reporting) -> None:
    one = reporting.node()

    rejected = reporting.take(record(one, one.run(GOOD)))

    assert rejected == []
    with reporting.unit_of_work() as ctx:
        [run] = ctx.store.reports.runs(one.node, 10)
        assert (run.start, run.duration_ms, run.config_id) == (START, 1000, "20261121-115900-00000001")
        assert b"/etc/issue" in (ctx.store.reports.body(run.digest) or b"")
        states = ctx.store.reports.states([one.node])[NodeId(one.node)]
        assert {(row.key.value, row.status) for row in states.values()} == {("/etc/motd", 0), ("/etc/issue", 0)}
        assert ctx.store.nodes.run_status([one.node])[NodeId(one.node)].last_run == START


def test_a_run_delivered_twice_is_stored_once(reporting: Reporting) -> None:
    one = reporting.node()
    run = one.run(GOOD)

    reporting.take(record(one, run), record(one, run))
    reporting.take(record(one, run))

    assert reporting.count("runs") == 1
    assert reporting.count("raw_runs") == 1


def test_an_unchanged_run_leaves_one_narrow_row(reporting: Reporting) -> None:
    one = reporting.node()
    reporting.take(record(one, one.run(GOOD)))
    with reporting.unit_of_work() as ctx:
        before = ctx.store.compliance.judged([one.node])[NodeId(one.node)]

    for minutes in range(5, 60, 5):
        reporting.now = later(minutes)
        reporting.take(record(one, one.run(GOOD, start=later(minutes))))

    assert reporting.count("runs") == 12
    assert reporting.count("run_bodies") == 1
    assert reporting.count("raw_runs") == 2, "the first, that changed something, and the latest"
    with reporting.unit_of_work(later(56)) as ctx:
        assert ctx.store.compliance.judged([one.node])[NodeId(one.node)] == before
        assert ctx.store.compliance.expired_nodes() == set()
    with reporting.unit_of_work(later(66)) as ctx:
        assert ctx.store.compliance.expired_nodes() == {one.node}


def test_only_the_report_that_changed_is_written(reporting: Reporting) -> None:
    one = reporting.node()
    reporting.take(record(one, one.run(GOOD)))

    reporting.take(record(one, one.run(BAD, start=later(5))))

    with reporting.unit_of_work() as ctx:
        rows = ctx.store.reports.states([one.node])[NodeId(one.node)].values()
        since = {row.key.value: (row.since, row.message) for row in rows}
    assert since == {"/etc/motd": (START, "as it should be"), "/etc/issue": (later(5), "no such directory")}
    assert reporting.count("raw_runs") == 2


def test_another_message_about_what_is_fine_changes_nothing(reporting: Reporting) -> None:
    one = reporting.node()
    reporting.take(record(one, one.run([report(message="took 3 ms")])))

    reporting.take(record(one, one.run([report(message="took 4 ms")], start=later(5))))

    assert reporting.count("run_bodies") == 1


def test_reports_that_no_longer_come_are_forgotten(reporting: Reporting) -> None:
    one = reporting.node()
    reporting.take(record(one, one.run(GOOD)))

    reporting.take(record(one, one.run(GOOD[:1], start=later(5))))

    assert reporting.count("report_states") == 1


def test_several_reports_of_one_value_are_kept_apart(reporting: Reporting) -> None:
    one = reporting.node()

    reporting.take(record(one, one.run([report(status="result_error", message=text) for text in "abc"])))

    with reporting.unit_of_work() as ctx:
        rows = ctx.store.reports.states([one.node])[NodeId(one.node)].values()
    assert sorted((row.key.ordinal, row.message) for row in rows) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_run_that_arrives_late_does_not_replace_a_newer_one(reporting: Reporting) -> None:
    one = reporting.node()
    reporting.take(record(one, one.run(GOOD, start=later(10))))

    reporting.take(record(one, one.run(BAD), at=later(11)))

    assert reporting.count("runs") == 2
    with reporting.unit_of_work() as ctx:
        assert ctx.store.nodes.run_status([one.node])[NodeId(one.node)].last_run == later(10)
        rows = ctx.store.reports.states([one.node])[NodeId(one.node)].values()
        assert {row.status for row in rows} == {0}


def relayed(one: Agent, run: agent.Run, at: datetime) -> bytes:
    """What the spool holds for a run that a relay brought, which took it at this time by its clock."""
    slip = Slip(node=one.node, nonce="", at=at.timestamp(), key=reports.key_digest(one.certificate))
    return reports.pack(slip, one.parcel("report", run))


def test_the_runs_of_days_that_a_relay_was_cut_off_are_all_kept_and_the_last_one_counts(reporting: Reporting) -> None:
    one = reporting.node()
    now = reporting.now = START + timedelta(days=7)
    starts = [now - timedelta(minutes=minutes) for minutes in (2, *range(30, 8640, 60))]
    brought = [relayed(one, one.run(GOOD, start=start), start + timedelta(seconds=1)) for start in reversed(starts)]

    assert reporting.take(*brought) == []
    assert reporting.take(*brought) == []

    assert reporting.count("runs") == len(starts)
    with reporting.unit_of_work(now) as ctx:
        names = "SELECT DISTINCT tableoid::regclass::text FROM runs WHERE start >= %s"
        days = ctx.store.connection.exec_driver_sql(names, (now - timedelta(hours=30),)).scalars().all()
        known = ctx.store.reports.known([one.node])[NodeId(one.node)]
    assert f"runs_{now - timedelta(days=1):%Y%m%d}" in days
    assert (known.last_run, known.state) == (starts[0], "compute")
    assert known.valid_until == starts[0] + timedelta(minutes=10), "five minutes, and five to arrive"


def test_a_report_that_a_relay_with_a_clock_of_long_ago_took_is_kept(reporting: Reporting) -> None:
    one = reporting.node()

    rejected = reporting.take(relayed(one, one.run(GOOD, start=START), datetime(1970, 1, 1, tzinfo=UTC)))

    assert rejected == []
    with reporting.unit_of_work() as ctx:
        known = ctx.store.reports.known([one.node])[NodeId(one.node)]
    assert (known.last_run, known.state) == (START, "compute")


def test_runs_of_one_node_in_one_batch_count_in_their_order(reporting: Reporting) -> None:
    one = reporting.node()

    reporting.take(
        record(one, one.run(GOOD, start=later(10))),
        record(one, one.run(BAD)),
        record(one, one.run(BAD, start=later(5))),
    )

    assert reporting.count("runs") == 3
    with reporting.unit_of_work() as ctx:
        rows = ctx.store.reports.states([one.node])[NodeId(one.node)].values()
        assert {row.status for row in rows} == {0}


def test_very_long_values_are_kept(reporting: Reporting) -> None:
    one = reporting.node()

    rejected = reporting.take(record(one, one.run([report(value=os.urandom(4000).hex())])))

    assert rejected == []
    assert reporting.count("report_states") == 1


def test_characters_that_no_database_keeps_are_replaced(reporting: Reporting) -> None:
    one = reporting.node()

    rejected = reporting.take(record(one, one.run([report(message="a\0b", status="result_error")])))

    assert rejected == []
    with reporting.unit_of_work() as ctx:
        [row] = ctx.store.reports.states([one.node])[NodeId(one.node)].values()
    assert row.message == "a\ufffdb"


def _poisons(one: Agent, other: Agent) -> dict[str, bytes]:
    bomb = gzip.compress(b"[" + b" " * (run_documents.MAX_BYTES + 10) + b"]")
    slip = Slip(node=one.node, nonce="0" * 32, at=START.timestamp(), key=reports.key_digest(one.certificate))
    no_zone = one.run(GOOD)
    no_zone["start"] = "2026-11-21T12:00:00"
    return {
        "no slip": b"garbage",
        "no parcel": reports.pack(slip, b"garbage"),
        "not gzip": reports.pack(slip, one.wrap("report", b"garbage")),
        "a bomb": reports.pack(slip, one.wrap("report", bomb)),
        "cut off": reports.pack(slip, one.wrap("report", agent.pack_payload(one.run(GOOD))[:-9])),
        "not JSON": reports.pack(slip, one.wrap("report", gzip.compress(b"{"))),
        "wrong field": record(one, one.run([report(status=3)])),  # type: ignore[arg-type]  # that is the point
        "unknown status": record(one, one.run([report(status="result_splendid")])),
        "about another node": record(one, one.run(GOOD, node=other.node)),
        "without zone": record(one, no_zone, at=START),
        "from the future": record(one, one.run(GOOD, start=later(60 * 24 * 3)), at=START),
    }


@pytest.mark.parametrize("kind", list(_poisons(Agent(), Agent())))
def test_a_bad_report_is_rejected_and_its_neighbours_are_kept(reporting: Reporting, kind: str) -> None:
    one, other = reporting.node(1), reporting.node(2)
    poison = _poisons(one, other)[kind]

    rejected = reporting.take(record(one, one.run(GOOD)), poison, record(other, other.run(GOOD)))

    [(position, reason, kind)] = rejected
    assert position == 1
    assert reason
    assert kind == "error"
    assert reporting.count("runs") == 2


def test_reports_that_unpack_to_much_are_taken_in_portions(
    reporting: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = reporting.node()
    padding = " " * 100_000  # of which gzip leaves nothing
    records = [
        record(one, one.run([report(message=padding), report(id="call-2", value="/etc/issue")], start=later(minute)))
        for minute in range(6)
    ]
    records.insert(3, b"garbage")
    assert len(records[0]) < 2_000
    batches: list[int] = []
    whole = reports.ingest

    def counted(ctx: Context, portion: Sequence[bytes], *, keep_raw: bool) -> list[Rejection]:
        batches.append(len(portion))
        return whole(ctx, portion, keep_raw=keep_raw)

    monkeypatch.setattr(reports, "ingest", counted)
    monkeypatch.setattr(intake, "_MOST_BYTES", 250_000)
    reporting.now = later(10)

    rejected = reporting.take(*records)

    assert [one.position for one in rejected] == [3]
    assert max(batches) <= 3
    assert sum(batches) == 7
    assert reporting.count("runs") == 6


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([5], [(0, 1)]),
        ([1, 1, 1], [(0, 3)]),
        ([9, 2, 9], [(0, 1), (1, 2), (2, 3)]),
        ([3, 3, 5], [(0, 2), (2, 3)]),
    ],
)
def test_portions_stay_below_their_bytes(sizes: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(intake.portions(sizes, 6)) == expected


def test_a_body_that_lies_about_its_length_is_refused(reporting: Reporting) -> None:
    one = reporting.node()
    body = agent.pack_payload(one.run(GOOD)) + b"\0\0\0\0"
    slip = Slip(node=one.node, nonce="0" * 32, at=START.timestamp(), key=reports.key_digest(one.certificate))

    rejected = reporting.take(reports.pack(slip, one.wrap("report", body)))

    assert rejected == [(0, "Something follows the report's gzip data.", "error")]


def test_reports_of_a_node_that_is_gone_are_rejected(reporting: Reporting) -> None:
    one, other = reporting.node(1), Agent(hostname="gone.example.com")

    rejected = reporting.take(record(other, other.run(GOOD)), record(one, one.run(GOOD)))

    assert [one.position for one in rejected] == [0]
    assert reporting.count("runs") == 1


def test_reports_of_a_node_that_was_refused_meanwhile_are_rejected(reporting: Reporting) -> None:
    waiting = Agent()
    with reporting.unit_of_work() as ctx:
        ctx.store.nodes.add(waiting.as_node(NodeStatus.PENDING))

    assert len(reporting.take(record(waiting, waiting.run(GOOD)))) == 1


def test_a_report_signed_with_a_key_that_was_replaced_is_rejected(reporting: Reporting) -> None:
    one = reporting.node()
    former = Agent(node=one.node, key_number=1)

    rejected = reporting.take(record(former, former.run(GOOD)))

    assert [one.position for one in rejected] == [0]


def test_a_certificate_renewed_with_the_same_key_does_not_hurt(reporting: Reporting) -> None:
    one = reporting.node()

    assert reporting.take(record(one, one.run(GOOD), key="another certificate")) == []


def test_nonces_of_spooled_requests_are_remembered(reporting: Reporting) -> None:
    one = reporting.node()

    reporting.take(record(one, one.run(GOOD)), record(one, one.run(GOOD, start=later(5))))

    assert reporting.count("agent_nonces") == 2


# -- through the spool ------------------------------------------------------------------


def test_what_is_drained_is_in_the_database_and_off_the_disk(reporting: Reporting, tmp_path: Path) -> None:
    agents = [reporting.node(number) for number in range(5)]
    spool = Spool(tmp_path, reserve_bytes=0)
    for one in agents:
        spool.append(record(one, one.run(GOOD)))
    spool.append(b"poison")
    stop = threading.Event()
    thread = threading.Thread(target=intake.run, args=(reporting.database, tmp_path, stop))
    thread.start()
    try:
        for _ in range(600):
            if not spooling.pending(tmp_path):
                break
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join()

    assert reporting.count("runs") == 5
    assert spooling.pending(tmp_path) == []
    assert [path.read_bytes() for path in (tmp_path / "quarantine").glob("*.record")] == [b"poison"]


def test_a_batch_whose_drain_died_after_the_commit_is_stored_once(reporting: Reporting, tmp_path: Path) -> None:
    one = reporting.node()
    spool = Spool(tmp_path, reserve_bytes=0)
    spool.append(record(one, one.run(GOOD)))
    reporting.take(*[entry for path in spooling.pending(tmp_path) for entry in spooling.records(path)])

    drained = Drain(tmp_path, reporting.intake.take).once()

    assert drained == 1
    assert reporting.count("runs") == 1


def test_without_a_database_reports_wait(tmp_path: Path) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1)
    spool = Spool(tmp_path, reserve_bytes=0)
    spool.append(b"anything")
    stop = threading.Event()
    thread = threading.Thread(target=intake.run, args=(database, tmp_path, stop))

    thread.start()
    stop.wait(0.3)
    stop.set()
    thread.join()
    database.close()

    assert len(spooling.pending(tmp_path)) == 1
    assert not (tmp_path / "quarantine").exists()


# -- retention ---------------------------------------------------------------------------------


def test_days_are_partitions_and_old_ones_are_dropped(reporting: Reporting) -> None:
    one = reporting.node()
    with reporting.unit_of_work(datetime.now(UTC)) as ctx:
        reports.prepare_partitions(ctx)
        reports.prepare_partitions(ctx)
    today = reporting.now = datetime.now(UTC)
    reporting.take(record(one, one.run(GOOD, start=today)))
    with reporting.unit_of_work() as ctx:
        partition = ctx.store.connection.exec_driver_sql("SELECT tableoid::regclass::text FROM runs").scalar_one()
    assert partition == f"runs_{today:%Y%m%d}"

    with reporting.unit_of_work(today + timedelta(days=reports.DAYS_KEPT + 1)) as ctx:
        dropped = reports.forget_old_runs(ctx)

    assert dropped >= 1
    assert reporting.count("runs") == 0
    assert reporting.count("run_bodies") == 0
    assert reporting.count("report_states") == 2, "what the node is now stays"


def test_an_unchanged_run_grows_the_database_by_less_than_200_bytes(reporting: Reporting) -> None:
    nodes = [reporting.node(number) for number in range(20)]
    reporting.take(*(record(one, one.run(GOOD)) for one in nodes))
    times = 100

    for number in range(1, times + 1):
        reporting.take(*(record(one, one.run(GOOD, start=START + timedelta(seconds=number))) for one in nodes))

    with psycopg.connect(reporting.database.url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_total_relation_size('runs_20261121')").fetchone()
    assert row is not None
    assert row[0] / (len(nodes) * (times + 1)) < 200
