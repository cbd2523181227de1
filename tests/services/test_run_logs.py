# SPDX-License-Identifier: Apache-2.0
"""Run logs of genuine agents into the database: verified, told apart from our own agents' by nothing else."""

from __future__ import annotations

import gzip
import os
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.agents import Agent, call, give_policy, item
from tests.common import run_logs

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.compliance import Status
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, NodeStatus
from quarterdeck.engine import intake
from quarterdeck.engine.intake import Intake
from quarterdeck.formats import report_files
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Drain, Rejection, Spool
from quarterdeck.services import reports
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.storage.reports import StateRow

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
OTHER = "37817c4d-fbf7-4850-a985-50021f4e8f41"
START = run_logs.START


class Reporting:
    """A database of its own with two accepted nodes that genuine agents run on, and the intake."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = START + timedelta(seconds=10)
        self.counters = Counters()
        self.intake = Intake(database, clock=lambda: self.now, counters=self.counters)
        for number, node in enumerate((NODE, OTHER)):
            self.node(node, run_logs.certificate(node), hostname=f"web{number}.example.com")

    @contextmanager
    def unit_of_work(self) -> Iterator[Context]:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            store.now = self.now
            yield Context(account=SYSTEM, store=store)
            store.commit()

    def node(self, node: str, pem: str, *, hostname: str, status: NodeStatus = NodeStatus.ACCEPTED) -> None:
        made = Agent(node=node, hostname=hostname).as_node(status)
        with self.unit_of_work() as ctx:
            ctx.store.nodes.add(replace(made, key=AgentKey(pem=pem, status=KeyStatus.CERTIFIED)))
            give_policy(ctx, [node], [item(call(1, component="File present"))])

    def take(self, *records: bytes) -> Sequence[Rejection]:
        return self.intake.take(records)

    def reasons(self, *records: bytes) -> list[tuple[str, str]]:
        return [(one.kind, one.reason) for one in self.take(*records)]

    def count(self, table: str) -> int:
        with self.unit_of_work() as ctx:
            return int(ctx.store.connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    def states(self, node: str = NODE) -> list[StateRow]:
        with self.unit_of_work() as ctx:
            return list(ctx.store.reports.states([node]).get(NodeId(node), {}).values())

    def body(self, node: str = NODE) -> dict[str, list[dict[str, str]]]:
        with self.unit_of_work() as ctx:
            [run, *_] = ctx.store.reports.runs(node, 10)
            body: dict[str, list[dict[str, str]]] = msgspec.json.decode(ctx.store.reports.body(run.digest) or b"")
            return body


@pytest.fixture
def reporting(fresh_postgres_url: str) -> Iterator[Reporting]:
    database = Database(fresh_postgres_url, pool_size=4)
    yield Reporting(database)
    database.close()


def record(text: str, node: str = NODE, *, start: datetime = START, name: str = "", number: int = 0) -> bytes:
    """What the spool holds for a log that arrived ten seconds after its run's start."""
    return packed(run_logs.signed(text, node, number=number), node, start=start, name=name)


def packed(content: bytes, node: str = NODE, *, start: datetime = START, name: str = "") -> bytes:
    at = (start + timedelta(seconds=10)).timestamp()
    return reports.pack_file(name or run_logs.file_name(node, start), node, at, content)


GOOD = run_logs.run(run_logs.report(node=NODE), node=NODE)


def test_statement_44_the_usual_log_is_kept_once_however_often_it_comes(reporting: Reporting) -> None:
    log = record(run_logs.usual(NODE))

    first, again, twice = reporting.take(log), reporting.take(log), reporting.take(log, log)

    assert (first, again, twice) == ([], [], [])
    assert reporting.count("runs") == 1
    assert reporting.count("raw_runs") == 1
    body = reporting.body()
    assert (len(body["reports"]), len(body["log"])) == (68, 2), "the two marks are the run itself"
    assert reporting.count("report_states") == 68
    assert reporting.counters.snapshot()["reports.ok"] == 4


def test_a_run_says_when_it_was_and_what_about(reporting: Reporting) -> None:
    reporting.take(record(GOOD))

    with reporting.unit_of_work() as ctx:
        [run] = ctx.store.reports.runs(NODE, 10)
        assert (run.start, run.duration_ms, run.config_id) == (START, 2000, run_logs.CONFIG_ID)
        [counter] = ctx.store.compliance.judged([NODE])[NodeId(NODE)].counters
    assert counter.counts[Status.SUCCESS_ALREADY_OK] == 1
    assert sum(counter.counts) == 1


def test_the_original_is_kept_as_it_came(reporting: Reporting) -> None:
    content = gzip.compress(run_logs.signed(GOOD, NODE))

    reporting.take(packed(content, name=run_logs.file_name(NODE, ending=".log.gz")))

    with reporting.unit_of_work() as ctx:
        assert ctx.store.reports.original(NODE, START) == content


def test_an_unchanged_run_leaves_one_narrow_row(reporting: Reporting) -> None:
    for minutes in (0, 5, 10):
        start = START + timedelta(minutes=minutes)
        reporting.now = start + timedelta(seconds=10)
        text = run_logs.run(run_logs.report(node=NODE, start=start, message=f"{minutes} ms"), node=NODE, start=start)
        reporting.take(record(text, start=start))

    assert (reporting.count("runs"), reporting.count("run_bodies")) == (3, 1)


def test_own_agents_and_genuine_ones_share_a_batch(reporting: Reporting) -> None:
    own = Agent(hostname="own.example.com")
    with reporting.unit_of_work() as ctx:
        ctx.store.nodes.add(own.as_node())
    slip = reports.Slip(
        node=own.node, nonce="a" * 32, at=START.timestamp() + 1, key=reports.key_digest(own.certificate)
    )
    parcel = reports.pack(slip, own.parcel("report", own.run([])))

    rejected = reporting.take(record(GOOD), parcel, b"garbage")

    assert [one.position for one in rejected] == [2]
    assert reporting.count("runs") == 2
    assert reporting.count("agent_nonces") == 1


# -- what is refused ---------------------------------------------------------------------


def test_statement_46_reports_of_unknown_nodes_are_of_nobody(reporting: Reporting) -> None:
    stranger, waiting = "f" * 8 + NODE[8:], "e" * 8 + NODE[8:]
    reporting.node(waiting, run_logs.certificate(waiting), hostname="waits.example.com", status=NodeStatus.PENDING)

    reasons = reporting.reasons(record(GOOD, stranger), record(GOOD, waiting), record(GOOD))

    assert reasons == [
        ("invalid", f"There is no accepted node {stranger}."),
        ("invalid", f"There is no accepted node {waiting}."),
    ]
    assert reporting.count("runs") == 1


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "", "no header|not signed"),
        (GOOD.encode(), "", "no header|not signed"),
        (b"\0" * 1000, "", "header|signed"),
        (b"not gzip", ".log.gz", "not gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], ".log.gz", "too early"),
        (b"not zip" * 10, ".log.zip", "not a zip"),
        (gzip.compress(b"\0" * (report_files.MAX_BYTES + 1), mtime=0), ".log.gz", "larger than"),
    ],
)
def test_statement_46_broken_content_is_an_error_and_blocks_nobody(
    reporting: Reporting, content: bytes, name: str, reason: str
) -> None:
    broken = packed(content, name=run_logs.file_name(NODE, ending=name) if name else "")
    other = record(run_logs.run(run_logs.report(node=OTHER), node=OTHER), OTHER)

    rejected = reporting.take(record(GOOD), broken, other)

    [(position, why, kind)] = rejected
    assert (position, kind) == (1, "error")
    assert re.search(reason, why), why
    assert reporting.count("runs") == 2


def test_statement_47_only_the_nodes_own_signature_counts(reporting: Reporting) -> None:
    altered = run_logs.signed(GOOD, NODE).replace(b"result_success", b"result_na", 1)

    reasons = reporting.reasons(packed(altered), record(GOOD, number=1), packed(GOOD.encode()))

    assert [kind for kind, _ in reasons] == ["error"] * 3
    assert "not the one that was signed" in reasons[0][1]
    assert "another certificate" in reasons[1][1]
    assert reporting.count("runs") == 0


def test_statement_47_of_two_certificates_on_record_either_is_accepted(reporting: Reporting) -> None:
    node = "d" * 8 + NODE[8:]
    both = run_logs.certificate(node, 0) + run_logs.certificate(node, 1)
    reporting.node(node, both, hostname="two.example.com")
    later = START + timedelta(minutes=5)
    reporting.now = later + timedelta(seconds=10)

    rejected = reporting.take(
        record(run_logs.run(node=node), node),
        record(run_logs.run(node=node, start=later), node, start=later, number=1),
        record(run_logs.run(node=node, start=START - timedelta(minutes=5)), node, number=2),
    )

    assert [one.position for one in rejected] == [2]
    assert reporting.count("runs") == 2


def test_statement_48_a_log_that_reports_about_another_node_is_refused_whole(reporting: Reporting) -> None:
    mixed = run_logs.run(run_logs.report(node=NODE), run_logs.report(node=OTHER), node=NODE)

    reasons = reporting.reasons(record(mixed), record(run_logs.run(node=OTHER), NODE))

    assert reasons == [("error", f"The run log of node {NODE} has reports of node {OTHER}.")] * 2
    assert reporting.count("runs") == 0


def test_a_log_without_a_report_is_refused(reporting: Reporting) -> None:
    assert reporting.reasons(record("hello\n")) == [("error", "There is no report in the run log.")]


def test_a_run_from_the_future_is_refused(reporting: Reporting) -> None:
    future = START + timedelta(days=3)

    assert len(reporting.take(record(run_logs.run(node=NODE, start=future)))) == 1


# -- what is in a log ------------------------------------------------------------------------


def test_statement_49_a_part_of_a_run_is_kept_but_says_nothing_about_compliance(reporting: Reporting) -> None:
    part = run_logs.report("result_error", node=NODE)

    rejected = reporting.take(record(part), record(part))

    assert rejected == []
    assert (reporting.count("runs"), reporting.count("report_states")) == (0, 0)
    with reporting.unit_of_work() as ctx:
        assert ctx.store.reports.original(NODE, START)
        assert ctx.store.nodes.run_status([NODE])[NodeId(NODE)].last_run is None


def test_statement_49_a_run_without_a_configuration_id_is_still_a_run(reporting: Reporting) -> None:
    reporting.take(record(run_logs.run(node=NODE, config_id="")))

    with reporting.unit_of_work() as ctx:
        [run] = ctx.store.reports.runs(NODE, 10)
    assert run.config_id == "None"


def test_statement_50_lines_are_joined_and_what_is_empty_has_a_name(reporting: Reporting) -> None:
    at = START.isoformat()
    several = run_logs.report("result_error", node=NODE, component="a\nb", key=f"c\n{at} d", message=f"e\n{at} f\n\ng")
    empty = run_logs.report(node=NODE, report_id="", key="")

    reporting.take(record(run_logs.run(several, empty, node=NODE)))

    found = {(row.key.component, row.key.value, row.key.report_id, row.message) for row in reporting.states()}
    assert found == {("a\nb", "c\nd", "call-1", "e\nf\n\ng"), ("File present", "None", "0", "as it should be")}


def test_statement_51_log_lines_are_kept_with_the_report_they_belong_to(reporting: Reporting) -> None:
    at = START.isoformat()
    reporting.take(record(run_logs.run(f"{at}    error: first\n", run_logs.report(node=NODE), node=NODE)))

    [line] = reporting.body()["log"]

    assert line == {
        "level": "log_warn",
        "message": "first",
        "rule": "rule-1",
        "directive": "directive-1",
        "id": "call-1",
        "component": "File present",
        "value": "/etc/motd",
    }


def test_reports_of_no_known_status_are_lines_of_the_log(reporting: Reporting) -> None:
    odd = run_logs.report("report_json", node=NODE, message="{}")

    rejected = reporting.take(record(run_logs.run(odd, run_logs.report(node=NODE), node=NODE)))

    assert rejected == []
    assert [one["level"] for one in reporting.body()["log"]] == ["report_json"]
    assert len(reporting.states()) == 1


def test_statement_52_a_malformed_report_costs_itself_only(reporting: Reporting) -> None:
    bad = f"{START.isoformat()} R: @@Files@@result_error@@rule-1\n"
    lines = [run_logs.report(node=NODE, key=str(number), report_id="") for number in range(3)]

    reporting.take(record(run_logs.run(lines[0], bad, *lines[1:], node=NODE)))

    assert sorted(row.key.value for row in reporting.states()) == ["0", "1", "2"]


def test_statement_53_ten_thousand_reports_are_kept_together(reporting: Reporting) -> None:
    lines = (run_logs.report(node=NODE, key=f"/srv/{number}", report_id="") for number in range(10_000))

    rejected = reporting.take(record(run_logs.run(*lines, node=NODE)))

    assert rejected == []
    assert reporting.count("report_states") == 10_000


@pytest.mark.parametrize("ending", [".log", ".log.gz"])
def test_statement_54_files_are_unpacked_as_their_names_say(reporting: Reporting, ending: str) -> None:
    message = run_logs.signed(GOOD, NODE)
    content = gzip.compress(message) if ending == ".log.gz" else message

    assert reporting.take(packed(content, name=run_logs.file_name(NODE, ending=ending))) == []
    assert reporting.take(packed(content, name=f"{NODE}_2026-11-21T12_00_00+00_00{ending}")) == []
    assert reporting.count("runs") == 1


def test_two_runs_that_began_in_one_second_do_not_wait_for_ever(reporting: Reporting) -> None:
    other = run_logs.run(run_logs.report("result_error", node=NODE), node=NODE)

    assert reporting.take(record(GOOD)) == []
    assert reporting.take(record(other)) == []

    assert reporting.count("runs") == 1
    assert reporting.counters.snapshot()["reports.ok"] == 2


def test_files_that_unpack_to_more_than_they_say_are_taken_in_parts(
    reporting: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_MOST_UNPACKED", 20_000)
    records = []
    for minute in range(6):
        start = START + timedelta(minutes=minute)
        padding = run_logs.report(node=NODE, start=start, message=" " * 9_000)
        log = run_logs.signed(run_logs.run(padding, node=NODE, start=start), NODE)
        packer = zlib.compressobj(wbits=31)
        liar = packer.compress(log) + packer.flush() + gzip.compress(b"")
        records.append(packed(liar, start=start, name=run_logs.file_name(NODE, start, ".log.gz")))
    records.insert(4, b"garbage")
    reporting.now = START + timedelta(minutes=10)

    rejected = reporting.take(*records)

    assert [one.position for one in rejected] == [4]
    assert reporting.count("runs") == 6


# -- through the spool ----------------------------------------------------------------------


def test_statement_46_what_is_refused_lies_among_failed_files_and_is_counted(
    reporting: Reporting, tmp_path: Path
) -> None:
    spool, failed, counters = Spool(tmp_path / "spool", reserve_bytes=0), FailedFiles(tmp_path / "failed"), Counters()
    stranger = "f" * 8 + NODE[8:]
    broken = run_logs.file_name(NODE, ending=".log.gz")
    for one in (record(GOOD), packed(b"broken", name=broken), record(GOOD, stranger), b"poison"):
        spool.append(one)
    stop = threading.Event()
    arguments = (reporting.database, tmp_path / "spool", stop)
    thread = threading.Thread(target=intake.run, args=arguments, kwargs={"failed": failed, "counters": counters})
    thread.start()
    try:
        for _ in range(600):
            if not spooling.pending(tmp_path / "spool"):
                break
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join()

    assert failed.names() == sorted([broken, run_logs.file_name(stranger)])
    assert (failed.directory / broken).read_bytes() == b"broken"
    assert failed.reason(broken).kind == "error"
    assert failed.reason(run_logs.file_name(stranger)).kind == "invalid"
    assert [path.read_bytes() for path in (tmp_path / "spool/quarantine").glob("*.record")] == [b"poison"]
    numbers = counters.snapshot()
    assert [numbers[f"reports.{status}"] for status in ("ok", "error", "invalid")] == [1, 2, 1]


def test_statement_55_without_a_database_files_wait_and_nothing_is_set_aside(
    reporting: Reporting, tmp_path: Path
) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1)
    spool, failed = Spool(tmp_path / "spool", reserve_bytes=0), FailedFiles(tmp_path / "failed")
    spool.append(record(GOOD))
    stop = threading.Event()
    arguments = (nowhere, tmp_path / "spool", stop)
    thread = threading.Thread(target=intake.run, args=arguments, kwargs={"failed": failed})

    thread.start()
    stop.wait(0.3)
    stop.set()
    thread.join()
    nowhere.close()

    assert failed.names() == []
    assert Drain(tmp_path / "spool", reporting.intake.take).once() == 1
    assert reporting.count("runs") == 1


def test_values_of_any_length_and_bytes_that_are_not_text_are_kept(reporting: Reporting) -> None:
    text = run_logs.run(run_logs.report("result_error", node=NODE, key=os.urandom(4000).hex(), message="X"), node=NODE)
    content = text.encode().replace(b"#X\n", b"#\xff\xfe\xe9\n")

    assert reporting.take(packed(run_logs.signed(content, NODE))) == []

    [row] = reporting.states()
    assert row.message == "\ufffd" * 3


def test_times_are_stored_in_utc(reporting: Reporting) -> None:
    text = GOOD.replace("2026-11-21 12:00:00+00:00", "2026-11-21 14:00:00 +0200")

    reporting.take(record(text))

    with reporting.unit_of_work() as ctx:
        [run] = ctx.store.reports.runs(NODE, 10)
    assert run.start == datetime(2026, 11, 21, 12, tzinfo=UTC)
