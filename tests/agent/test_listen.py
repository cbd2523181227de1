# SPDX-License-Identifier: Apache-2.0
"""An agent that listens: it waits, runs when the server asks, and sends what the run prints while it runs."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.agent.server import FakeServer, call, policy, serving

from quarterdeck_agent import documents, listening, service
from quarterdeck_agent.errors import AgentError
from quarterdeck_agent.listening import Output
from quarterdeck_agent.state import StateDirectory

SOURCES = Path(__file__).resolve().parent.parent.parent / "src"
RUN = "6f1b4b0e-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Piece:
    """One request of the agent about a run."""

    run: str
    number: int
    text: str
    status: int | None
    at: float


@dataclass
class Waking(FakeServer):
    """A server that also wakes agents: `orders` are answered as they come."""

    orders: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    pieces: queue.Queue[Piece] = field(default_factory=queue.Queue)
    #: what pieces are answered with, in turn; then received
    verdicts: list[str | int] = field(default_factory=list)
    hold: float = 5.0

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path != documents.PATH_WAKE and not path.startswith(documents.PATH_REMOTE_RUNS):
            return super().answer(method, path, headers, body)
        if (refusal := self.authenticate(method, path, headers, body)) is not None:
            return self.refuse(*refusal)
        if path == documents.PATH_WAKE:
            try:
                return 200, {}, json.dumps(self.orders.get(timeout=self.hold)).encode()
            except queue.Empty:
                return 200, {}, json.dumps({"status": "idle"}).encode()
        verdict = self.verdicts.pop(0) if self.verdicts else "received"
        if isinstance(verdict, int):
            return self.refuse(verdict, "unavailable")
        if verdict != "again":
            self.pieces.put(_piece(path, body))
        return 200, {}, json.dumps({"status": verdict}).encode()

    def order(self, *conditions: str, **changes: Any) -> None:
        wanted = {"status": "run", "run": RUN, "conditions": list(conditions), "audit": False, "output": True}
        self.orders.put({**wanted, **changes})

    def output(self) -> list[Piece]:
        """All pieces of a run, to the last."""
        found: list[Piece] = []
        while not found or found[-1].status is None:
            found.append(self.pieces.get(timeout=30))
        return found


def _piece(path: str, body: bytes) -> Piece:
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    status = int(query["status"][0]) if "status" in query else None
    return Piece(parts.path.split("/")[-2], int(query["number"][0]), body.decode(), status, time.monotonic())


@pytest.fixture
def server(server_identity: tuple[Path, rsa.RSAPrivateKey, str]) -> Iterator[Waking]:
    with serving(Waking(*server_identity)) as fake:
        assert isinstance(fake, Waking)
        yield fake


@contextmanager
def listener(state: StateDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """A real agent that listens; runs it began end before the block does."""
    command = [sys.executable, "-m", "quarterdeck_agent", "listen", "--state-dir", state.path]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with Path(state.at("listener.log")).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)
            _await_run(state)


def _await_run(state: StateDirectory) -> None:
    """Until no run holds the lock any more."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            with state.lock():
                return
        except AgentError:
            time.sleep(0.05)


def _wait_call(seconds: float, name: str = "wait") -> documents.Call:
    return call("command_execution", name, params={"command": f"sleep {seconds}"}, component="Wait")


def _file_call(path: Path, condition: str = "any") -> documents.Call:
    return call(
        "file_content", str(path), params={"path": str(path), "lines": "made", "enforce": "true"}, condition=condition
    )


def test_an_agent_that_is_asked_runs_reports_and_sends_what_it_prints(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    server.publish(policy(enrolled.node_id(), _file_call(made)))
    with listener(enrolled):
        server.order()
        pieces = server.output()

    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert {piece.run for piece in pieces} == {RUN}
    assert (pieces[0].text, pieces[0].status) == ("", None)
    text = "".join(piece.text for piece in pieces)
    assert "repaired: A directive / file_content" in text
    assert "1 component(s): 1 repaired" in text
    assert pieces[-1].status == 0
    assert made.read_text() == "made\n"
    assert [report["status"] for report in server.runs()[0]["reports"]] == ["result_repaired"]


def test_conditions_of_the_order_hold_during_the_run_only(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    server.publish(policy(enrolled.node_id(), _file_call(made, "trigger_backup.also_this")))
    with listener(enrolled):
        server.order()
        without = "".join(piece.text for piece in server.output())
        assert not made.exists()
        server.order("trigger_backup", "also_this")
        with_them = "".join(piece.text for piece in server.output())

    assert "not applicable" in without
    assert "repaired" in with_them
    assert made.exists()


def test_an_audit_changes_nothing_and_sends_no_report(server: Waking, enrolled: StateDirectory, tmp_path: Path) -> None:
    made = tmp_path / "made"
    server.publish(policy(enrolled.node_id(), _file_call(made)))
    with listener(enrolled):
        server.order(audit=True)
        text = "".join(piece.text for piece in server.output())

    assert "not compliant" in text
    assert "Audit only" in text
    assert not made.exists()
    assert server.runs() == []


def test_lines_come_while_the_run_goes_on(server: Waking, enrolled: StateDirectory, tmp_path: Path) -> None:
    server.publish(policy(enrolled.node_id(), _file_call(tmp_path / "first"), _wait_call(1.5)))
    with listener(enrolled):
        server.order()
        pieces = server.output()

    first = next(piece for piece in pieces if "repaired" in piece.text)
    assert pieces[-1].at - first.at > 1


def test_a_run_that_is_under_way_is_said_to_be(server: Waking, enrolled: StateDirectory) -> None:
    server.publish(policy(enrolled.node_id()))
    with listener(enrolled), enrolled.lock():
        server.order()
        pieces = server.output()

    assert "Another run is under way" in "".join(piece.text for piece in pieces)
    assert pieces[-1].status == 4


def test_a_piece_that_is_not_taken_is_sent_again_with_its_number(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id(), _file_call(tmp_path / "made")))
    server.verdicts = ["received", "again", 503]
    with listener(enrolled):
        server.order()
        pieces = server.output()

    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert "repaired" in "".join(piece.text for piece in pieces)


def test_without_a_reader_the_run_goes_on_and_only_its_end_is_told(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id(), _file_call(tmp_path / "made"), _wait_call(0.3)))
    server.verdicts = ["unwanted"]
    with listener(enrolled):
        server.order()
        pieces = server.output()

    assert [(piece.number, piece.text, piece.status) for piece in pieces] == [(0, "", None), (1, "", 0)]
    assert (tmp_path / "made").exists()


def test_an_order_that_is_taken_back_is_not_carried_out(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    server.publish(policy(enrolled.node_id(), _file_call(made, "first"), _file_call(tmp_path / "second", "second")))
    server.verdicts = [404]
    with listener(enrolled):
        server.order("first")
        server.order("second")
        server.output()

    assert not made.exists()
    assert (tmp_path / "second").exists()


def test_a_run_goes_on_when_its_listener_is_killed(server: Waking, enrolled: StateDirectory, tmp_path: Path) -> None:
    last = tmp_path / "last"
    server.publish(policy(enrolled.node_id(), _file_call(tmp_path / "first"), _wait_call(1), _file_call(last)))
    with listener(enrolled) as process:
        server.order()
        while "repaired" not in server.pieces.get(timeout=30).text:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert not last.exists()

    assert last.exists()
    assert len(server.runs()) == 1


def test_an_agent_goes_on_listening_when_the_server_was_away(
    server: Waking, enrolled: StateDirectory, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id(), _file_call(tmp_path / "made")))
    server.refusals[documents.PATH_WAKE] = (503, "unavailable")
    with listener(enrolled):
        while (("POST", documents.PATH_WAKE, 503)) not in server.requests:
            time.sleep(0.02)
        server.refusals.clear()
        server.order()
        pieces = server.output()

    assert pieces[-1].status == 0
    log = Path(enrolled.at("listener.log")).read_text()
    assert log.startswith(f"quarterdeck-agent: listening to {enrolled.settings().server} for runs, not commands\n")
    assert log.count("refused: unavailable") == 1
    assert "listening again" in log


# -- parts --------------------------------------------------------------------------------


def test_waits_grow_up_to_a_limit_and_differ() -> None:
    for failures, longest in ((0, 1), (3, 8), (30, 300)):
        waits = {listening.waiting_time(failures) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest


@pytest.mark.parametrize(
    "changes",
    [{"run": "../x"}, {"run": 7}, {"conditions": "a"}, {"conditions": ["a b"]}, {"conditions": ["a,", "b"]}],
    ids=str,
)
def test_an_order_that_cannot_be_meant_so_is_refused(changes: dict[str, Any]) -> None:
    order: Any = {"status": "run", "run": RUN, "conditions": ["a"], **changes}

    with pytest.raises(AgentError):
        listening.work_of(order)


def test_output_that_nobody_takes_is_left_out_and_that_is_said() -> None:
    output, line = Output(), b"x" * 1023 + b"\n"
    for _ in range(1500):
        output.add(line)

    taken = b""
    while piece := output.take(0)[0]:
        assert len(piece) <= documents.MAX_PIECE_BYTES
        taken += piece

    kept, notice = taken.count(line), taken.splitlines()[-1].decode()
    assert kept == listening.BUFFER_BYTES // 1024
    assert notice == f"[{(1500 - kept) * 1024} bytes of output were left out: they were not taken]"
    output.add(b"more\n")
    assert output.take(0) == (b"more\n", None)


def test_all_that_a_process_prints_is_taken_with_its_exit_status() -> None:
    script = "import sys; print('a'); print('x' * 200_000); sys.stdout.write('end'); sys.exit(3)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    output = Output()

    output.read_from(process)

    taken, status = b"", None
    while status is None:
        piece, status = output.take(0)
        taken += piece
    assert taken == b"a\n" + b"x" * 200_000 + b"\nend\n"
    assert status == 3


def test_a_run_that_takes_too_long_is_ended_with_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LONGEST_RUN_SECONDS", 0.3)
    process = subprocess.Popen(["sh", "-c", "sleep 60; true"], stdout=subprocess.PIPE, start_new_session=True)
    output = Output()

    output.read_from(process)

    assert output.take(0) == (b"", -signal.SIGTERM)


def test_the_unit_that_listens_leaves_runs_alone_when_it_stops() -> None:
    unit = service.listen_unit(["/usr/bin/python3", "/opt/100%/agent.pyz", "listen"])

    assert 'ExecStart="/usr/bin/python3" "/opt/100%%/agent.pyz" "listen"\n' in unit
    assert "KillMode=process" in unit
    assert "Restart=always" in unit


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="this machine runs systemd")
def test_without_systemd_nothing_can_keep_an_agent_listening(enrolled: StateDirectory, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="Only systemd"):
        service.install(enrolled, str(tmp_path / "cron"), listen=True)
