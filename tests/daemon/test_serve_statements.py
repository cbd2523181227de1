# SPDX-License-Identifier: Apache-2.0
"""Statements 4, 62 and 66 to 68 of the reference, for `quarterdeckd serve` as processes."""

from __future__ import annotations

import base64
import logging
import signal
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tests.agents import Agent
from tests.daemon.servers import Server, eventually, here, quarterdeckd, serving
from tests.postgres import temporary_directory

from quarterdeck.core.ids import ROOT
from quarterdeck.daemon import config, tls, wiring
from quarterdeck.formats import agent
from quarterdeck.relaying.failed_files import FailedFiles

RUN = "/rudder/relay-api/1/remote-run/nodes"
RELOAD = "/rudder/relay-api/1/system/reload"
RELOADED = b'{"result":"success","action":"reloadConfiguration"}'
FORM = {"nodes": ROOT, "keep_output": "true"}
ECHO = '[[relay.remote_run_commands]]\nname = "echo"\ncommand = ["/bin/echo", "{node}"]\n'
ASKED = f"DEBUG quarterdeck.relaying.command_ways: Node {ROOT} is asked to run by echo"
AGENT = Agent()
STRANGER = "37817c4d-fbf7-4850-a985-50021f4e8f41"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that writes errors only, at first."""
    with temporary_directory() as directory:
        data = directory / "data"
        data.mkdir(mode=0o700)
        settle(data, 'log.level = "error"\n')
        with serving(data) as made:
            yield made


def settle(data: Path, text: str) -> None:
    (data / "quarterdeck.toml").write_text(f"{text}{ECHO}")


def ask(server: Server, method: str, path: str, **more: Any) -> httpx.Response:
    trusting = ssl.create_default_context(cafile=str(server.data_dir / "keys" / "ca.pem"))
    with httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=trusting, trust_env=False) as client:
        return client.request(method, path, timeout=20, **more)


def drop(data: Path, name: str) -> None:
    incoming = data / "reports" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / f".{name}").write_bytes(b"junk")
    (incoming / f".{name}").rename(incoming / name)


# -- settings, and how they are read anew ------------------------------------------------------


def test_statement_4_and_67_a_reload_changes_levels_of_log_lines_and_nothing_else(server: Server) -> None:
    assert ask(server, "POST", RUN, data=FORM).text == "root\n"
    assert ASKED not in server.log.read_text()
    settle(server.data_dir, 'log.levels = {"quarterdeck.relaying" = "debug"}\nrelay.remote_run = false\n')

    reload = ask(server, "POST", RELOAD)
    still = ask(server, "POST", RUN, data=FORM)

    assert (reload.status_code, reload.content) == (200, RELOADED)
    assert still.text == "root\n"
    assert ASKED in server.log.read_text()


def test_statement_67_workers_take_part_in_a_reload(server: Server) -> None:
    def told(name: str) -> bool:
        lines = server.log.read_text().splitlines()
        return any(name in line and " WARNING quarterdeck.relaying.drop_directory" in line for line in lines)

    settle(server.data_dir, 'log.level = "error"\n')
    ask(server, "POST", RELOAD)
    failed = FailedFiles(server.data_dir / "reports" / "failed")
    drop(server.data_dir, "first bad name.log")
    assert eventually(lambda: "first bad name.log" in failed.names())
    settle(server.data_dir, 'log.level = "warning"\n')
    server.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: server.log.read_text().count("The settings are read anew") >= 2)
    drop(server.data_dir, "second bad name.log")

    assert eventually(lambda: told("second bad name.log")), server.log.read_text()
    assert not told("first bad name.log")


def test_statement_67_watched_nodes_are_read_anew(server: Server) -> None:
    settle(server.data_dir, 'log.level = "error"\nlog.nodes = ["root"]\n')
    ask(server, "POST", RELOAD)
    before = server.log.read_text().count(ASKED)
    ask(server, "POST", RUN, data=FORM)
    settle(server.data_dir, 'log.level = "error"\n')
    ask(server, "POST", RELOAD)
    ask(server, "POST", RUN, data=FORM)

    assert server.log.read_text().count(ASKED) == before + 1


def test_settings_that_are_wrong_are_told_by_the_reload_and_change_nothing(server: Server) -> None:
    (server.data_dir / "quarterdeck.toml").write_text("log.level = 'loud'\n")

    refused = ask(server, "POST", RELOAD)

    assert refused.status_code == 500
    assert "log.level is wrong" in refused.json()["errorDetails"]
    assert ask(server, "POST", RUN, data=FORM).text == "root\n"


def test_statement_4_a_restart_changes_all_settings(fresh_postgres_url: str, tmp_path: Path) -> None:
    tls.initialise(tmp_path, "https://localhost:8443", datetime.now(UTC))
    for switched, status in (("true", 200), ("false", 404)):
        settle(tmp_path, f"relay.remote_run = {switched}\n")
        told = {"data_dir": str(tmp_path), "database_url": fresh_postgres_url, "public_url": "https://localhost:8443"}
        with TestClient(wiring.application(config.load(told, {})), client=("127.0.0.1", 4711)) as client:
            assert client.post(RUN, data=FORM).status_code == status


# -- starts that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["listen = ", "threds = 4", "threads = 'many'"])
def test_statement_62_wrong_settings_end_a_server_with_status_2(tmp_path: Path, text: str) -> None:
    (tmp_path / "quarterdeck.toml").write_text(text)

    done = here("serve", "--data-dir", str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith("quarterdeckd: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("broken", ["server.key", "ca.pem", "policy.key", "secret.key"])
def test_statement_62_a_file_that_cannot_be_read_ends_a_server_with_status_3(
    reachable_dir: Path, fresh_postgres_url: str, broken: str
) -> None:
    data = reachable_dir / "data"
    tls.initialise(data, "https://127.0.0.1:18098", datetime.now(UTC))
    (data / "keys" / broken).unlink()
    (data / "keys" / broken).mkdir()  # what nobody can read, root either

    place = ("--data-dir", str(data), "--database-url", fresh_postgres_url, "--listen", "127.0.0.1:18098")
    done = quarterdeckd("serve", "--no-worker", *place)

    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


# -- what no log may have ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:Secret-of-database@127.0.0.1:9/quarterdeck",
        "postgresql://someone:Secret-of-database@127.0.0.1:port/quarterdeck",
        "postgresql://someone:Secret-of-database@[::1/quarterdeck",
        "postgresql://someone:Secret-of-database@127.0.0.1:9/quarterdeck?sslmode=wrong&connect_timeout=x",
        "mysql://someone:Secret-of-database@127.0.0.1:9/quarterdeck",
    ],
)
def test_statement_66_the_password_of_a_database_that_is_away_is_in_no_log(reachable_dir: Path, url: str) -> None:
    data = reachable_dir / "data"
    data.mkdir(mode=0o700)
    (data / "quarterdeck.toml").write_text(f'log.level = "debug"\ndatabase_url = "{url}"\n')

    done = quarterdeckd("serve", "--data-dir", str(data), "--listen", "127.0.0.1:18097")

    assert done.returncode in (1, 2)
    assert done.stderr
    assert "Secret-of-database" not in done.stdout + done.stderr


def test_statement_66_no_password_and_no_token_is_in_a_log_of_a_server(
    tmp_path: Path, fresh_postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tls.initialise(tmp_path, "https://localhost:8443", datetime.now(UTC))
    secrets = ("Secret-of-reports", "Secret-of-guesses", "Secret-of-enrolment", "Secret-of-users")
    told = {
        "data_dir": str(tmp_path),
        "database_url": fresh_postgres_url,
        "public_url": "https://localhost:8443",
        "relay.report_password": "Secret-of-reports",
        "log.level": "debug",
    }
    name = f"/reports/2026-01-31T12:00:00+00:00@{STRANGER}.log"
    enrolment = AGENT.enrolment("Secret-of-enrolment")
    with TestClient(wiring.application(config.load(told, {})), client=("127.0.0.1", 4711)) as client:
        statuses = [
            client.put(name, content=b"log", auth=("rudder", "Secret-of-guesses")).status_code,
            client.put(name, content=b"log", auth=("rudder", "Secret-of-reports")).status_code,
            client.get("/rudder/api/latest/nodes", headers={"X-API-Token": "Secret-of-guesses"}).status_code,
            client.get("/metrics", headers={"Authorization": "Bearer Secret-of-guesses"}).status_code,
            client.post(
                "/j_security_check", data={"j_username": "ann", "j_password": "Secret-of-users"}, follow_redirects=False
            ).status_code,
            client.post(
                agent.PATH_ENROLL,
                content=agent.canonical(enrolment),
                headers=AGENT.headers("POST", agent.PATH_ENROLL, agent.canonical(enrolment)),
            ).status_code,
        ]

    assert statuses == [401, 201, 401, 200, 302, 403]  # metrics are for the own machine, whatever it shows
    assert [record for record in caplog.records if record.levelno == logging.DEBUG]
    for secret in secrets:
        assert secret not in caplog.text
        assert base64.b64encode(f"rudder:{secret}".encode()).decode().rstrip("=")[:-2] not in caplog.text


# -- the end ------------------------------------------------------------------------------------


def test_statement_68_a_server_that_is_told_to_end_at_work_loses_no_file_and_ends_with_status_0(
    reachable_dir: Path,
) -> None:
    data = reachable_dir / "data"
    names = [f"2026-01-31T12:{number // 60:02d}:{number % 60:02d}+00:00@{STRANGER}.log" for number in range(400)]
    with serving(data) as server:
        failed = FailedFiles(data / "reports" / "failed")
        for name in names:
            drop(data, name)
        assert eventually(lambda: bool(failed.names()))

        assert server.end() == 0
        assert server.status() is None
        log = server.log.read_text()

    assert "Traceback" not in log
    assert 0 < len(failed.names()) < len(names), "it was at work when it was told to end"
    with serving(data):
        assert eventually(lambda: set(failed.names()) == set(names))
    assert all(failed.reason(name).reason for name in failed.names())
