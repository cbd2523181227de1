# SPDX-License-Identifier: Apache-2.0
"""One run against a real server: what is fetched, obeyed, remembered and sent."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.agent.server import FakeServer, call, policy

from quarterdeck_agent import documents, parcels, run
from quarterdeck_agent.errors import AgentError, Locked, NotEnrolled, Untrusted
from quarterdeck_agent.outcome import Finding, Method, MethodCall, compliant, drift
from quarterdeck_agent.state import StateDirectory

_AUDIT = run.Options(audit_only=True)


def _marker(path: str) -> Path:
    return Path(path)


def _look(asked: MethodCall) -> Finding:
    return compliant("is there") if _marker(asked["path"]).exists() else drift("is missing")


def _make(asked: MethodCall) -> Finding:
    _marker(asked["path"]).write_text("made")
    return compliant("made it")


def _fail(asked: MethodCall) -> Finding:
    raise LookupError(f"cannot look at {asked['path']}")


METHODS = {
    "present": Method("present", ("path",), "present", "path", _look, _make),
    "fails": Method("fails", ("path",), "fails", "path", _fail, None),
}


def _directive(*items: Any) -> list[Any]:
    return [{"rule": "r", "directive": "d", "name": "n", "mode": "audit", "items": list(items)}]


def _run(state: StateDirectory, options: run.Options | None = None) -> run.RunResult:
    return run.perform(state, options or run.Options(), METHODS)


def _statuses(reports: list[Any]) -> list[str]:
    return [report["status"] for report in reports]


def test_a_run_repairs_reports_and_is_kept_the_next_time(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    target = tmp_path / "wanted"
    server.publish(policy(enrolled.node_id(), call("present", str(target))))
    _run(enrolled)
    _run(enrolled)
    first, second = server.runs()
    assert target.read_text() == "made"
    assert _statuses(first["reports"]) == ["result_repaired"]
    assert _statuses(second["reports"]) == ["result_success"]
    assert first["config_id"] == "config-1"
    assert first["reports"][0]["value"] == str(target)
    assert first["run_id"] != second["run_id"]
    assert enrolled.history()[-1]["counts"] == {"result_success": 1}


def test_the_policy_is_fetched_again_only_when_it_changed(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id()))
    _run(enrolled)
    _run(enrolled)
    server.publish(policy(enrolled.node_id(), config_id="config-2"))
    _run(enrolled)
    assert [status for _, path, status in server.requests if path == documents.PATH_POLICY] == [200, 304, 200]
    assert [sent["config_id"] for sent in server.runs()] == ["config-1", "config-1", "config-2"]


def test_an_audit_run_changes_nothing_and_sends_nothing(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    target = tmp_path / "wanted"
    server.publish(policy(enrolled.node_id(), call("present", str(target))))
    result = _run(enrolled, _AUDIT)
    assert _statuses(result.reports) == ["audit_noncompliant"]
    assert not target.exists()
    assert server.parcels == []
    assert parcels.Queue(enrolled.at("queue"), enrolled.at("refused")).waiting() == []


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_node_whose_clock_is_off_reports_by_the_servers(
    enrolled: StateDirectory, server: FakeServer, ahead: int
) -> None:
    server.clock_ahead = ahead
    server.publish(policy(enrolled.node_id()))

    _run(enrolled)

    (sent,) = server.runs()
    for name in ("start", "end"):
        assert abs(datetime.fromisoformat(sent[name]).timestamp() - server.now()) < 60


def test_a_method_that_raises_is_one_error_among_the_others(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    target = tmp_path / "wanted"
    items = (call("fails", "x"), call("never_heard_of", "y"), call("present", str(target)))
    server.publish(policy(enrolled.node_id(), *items))
    _run(enrolled)
    reports = server.runs()[0]["reports"]
    assert _statuses(reports) == ["result_error", "result_error", "result_repaired"]
    assert "LookupError: cannot look at x" in reports[0]["message"]
    assert "never_heard_of" in reports[1]["message"]


def test_a_node_that_waits_to_be_accepted_says_so(enrolled: StateDirectory, server: FakeServer) -> None:
    result = _run(enrolled)
    assert result.waiting
    assert server.runs() == []


def test_without_a_server_the_last_policy_is_used_and_the_report_is_sent_later(
    enrolled: StateDirectory, server: FakeServer
) -> None:
    server.publish(policy(enrolled.node_id(), call("fails", "x")))
    _run(enrolled)
    settings = enrolled.settings()
    enrolled.save_settings({**settings, "server": "https://127.0.0.1:1"})
    away = _run(enrolled)
    assert away.queued == 1
    assert any("last update" in line["message"] for line in away.log)
    enrolled.save_settings(settings)
    _run(enrolled)
    assert [sent["run_id"] for sent in server.runs()][1] == away.run_id
    assert len(server.runs()) == 3


def test_a_run_delivered_twice_keeps_its_run_id(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id()))
    server.swallow_acknowledgements = 2  # the client itself tries a second time on a fresh connection
    first = _run(enrolled)
    assert first.queued == 1
    _run(enrolled)
    identities = [sent["run_id"] for sent in server.runs()]
    assert identities[:3] == [first.run_id] * 3
    assert len(set(identities)) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"node": "11111111-2222-4333-8444-555555555555"}, "belongs to node", id="another node's"),
        pytest.param({"format": 99}, "format", id="unknown format"),
        pytest.param({"policies": None}, "policies", id="incomplete"),
        pytest.param({"policies": [{"rule": "r"}]}, "directive without a usable directive", id="half a directive"),
        pytest.param({"policies": _directive({"method": "x"})}, "call without a usable id", id="half a call"),
        pytest.param({"policies": _directive({"type": "block"})}, "block without", id="half a block"),
    ],
)
def test_a_signed_policy_that_does_not_fit_is_not_obeyed(
    enrolled: StateDirectory, server: FakeServer, change: dict[str, Any], sentence: str
) -> None:
    server.publish({**policy(enrolled.node_id()), **change})
    with pytest.raises(Untrusted, match=sentence):
        _run(enrolled)
    assert enrolled.policy() is None


def test_a_policy_signed_by_another_key_is_not_obeyed_and_the_last_one_is_kept(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id(), call("present", str(tmp_path / "good"))))
    _run(enrolled)
    server.signs_with = rsa.generate_private_key(65537, 2048)
    server.publish(policy(enrolled.node_id(), call("present", str(tmp_path / "evil")), config_id="config-2"))
    result = _run(enrolled)
    assert result.config_id == "config-1"
    assert not (tmp_path / "evil").exists()
    assert any("not signed" in line["message"] for line in server.runs()[-1]["log"])


def test_a_cached_policy_changed_on_disk_is_not_obeyed(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id(), call("present", str(tmp_path / "good"))))
    _run(enrolled)
    cached = Path(enrolled.at("policy"))
    cached.write_bytes(cached.read_bytes().replace(b"/good", b"/evil"))
    with pytest.raises(Untrusted):
        _run(enrolled, run.Options(update=False))
    _run(enrolled)  # with the server it is fetched anew, whatever the etag says
    assert not (tmp_path / "evil").exists()
    assert (tmp_path / "good").exists()


def test_only_changes_are_reported_between_two_heartbeats(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    items = (call("present", str(tmp_path / "wanted")), call("fails", "x"))
    server.publish(policy(enrolled.node_id(), *items, reporting="changes-only", heartbeat_runs=3))
    for _ in range(5):
        _run(enrolled)
    sizes = [len(sent["reports"]) for sent in server.runs()]
    assert sizes == [2, 1, 1, 2, 1]  # full: the first of a configuration, then every third


def test_no_report_is_sent_where_reports_are_disabled(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id(), call("fails", "x"), reporting="reports-disabled"))
    assert len(_run(enrolled).reports) == 1
    assert server.parcels == []


def test_a_parcel_refused_for_good_does_not_hold_up_the_others(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id()))
    server.refusals[documents.PATH_REPORTS] = (400, "invalid")
    result = _run(enrolled)
    assert result.queued == 0
    assert any("for good" in line["message"] for line in result.log)
    assert len(list(Path(enrolled.at("refused")).iterdir())) == 1
    server.refusals.clear()
    _run(enrolled)
    assert len(server.runs()) == 1


def test_a_second_run_at_the_same_time_is_refused(enrolled: StateDirectory) -> None:
    with enrolled.lock(), pytest.raises(Locked, match="Another run"):
        _run(enrolled)


def test_a_run_before_enrolment_says_what_to_do(state: StateDirectory) -> None:
    with pytest.raises(NotEnrolled, match="enroll"):
        _run(state)


def test_a_run_without_update_and_without_policy_says_so(enrolled: StateDirectory) -> None:
    with pytest.raises(AgentError, match="no policy yet"):
        _run(enrolled, run.Options(update=False))


_SLOW_RUN = """
    import sys, time
    from quarterdeck_agent import run
    from quarterdeck_agent.outcome import Method, compliant
    from quarterdeck_agent.state import StateDirectory

    def look(asked):
        return compliant("fine")

    def slow(asked):
        print("begun", flush=True)
        time.sleep(60)

    methods = {
        "present": Method("present", ("path",), "present", "path", look),
        "slow": Method("slow", ("path",), "slow", "path", slow),
    }
    run.perform(StateDirectory(sys.argv[1]), run.Options(), methods)
"""


def test_a_run_killed_half_way_leaves_nothing_half_written(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id(), call("present", "/etc/passwd"), call("slow", "b")))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SLOW_RUN), enrolled.path],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "src"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(Locked):
            _run(enrolled)
        process.send_signal(signal.SIGKILL)
    assert server.runs() == []
    Path(enrolled.at("queue/.new-1-half.parcel")).write_bytes(b"half a parcel")
    result = _run(enrolled)  # the lock is free, `slow` is unknown here and so in error
    assert _statuses(result.reports) == ["result_success", "result_error"]
    assert list(Path(enrolled.at("queue")).iterdir()) == []
    assert len(server.runs()) == 1


_ENDLESS_WRITER = """
    import sys
    from quarterdeck_agent import keys
    from quarterdeck_agent.parcels import Queue
    from quarterdeck_agent.state import StateDirectory

    state = StateDirectory(sys.argv[1])
    queue, key, number = Queue(state.at("queue"), state.at("refused")), keys.load(state.path), 0
    while True:
        number += 1
        queue.add("report", state.node_id(), key, {"number": number, "text": "x" * 200_000})
        state.add_history({"run_id": str(number), "counts": {}})
        state.remember(number=number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("written", [2, 3, 5])
def test_a_kill_during_writes_leaves_only_whole_documents(enrolled: StateDirectory, written: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_ENDLESS_WRITER), enrolled.path],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "src"},
    ) as process:
        assert process.stdout is not None
        for _ in range(written):
            last = int(process.stdout.readline())
        time.sleep(0.004 * written)
        process.send_signal(signal.SIGKILL)
    enrolled.clean()
    queue = parcels.Queue(enrolled.at("queue"), enrolled.at("refused"))
    payloads = [documents.open_parcel(Path(enrolled.at("queue"), name).read_bytes()) for name in queue.waiting()]
    numbers = [parcel.payload()["number"] for parcel in payloads]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= last
    assert enrolled.memory()["number"] >= last
    assert len(list(Path(enrolled.at("queue")).iterdir())) == len(numbers)


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        pytest.param(0, 1_000_000, True, id="never sent"),
        pytest.param(2_000_000, 1_000_000, True, id="sent in the future"),
        pytest.param(1_000_000 - 3600, 1_000_000, False, id="an hour ago"),
        pytest.param(1_000_000 - 30 * 3600, 1_000_000, True, id="more than a day ago"),
    ],
)
def test_the_inventory_is_sent_once_a_day(last: float, now: float, *, due: bool) -> None:
    assert run.inventory_is_due("11111111-2222-4333-8444-555555555555", last, now) is due


def test_the_inventory_of_a_day_is_sent_exactly_once_when_runs_are_frequent() -> None:
    node, sent, last = "9a2c2f4e-0000-4000-8000-000000000000", 0, 1_700_000_000.0
    for minute in range(5, 3 * 24 * 60, 5):
        now = 1_700_000_000.0 + minute * 60
        if run.inventory_is_due(node, last, now):
            sent, last = sent + 1, now
    assert sent == 3


def test_splay_is_the_same_every_time_and_below_its_bound() -> None:
    node = "9a2c2f4e-0000-4000-8000-000000000123"
    assert run.splay_seconds(node, 5) == run.splay_seconds(node, 5) < 300
    assert run.splay_seconds(node, 0) == 0


def test_moments_are_rfc_3339_with_offset() -> None:
    assert run.rfc3339(1_700_000_000.9996) == "2023-11-14T22:13:21.000+00:00"
