# SPDX-License-Identifier: Apache-2.0
"""An agent that takes commands: only those that its server signed for it, each once; it tells of all that they do."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pwd
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
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.agent.server import FakeServer, serving

from quarterdeck_agent import commanding, documents, service
from quarterdeck_agent.errors import AgentError, Untrusted
from quarterdeck_agent.state import StateDirectory

SOURCES = Path(__file__).resolve().parent.parent.parent / "src"
FIRST, SECOND, THIRD = (f"6f1b4b0e-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
NOW = 1_800_000_000


@dataclass(frozen=True)
class Piece:
    """One request of the agent about a command."""

    command: str
    number: int
    stream: str
    ending: str
    status: int
    content: bytes


@dataclass
class Commanding(FakeServer):
    """A server that also gives commands: `wakes` are answered as they come."""

    wakes: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    pieces: queue.Queue[Piece] = field(default_factory=queue.Queue)
    rooms: list[int] = field(default_factory=list)
    #: what pieces are answered with, in turn; then received
    verdicts: list[dict[str, Any] | int] = field(default_factory=list)
    hold: float = 2.0

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not path.startswith((documents.PATH_COMMANDS, documents.PATH_WAKE)):
            return super().answer(method, path, headers, body)
        if (refusal := self.authenticate(method, path, headers, body)) is not None:
            return self.refuse(*refusal)
        if path == documents.PATH_WAKE:
            time.sleep(self.hold)
            return 200, {}, json.dumps({"status": "idle"}).encode()
        return self.taken(path, body) if "/output" in path else (200, {}, json.dumps(self.held(path)).encode())

    def held(self, path: str) -> dict[str, Any]:
        self.rooms.append(int(parse_qs(urlsplit(path).query)["room"][0]))
        try:
            return self.wakes.get(timeout=self.hold)
        except queue.Empty:
            return {"status": "idle"}

    def taken(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        verdict = self.verdicts.pop(0) if self.verdicts else {"status": "received", "stop": False}
        if isinstance(verdict, int):
            return self.refuse(verdict, "unavailable")
        if verdict["status"] != "again":
            self.pieces.put(_piece(path, body))
        return 200, {}, json.dumps(verdict).encode()

    def order(self, node: str, line: str, order: str = FIRST, **changes: Any) -> None:
        parcel = sealed(self.key, {**document(node, line), "id": order, "expires": int(time.time()) + 300, **changes})
        self.wakes.put({"status": "command", "command": order, "order": base64.b64encode(parcel).decode()})

    def told(self) -> list[Piece]:
        """All pieces of one command, to its end."""
        found: list[Piece] = []
        while not found or not found[-1].ending:
            found.append(self.pieces.get(timeout=30))
        return found


def _piece(path: str, body: bytes) -> Piece:
    parts = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    of = parts.path.split("/")[-2]
    ending, status = query.get("ending", ""), int(query.get("status", "0"))
    return Piece(of, int(query["number"]), query.get("stream", ""), ending, status, body)


def document(node: str, line: str = "true", **changes: Any) -> dict[str, Any]:
    """What an order says."""
    made = {"format": documents.FORMAT, "node": node, "id": FIRST, "expires": NOW + 300, "line": line, "stdin": ""}
    return {**made, "environment": {}, "seconds": 0, "user": "", **changes}


def sealed(key: rsa.RSAPrivateKey, order: dict[str, Any], kind: str = "command", *, to: str = "") -> bytes:
    """An order as the holder of this key would send it `to` a node."""
    node, body = to or order["node"], gzip.compress(json.dumps(order).encode())
    message = documents.parcel_message(kind, node, body)
    signature = base64.b64encode(key.sign(message, padding.PKCS1v15(), hashes.SHA512())).decode()
    return documents.wrap_parcel(kind, node, signature, body)


@pytest.fixture
def server(server_identity: tuple[Path, rsa.RSAPrivateKey, str]) -> Iterator[Commanding]:
    with serving(Commanding(*server_identity)) as fake:
        assert isinstance(fake, Commanding)
        yield fake


@contextmanager
def listener(state: StateDirectory, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real agent that listens for commands, unless told otherwise."""
    given = arguments or ("--commands",)
    command = [sys.executable, "-m", "quarterdeck_agent", "listen", *given, "--state-dir", state.path]
    with Path(state.at("listener.log")).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(SOURCES)})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)


def together(pieces: list[Piece], stream: str) -> str:
    return b"".join(one.content for one in pieces if one.stream == stream).decode()


# -- which orders are obeyed --------------------------------------------------------------


def accept(server: FakeServer, parcel: bytes, node: str, now: float = NOW) -> commanding.Order:
    return commanding.verified(parcel, node, server.policy_key_pem(), now)


def test_an_order_that_the_server_signed_for_this_node_is_obeyed(server: Commanding) -> None:
    order = accept(server, sealed(server.key, document("n1", "echo a", stdin="eA==", environment={"A": "b"})), "n1")

    assert (order.line, order.stdin, order.environment) == ("echo a", b"x", {"A": "b"})


def test_an_order_that_somebody_else_signed_is_not(server: Commanding) -> None:
    forger = rsa.generate_private_key(65537, 2048)

    with pytest.raises(Untrusted, match="not signed for this node by its server"):
        accept(server, sealed(forger, document("n1")), "n1")


def test_an_order_that_was_changed_on_its_way_is_not(server: Commanding) -> None:
    header = sealed(server.key, document("n1")).partition(b"\n")[0]
    changed = header + b"\n" + gzip.compress(json.dumps(document("n1", "rm -rf /")).encode())

    with pytest.raises(Untrusted, match="not signed"):
        accept(server, changed, "n1")


@pytest.mark.parametrize("to", ["n1", "n2"])
def test_an_order_for_another_node_is_not(server: Commanding, to: str) -> None:
    with pytest.raises(Untrusted, match=r"not signed for this node|is for node n2"):
        accept(server, sealed(server.key, document("n2"), to=to), "n1")


def test_something_else_that_the_server_signed_is_no_order(server: Commanding) -> None:
    with pytest.raises(Untrusted, match="not signed"):
        accept(server, sealed(server.key, document("n1"), "report"), "n1")


@pytest.mark.parametrize(
    ("now", "why"), [(NOW + 301, "has expired"), (NOW - 3600, "valid for too long")], ids=["late", "far ahead"]
)
def test_an_order_is_good_for_some_minutes_only(server: Commanding, now: float, why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        accept(server, sealed(server.key, document("n1")), "n1", now)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc/passwd"},
        {"line": None},
        {"stdin": "?"},
        {"environment": {"A": 1}},
        {"seconds": -1},
        {"seconds": float("inf")},
        {"user": 0},
        {"format": 2},
    ],
    ids=str,
)
def test_an_order_that_is_not_complete_is_not_obeyed(server: Commanding, changes: dict[str, Any]) -> None:
    with pytest.raises(Untrusted):
        accept(server, sealed(server.key, document("n1", **changes)), "n1")


def test_an_order_is_claimed_once_even_by_another_process_later(state: StateDirectory) -> None:
    commanding.claim(state, FIRST, NOW + 300)

    with pytest.raises(Untrusted, match="came before"):
        commanding.claim(StateDirectory(state.path), FIRST, NOW + 300)


def claims(state: StateDirectory) -> list[str]:
    return sorted(path.name for path in Path(state.at("orders")).iterdir())


def test_orders_that_are_good_at_the_same_time_may_come_in_any_order(state: StateDirectory) -> None:
    commanding.claim(state, FIRST, NOW + 1200)

    commanding.claim(state, SECOND, NOW)

    assert len(claims(state)) == 2


def test_an_order_that_is_forgotten_is_not_obeyed_again_whatever_the_clock_is_said_to_be(state: StateDirectory) -> None:
    day = 86_400
    commanding.claim(state, FIRST, NOW + 300)
    commanding.claim(state, SECOND, NOW + 300 + day)
    commanding.claim(state, THIRD, NOW + 301 + day)

    assert claims(state) == [f"{NOW + 300 + day}.{SECOND}", f"{NOW + 301 + day}.{THIRD}"]
    with pytest.raises(Untrusted, match=r"much older.*remove"):
        commanding.claim(state, FIRST, NOW + 300)


# -- carrying them out --------------------------------------------------------------------


def test_a_command_is_carried_out_and_its_streams_are_told_apart(server: Commanding, enrolled: StateDirectory) -> None:
    script = base64.b64encode(b"read from its input\n").decode()
    with listener(enrolled):
        line = 'cat; echo "$WORD" >&2; exit 3'
        server.order(enrolled.node_id(), line, stdin=script, environment={"WORD": "from its environment"})
        pieces = server.told()

    assert [one.number for one in pieces] == list(range(len(pieces)))
    assert pieces[0] == Piece(FIRST, 0, "", "", 0, b"")
    assert together(pieces, "stdout") == "read from its input\n"
    assert together(pieces, "stderr") == "from its environment\n"
    assert (pieces[-1].ending, pieces[-1].status) == ("ended", 3)
    log = Path(enrolled.at("listener.log")).read_text()
    assert f"command {FIRST} of the server begins as {pwd.getpwuid(os.geteuid()).pw_name}\n" in log
    assert f"command {FIRST} ended, exit status 3\n" in log
    assert "WORD" not in log


def test_a_replayed_order_is_refused_also_by_a_new_process(server: Commanding, enrolled: StateDirectory) -> None:
    made, server.hold = Path(enrolled.at("made")), 0.3
    for _ in range(2):
        with listener(enrolled):
            server.order(enrolled.node_id(), f"echo once >>{made}")
            pieces = server.told()
        time.sleep(2 * server.hold)  # what the process that ended still held must not get the next order

    assert [(one.ending, b"came before" in one.content) for one in pieces] == [("refused", True)]
    assert made.read_text() == "once\n"


def test_a_forged_order_is_refused_and_said_so(server: Commanding, enrolled: StateDirectory) -> None:
    made = Path(enrolled.at("made"))
    forged = document(enrolled.node_id(), f"touch {made}", expires=int(time.time()) + 300)
    parcel = sealed(rsa.generate_private_key(65537, 2048), forged)
    with listener(enrolled):
        server.wakes.put({"status": "command", "command": FIRST, "order": base64.b64encode(parcel).decode()})
        pieces = server.told()

    assert [one.ending for one in pieces] == ["refused"]
    assert not made.exists()
    assert "not signed for this node" in Path(enrolled.at("listener.log")).read_text()


def test_an_order_that_is_taken_back_does_not_begin(server: Commanding, enrolled: StateDirectory) -> None:
    made = Path(enrolled.at("made"))
    server.verdicts = [404]
    with listener(enrolled):
        server.order(enrolled.node_id(), f"touch {made}")
        server.order(enrolled.node_id(), "true", SECOND)
        pieces = server.told()

    assert pieces[-1].command == SECOND
    assert not made.exists()


def test_an_order_that_is_to_stop_when_it_would_begin_does_not_begin(
    server: Commanding, enrolled: StateDirectory
) -> None:
    made = Path(enrolled.at("made"))
    server.verdicts = [{"status": "received", "stop": True}]
    with listener(enrolled):
        server.order(enrolled.node_id(), f"touch {made}")
        pieces = server.told()

    assert [(one.number, one.ending) for one in pieces] == [(0, ""), (1, "aborted")]
    assert not made.exists()


def test_a_command_that_is_to_stop_ends_with_all_that_it_started(server: Commanding, enrolled: StateDirectory) -> None:
    pids = Path(enrolled.at("pids"))
    line = f"setsid sh -c 'trap \"\" TERM; echo $$ >>{pids}; sleep 600; sleep 600' & echo $$ >>{pids}; wait"
    with listener(enrolled):
        server.order(enrolled.node_id(), line)
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.02)
        server.wakes.put({"status": "stop", "command": FIRST})
        began = time.monotonic()
        end = server.told()[-1]

        assert (end.ending, end.status) == ("aborted", 128 + signal.SIGTERM)
        while any(Path(f"/proc/{pid}/stat").exists() and not _is_dead(pid) for pid in pids.read_text().split()):
            assert time.monotonic() - began < 8
            time.sleep(0.05)


def _is_dead(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_a_server_that_gave_a_command_up_has_it_stopped(server: Commanding, enrolled: StateDirectory) -> None:
    made = Path(enrolled.at("made"))
    server.verdicts = [{"status": "received", "stop": False}, 404]
    with listener(enrolled):
        server.order(enrolled.node_id(), f"echo something; trap 'touch {made}; exit' TERM; sleep 600 & wait")
        end = time.monotonic() + 20
        while not made.exists():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_command_that_takes_longer_than_it_may_is_ended(server: Commanding, enrolled: StateDirectory) -> None:
    with listener(enrolled):
        server.order(enrolled.node_id(), "echo begun; sleep 600", seconds=0.5)
        pieces = server.told()

    assert together(pieces, "stdout") == "begun\n"
    assert pieces[-1].ending == "timeout"


def test_output_waits_in_the_command_until_there_is_room(server: Commanding, enrolled: StateDirectory) -> None:
    again = {"status": "again", "stop": False}
    server.verdicts = [{"status": "received", "stop": False}, *[again] * 20]
    with listener(enrolled):
        server.order(enrolled.node_id(), "seq 1 200000")
        pieces = server.told()

    assert together(pieces, "stdout").splitlines() == [str(number) for number in range(1, 200_001)]
    assert max(len(one.content) for one in pieces) <= documents.MAX_COMMAND_PIECE_BYTES


def test_several_commands_run_at_once_up_to_a_limit(server: Commanding, enrolled: StateDirectory) -> None:
    orders = [f"6f1b4b0e-0000-4000-8000-0000000001{number:02}" for number in range(commanding.MOST_COMMANDS)]
    with listener(enrolled):
        for order in orders:
            server.order(enrolled.node_id(), "sleep 600", order)
        while 0 not in server.rooms:
            time.sleep(0.02)
        for order in orders:
            server.wakes.put({"status": "stop", "command": order})
        ends: set[str] = set()
        while len(ends) < len(orders):
            piece = server.pieces.get(timeout=30)
            ends |= {piece.command} if piece.ending else set()

    assert server.rooms[0] == commanding.MOST_COMMANDS


def test_a_user_that_is_not_there_is_said_and_nothing_is_run(server: Commanding, enrolled: StateDirectory) -> None:
    with listener(enrolled):
        server.order(enrolled.node_id(), "true", user="nobody-of-this-name")
        (piece,) = server.told()

    assert (piece.ending, piece.content) == ("refused", b"There is no user nobody-of-this-name on this node.")


def test_who_allows_no_commands_does_not_even_ask_for_them(server: Commanding, enrolled: StateDirectory) -> None:
    server.hold = 0.2
    with listener(enrolled, "--state-dir", enrolled.path):
        end = time.monotonic() + 20
        while len([one for one in server.requests if one[1] == documents.PATH_WAKE]) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)

    assert server.rooms == []


def test_commands_are_allowed_only_to_an_agent_that_listens(enrolled: StateDirectory, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="give --listen, too"):
        service.install(enrolled, str(tmp_path / "cron"), commands=True)
