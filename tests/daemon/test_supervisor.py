# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd serve` as a whole: it starts, keeps going when parts die, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from tests.daemon.servers import (
    PROGRAM,
    Server,
    environment,
    eventually,
    free_port,
    here,
    launched,
    quarterdeckd,
    serving,
)

from quarterdeck.daemon import config, tls
from quarterdeck.storage import embedded

CHILDREN = ("api-process", "worker-process", "postgres_guard", "postgres: quarterdeck")


def test_the_first_start_prints_what_an_administrator_needs_and_a_stop_takes_everything_along(
    reachable_dir: Path,
) -> None:
    data = reachable_dir / "data"
    with serving(data) as server:
        assert eventually(lambda: "enroll" in server.log.read_text())
        processes = server.processes()
        printed = server.log.read_text()
        (line,) = [line for line in printed.splitlines() if "enroll" in line and "curl" in line]
        # All of it but the enrolment itself, run by a real shell: the agent's own tests go on from there.
        fetching = line.split(" && python3")[0] + ' && python3 "$p" --version && test ! -e "$d")'
        installed = reachable_dir / "quarterdeck-agent"
        surroundings = environment() | {"QUARTERDECK_AGENT_PROGRAM": str(installed)}
        fetched = subprocess.run(["sh", "-c", fetching], check=False, capture_output=True, text=True, env=surroundings)
        assert server.end() == 0
    token_file = data / "admin-token"

    assert f"Quarterdeck answers at https://127.0.0.1:{server.port}" in printed
    assert f"The first admin token is in {token_file} (mode 600)" in printed
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert all(process.ended() for process in processes)
    assert not re.search(r"curl [^&]*(-k|--insecure)", line)
    assert "--cacert ca.pem" in line
    assert re.search(r"--pin sha256//\S{44} --token \w{32}\)$", line)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.startswith("quarterdeck-agent.pyz: OK\n")
    assert stat.S_IMODE(installed.stat().st_mode) == 0o755


def test_killing_the_supervisor_leaves_no_process_and_the_next_start_the_same_keys_and_tokens(
    reachable_dir: Path,
) -> None:
    data = reachable_dir / "data"
    kept = ("admin-token", "enrolment-token", "keys/server.key", "keys/server.pem", "keys/secret.key")

    def digests() -> list[str]:
        return [hashlib.sha256((data / name).read_bytes()).hexdigest() for name in kept]

    with launched(data) as server:
        server.wait()
        processes, before = server.processes(), digests()
        for part in CHILDREN:
            assert any(part in process.command for process in processes), part

    assert eventually(lambda: all(process.ended() for process in processes)), [
        process for process in processes if not process.ended()
    ]
    with serving(data):
        assert digests() == before


class Visitor(threading.Thread):
    """Opens one connection after the other and asks something on each, in no hurry; `cut` is what went wrong."""

    def __init__(self, server: Server, pause: float) -> None:
        super().__init__()
        self.pause = pause
        self.address = ("127.0.0.1", server.port)
        self.trusting = ssl.create_default_context(cafile=str(server.data_dir / "keys" / "ca.pem"))
        self.stopping = threading.Event()
        self.answered = 0
        self.cut: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                connection = socket.create_connection(self.address, timeout=20)
            except ConnectionError:
                continue  # nobody listens
            with connection:
                time.sleep(self.pause)
                try:
                    connection.getpeername()
                    secured = self.trusting.wrap_socket(connection, server_hostname="127.0.0.1")
                except ssl.SSLError as error:
                    self.cut.append(f"in the handshake: {error!r}")
                    continue
                except OSError:
                    continue  # it was reset: nobody had let it in
            with secured:
                self.ask(secured)

    def ask(self, connection: ssl.SSLSocket) -> None:
        time.sleep(self.pause)
        try:
            connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = connection.recv(1024)
        except OSError as error:
            self.cut.append(f"after the handshake: {error!r}")
            return
        if answer.startswith(b"HTTP/1.1 "):
            self.answered += 1
        else:
            self.cut.append(f"answered: {answer!r}")


def test_after_the_supervisor_is_killed_who_is_let_in_is_answered_and_the_next_one_gets_the_port(
    reachable_dir: Path,
) -> None:
    data = reachable_dir / "data"
    with launched(data) as killed:
        killed.wait()
        visitors = [Visitor(killed, pause / 100) for pause in range(4, 20)]
        for visitor in visitors:
            visitor.start()
        assert eventually(lambda: all(visitor.answered > 3 for visitor in visitors))

        killed.process.kill()
        killed.process.wait()
        with serving(data, port=killed.port):
            before = [visitor.answered for visitor in visitors]
            assert eventually(lambda: all(one.answered > old for one, old in zip(visitors, before, strict=True)))
            for visitor in visitors:
                visitor.stopping.set()
                visitor.join()

    assert [visitor.cut for visitor in visitors] == [[]] * len(visitors)


def test_killing_the_supervisor_during_the_start_leaves_no_process(reachable_dir: Path) -> None:
    with launched(reachable_dir / "data") as server:
        assert eventually(lambda: len(server.processes()) > 3)
        processes = server.processes()

    assert eventually(lambda: all(process.ended() for process in processes))
    with serving(reachable_dir / "data"):
        pass


def test_after_killing_everything_mid_write_it_starts_with_what_was_committed(reachable_dir: Path) -> None:
    data = reachable_dir / "data"
    with launched(data) as server:
        server.wait()
        with embedded.running(data) as url, psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE written (number integer)")
            for number in range(100):
                connection.execute("INSERT INTO written VALUES (%s)", [number])
            for process in server.processes():
                with contextlib.suppress(ProcessLookupError):  # the database's own helpers come and go
                    os.kill(process.pid, signal.SIGKILL)

    with serving(data), embedded.running(data) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM written").fetchone() == (100,)


def test_killed_parts_are_started_again(reachable_dir: Path) -> None:
    with serving(reachable_dir / "data") as server:
        for part in ("api-process", "worker-process", "postgres_guard"):
            killed = server.one(part)
            os.kill(killed.pid, signal.SIGKILL)

            assert eventually(killed.ended), part
            assert eventually(lambda part=part: any(part in process.command for process in server.processes())), part  # type: ignore[misc]  # a lambda's default
        assert eventually(lambda: server.status() is not None)
        assert eventually(lambda: (found := server.postgres()) is not None and found in server.processes())
        postgres = server.postgres()
        assert postgres is not None
        os.kill(postgres.pid, signal.SIGKILL)

        assert eventually(postgres.ended)
        assert eventually(lambda: (found := server.postgres()) is not None and found.pid != postgres.pid)
        with embedded.running(server.data_dir) as url, psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert server.process.poll() is None


def test_without_worker_there_is_none_and_a_second_server_is_refused(reachable_dir: Path) -> None:
    data = reachable_dir / "data"
    with serving(data, "--no-worker") as server:
        assert not [process for process in server.processes() if "worker-process" in process.command]
        done = here("serve", "--data-dir", str(data), "--listen", f"127.0.0.1:{free_port()}")

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(
            f"quarterdeckd: Another quarterdeckd (process {server.process.pid}) serves {data} already: stop it first"
        )


def test_a_port_in_use_is_refused_before_anything_is_made(reachable_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = here("serve", "--data-dir", str(reachable_dir / "data"), "--listen", f"127.0.0.1:{port}")

    assert done.returncode == 1
    assert f"quarterdeckd: Port {port} is in use by another program: stop it, or choose another port" in done.stderr
    assert not (reachable_dir / "data" / "pg").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "192.0.2.1:8443"], "This machine has no address 192.0.2.1"),
        (["--listen", "no.such.host.invalid:8443"], "There is no address 'no.such.host.invalid' to listen at"),
    ],
)
def test_a_start_that_cannot_work_gets_a_sentence(reachable_dir: Path, arguments: list[str], sentence: str) -> None:
    done = here("serve", "--data-dir", str(reachable_dir / "data"), *arguments)

    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_data_directory_in_a_closed_place_is_refused(reachable_dir: Path) -> None:
    closed = reachable_dir / "closed"
    closed.mkdir(mode=0o700)

    done = quarterdeckd("serve", "--data-dir", str(closed / "data"), "--listen", f"127.0.0.1:{free_port()}")

    assert done.returncode == 1
    assert f"because {closed} is closed to it" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_external_database_is_migrated_only_when_asked(reachable_dir: Path, empty_postgres_url: str) -> None:
    data, port = reachable_dir / "data", free_port()
    place = ("--data-dir", str(data), "--listen", f"127.0.0.1:{port}", "--database-url", empty_postgres_url)

    refused = quarterdeckd("serve", *place)

    assert refused.returncode == 1
    assert "lacks the schema of this version: serve with --migrate" in refused.stderr
    with serving(data, "--database-url", empty_postgres_url, "--migrate") as server:
        assert not [process for process in server.processes() if "postgres" in process.command.split(" --")[0]]
        listed = here("token", "list", "--data-dir", str(data))
        assert "admin" in listed.stdout, "the command finds the database that `serve` was told"
    assert not (data / "pg").exists()


def test_a_newer_schema_is_refused(reachable_dir: Path, fresh_postgres_url: str) -> None:
    with psycopg.connect(fresh_postgres_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    place = ("--data-dir", str(reachable_dir / "data"), "--listen", f"127.0.0.1:{free_port()}")

    done = quarterdeckd("serve", *place, "--database-url", fresh_postgres_url, "--migrate")

    assert done.returncode == 1
    assert "was made by a newer version of Quarterdeck; upgrade this server" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_process_that_renews_a_due_certificate_does_it_once(reachable_dir: Path) -> None:
    data = reachable_dir / "data"
    given = {"data_dir": str(data), "listen": f"127.0.0.1:{free_port()}", "public_url": "https://renewed.example.org"}
    long_ago = datetime.now(UTC) - timedelta(days=tls.SERVER_DAYS - 10)
    tls.initialise(data, "https://renewed.example.org", long_ago)
    before = tls.files(data).server_certificate.read_bytes()
    renewing = [*PROGRAM, "certificate-renewal"]
    settings = msgspec.json.encode(config.load(given, {}))

    first = subprocess.run(renewing, input=settings, env=environment(), check=True, capture_output=True)
    second = subprocess.run(renewing, input=settings, env=environment(), check=True, capture_output=True)

    after = tls.files(data).server_certificate.read_bytes()
    assert (first.stdout, second.stdout) == (b"renewed\n", b"")
    assert after != before
    assert tls.spki_pin(after) == tls.spki_pin(before)
