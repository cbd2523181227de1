# SPDX-License-Identifier: Apache-2.0
"""Statements 4, 62, 63 and 66 to 68 of the reference, for `quarterdeckd relay` as a process."""

from __future__ import annotations

import base64
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents import report
from tests.daemon.lone_relays import NEAR, RELAY, LoneRelay, enrolled, relaying
from tests.daemon.servers import eventually, here
from tests.relaying.upstreams import Asked, Said, Upstream, upstream

from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import config, relay_process
from quarterdeck.formats import agent, agent_client
from quarterdeck.relaying import spool

RUN = "/rudder/relay-api/1/remote-run/nodes"
RELOAD = "/rudder/relay-api/1/system/reload"
RELOADED = b'{"result":"success","action":"reloadConfiguration"}'
FORM = {"nodes": NEAR.node, "keep_output": "true"}
ECHO = '[[relay.remote_run_commands]]\nname = "echo"\ncommand = ["/bin/echo", "{hostname}"]\n'
ASKED = f"DEBUG quarterdeck.relaying.command_ways: Node {NEAR.node} is asked to run by echo"
SECRETS = ("Secret-of-reports", "Secret-of-upstream", "Secret-of-guesses", "Secret-of-enrolment")


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream() as made:
        made.answer = lambda _: Said(503)
        yield made


def deliver(relay: LoneRelay, number: int = 0) -> int:
    """A report of NEAR; the status of the answer."""
    body = NEAR.parcel("report", NEAR.run([report(f"r-{number}")]))
    path = agent.PATH_REPORTS
    return relay.ask("POST", path, body, headers=NEAR.headers("POST", path, body)).status_code


# -- settings, and how they are read anew ----------------------------------------------------


def test_statement_4_and_67_a_reload_changes_levels_of_log_lines_and_nothing_else_and_a_restart_does(
    tmp_path: Path,
) -> None:
    data = enrolled(tmp_path / "relay")
    file = data / "quarterdeck.toml"
    with relaying(data, ECHO) as relay:
        assert relay.ask("POST", RUN, data=FORM).text == "near.example.com\n"
        assert not relay.said(ASKED)

        file.write_text(f'log.levels = {{"quarterdeck.relaying" = "debug"}}\nrelay.remote_run = false\n{ECHO}')
        reload = relay.ask("POST", RELOAD)
        still = relay.ask("POST", RUN, data=FORM)

        assert (reload.status_code, reload.content) == (200, RELOADED)
        assert still.text == "near.example.com\n"
        assert relay.said(ASKED)
        assert relay.end() == 0
    with relaying(data, file.read_text()) as relay:
        assert relay.ask("POST", RUN, data=FORM).status_code == 404
        assert relay.end() == 0


def test_statement_67_a_hangup_reads_levels_and_watched_nodes_anew(tmp_path: Path) -> None:
    data = enrolled(tmp_path / "relay")
    read_anew = "The settings are read anew"
    with relaying(data, ECHO) as relay:
        (data / "quarterdeck.toml").write_text(f'log.level = "error"\nlog.nodes = ["{NEAR.node}"]\n{ECHO}')
        relay.send(signal.SIGHUP)
        # Its own line about it is of the level info, so it is not written any more.
        assert eventually(lambda: bool(relay.ask("POST", RUN, data=FORM).text) and relay.said(ASKED))
        assert not relay.said(read_anew)

        (data / "quarterdeck.toml").write_text(ECHO)
        relay.send(signal.SIGHUP)
        assert eventually(lambda: relay.said(read_anew))
        assert relay.end() == 0


def test_settings_that_are_wrong_are_told_by_the_reload_and_change_nothing(tmp_path: Path) -> None:
    data = enrolled(tmp_path / "relay")
    with relaying(data, ECHO) as relay:
        (data / "quarterdeck.toml").write_text("log.level = 'loud'\n")

        refused = relay.ask("POST", RELOAD)

        assert refused.status_code == 500
        assert "log.level is wrong" in refused.json()["errorDetails"]
        assert relay.ask("POST", RUN, data=FORM).text == "near.example.com\n"


# -- starts -----------------------------------------------------------------------------------


def test_a_relay_says_with_what_it_begins(tmp_path: Path) -> None:
    data = enrolled(tmp_path / "relay")
    (data / "spool" / "parcels").mkdir(parents=True)
    with relaying(data) as relay:
        assert "1 nodes below, 0 of them relays, as last heard; nothing waits to go up" in relay.log.read_text()
        assert deliver(relay) == 202
    with relaying(data) as relay:
        assert "as last heard; 1 files wait to go up, the oldest for" in relay.log.read_text()


def test_statement_62_a_relay_without_a_server_above_says_what_to_do(tmp_path: Path) -> None:
    done = here("relay", "--data-dir", str(tmp_path / "relay"), "--listen", "127.0.0.1:18099")

    assert done.returncode == 1
    assert "quarterdeckd relay enroll --upstream URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["listen = ", "[relay]\nmirror_second = 1", "relay.mirror_seconds = 'soon'"])
def test_statement_62_wrong_settings_end_a_relay_with_status_2(tmp_path: Path, text: str) -> None:
    data = enrolled(tmp_path / "relay")
    (data / "quarterdeck.toml").write_text(text)

    done = here("relay", "--data-dir", str(data), "--listen", "127.0.0.1:18099")

    assert done.returncode == 2
    assert done.stderr.startswith("quarterdeckd: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("broken", ["agent/node.key", "agent/node.cert", "agent/settings.json", "mirror/nodes.json"])
def test_statement_62_a_file_that_cannot_be_read_ends_a_relay_with_status_3(tmp_path: Path, broken: str) -> None:
    data = enrolled(tmp_path / "relay")
    (data / broken).unlink()
    (data / broken).mkdir()  # what nobody can read, root either

    done = here("relay", "--data-dir", str(data), "--listen", "127.0.0.1:18099")

    assert done.returncode == 3, done.stderr
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_nodes_list_that_is_damaged_is_fetched_again(tmp_path: Path, above: Upstream) -> None:
    data = enrolled(tmp_path / "relay", above.url)
    whole = (data / "mirror" / "nodes.json").read_bytes()
    (data / "mirror" / "nodes.json").write_bytes(whole[:-10])
    above.answer = lambda _: Said(200, whole)
    known = agent_client.identity(str(data / "agent"))
    relay = relay_process.assemble(config.load({"data_dir": str(data)}, {}), known)
    try:
        nodes = relay.mirror.nodes
        with pytest.raises(Invalid):
            nodes.current()
        relay.mirror.refresh_nodes()
        assert NEAR.node in nodes.current().topology
    finally:
        for link in relay.links:
            link.close()


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", " \n\n"])
def test_statement_63_blanks_after_the_id_of_a_node_do_not_count(tmp_path: Path, ending: str) -> None:
    data = enrolled(tmp_path / "relay")
    (data / "agent" / "node.id").write_text(RELAY.node + ending)

    assert agent_client.identity(str(data / "agent")).node == RELAY.node


# -- what no log may have ---------------------------------------------------------------------


def test_statement_66_no_password_and_no_token_is_in_a_log_of_a_relay(tmp_path: Path, above: Upstream) -> None:
    data = enrolled(tmp_path / "relay", above.url)
    settings = (
        'log.level = "debug"\nrelay.mirror_seconds = 1\nrelay.report_password = "Secret-of-reports"\n'
        'relay.upstream_password = "Secret-of-upstream"\nrelay.allowed_networks = ["127.0.0.0/8"]\n'
    )
    name = f"/reports/2026-01-31T12:00:00+00:00@{NEAR.node}.log"
    body = agent.canonical(NEAR.enrolment("Secret-of-enrolment"))
    with relaying(data, settings, {"QUARTERDECK_LOG_LEVEL": "debug"}) as relay:
        guessed = relay.ask("PUT", name, b"log", auth=("rudder", "Secret-of-guesses"))
        put = relay.ask("PUT", name, b"log", auth=("rudder", "Secret-of-reports"))
        passed = relay.ask("POST", agent.PATH_ENROLL, body, headers=NEAR.headers("POST", agent.PATH_ENROLL, body))
        relay.ask("GET", "/rudder/relay-api/1/system/status", headers={"Authorization": "Bearer Secret-of-guesses"})
        assert eventually(lambda: any(one.method == "PUT" for one in above.asked)), relay.log.read_text()
        relay.ask("POST", RELOAD)
        assert relay.end() == 0
        text = relay.log.read_text()

    assert (guessed.status_code, put.status_code) == (401, 201)
    assert passed.status_code == 503
    assert any("Secret-of-enrolment" in one.body.decode(errors="replace") for one in above.asked)
    assert " DEBUG " in text
    for secret in SECRETS:
        assert secret not in text
        for user in ("", "rudder:"):
            # Of its base64, what does not depend on where it stands among other bytes.
            assert base64.b64encode(f"{user}{secret}".encode()).decode().rstrip("=")[:-2] not in text


# -- the end ----------------------------------------------------------------------------------


def test_statement_68_a_relay_that_is_told_to_end_lets_nothing_get_lost_and_ends_with_status_0(
    tmp_path: Path, above: Upstream
) -> None:
    data = enrolled(tmp_path / "relay", above.url)
    hangs, reached = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Said:
        if asked.method == "POST" and "parcels" in asked.target:
            reached.set()
            return Said(503, wait=hangs)
        return Said(503)

    above.answer = answer
    try:
        with relaying(data) as relay:
            assert [deliver(relay, number) for number in range(3)] == [202] * 3
            assert reached.wait(30), relay.log.read_text()  # it is on its way up, and hangs there

            assert relay.end() == 0
            assert not relay.answers()
            assert not relay.said("Traceback"), relay.log.read_text()
    finally:
        hangs.set()
    directory = data / "spool" / "parcels"
    kept = [record for path in spool.pending(directory) for record in spool.records(path)]
    assert len(kept) == 3
