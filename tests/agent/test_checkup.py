# SPDX-License-Identifier: Apache-2.0
"""`check` repairs what it can and fails on what a person must look at; the schedule it runs under."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.agent.server import FakeServer, policy

from quarterdeck_agent import checkup, keys, service, storing
from quarterdeck_agent.state import StateDirectory


def _check(state: StateDirectory) -> dict[str, checkup.Line]:
    return {line.subject: line for line in checkup.check(state)}


def test_a_healthy_agent_has_no_failed_line(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id()))
    lines = _check(enrolled)
    assert {name: line.state for name, line in lines.items() if line.state != "ok"} == {"last run": "warning"}
    assert "1 directive(s), signature valid" in lines["policy"].text


def test_an_agent_that_is_not_enrolled_fails_at_the_server(state: StateDirectory) -> None:
    lines = _check(state)
    assert lines["identity"].state == lines["key"].state == "ok"
    assert lines["server"].state == "failed"
    assert "enroll" in lines["server"].text


def test_a_malformed_id_is_recovered_from_the_certificate(enrolled: StateDirectory) -> None:
    node = enrolled.node_id()
    Path(enrolled.at("node.id")).write_text("garbage\n")
    line = _check(enrolled)["identity"]
    assert (line.state, enrolled.node_id()) == ("fixed", node)
    (kept,) = Path(enrolled.path).glob("node.id.malformed-*")
    assert kept.read_text() == "garbage\n"


def test_a_malformed_id_without_certificate_becomes_a_new_one(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    (tmp_path / "node.id").write_text("9A2C2F4E-0000-4000-8000-000000000123")  # upper case is not ours
    assert state.node_id() == state.node_id() != "9A2C2F4E-0000-4000-8000-000000000123"


def test_a_readable_private_key_is_closed_again(enrolled: StateDirectory) -> None:
    path = Path(enrolled.at(keys.KEY_FILE))
    path.chmod(0o644)
    assert _check(enrolled)["key"].state == "fixed"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_does_not_fit_is_made_again(enrolled: StateDirectory) -> None:
    Path(enrolled.at(keys.CERTIFICATE_FILE)).write_text("rubbish")
    assert _check(enrolled)["key"].state == "fixed"
    assert keys.certified_node(keys.load(enrolled.path).certificate) == enrolled.node_id()


def test_leftovers_of_a_crash_are_removed_but_not_during_a_run(enrolled: StateDirectory) -> None:
    leftover = Path(enrolled.at("queue/.new-7-x.parcel"))
    leftover.write_bytes(b"half")
    with enrolled.lock():
        assert _check(enrolled)["lock"].state == "warning"
        assert leftover.exists()
    assert _check(enrolled)["lock"].state == "fixed"
    assert not leftover.exists()


def test_a_run_that_hangs_for_hours_is_named(enrolled: StateDirectory) -> None:
    with enrolled.lock():
        Path(enrolled.at("lock")).write_text(f"{os.getpid()} {int(time.time()) - 7200}\n")
        line = _check(enrolled)["lock"]
    assert line.state == "failed"
    assert str(os.getpid()) in line.text


def test_a_changed_policy_on_disk_is_fetched_again(enrolled: StateDirectory, server: FakeServer) -> None:
    server.publish(policy(enrolled.node_id()))
    _check(enrolled)
    Path(enrolled.at("policy")).write_bytes(b'{"signature": "", "etag": "x"}\n{}')
    assert "newer policy was fetched" in _check(enrolled)["server"].text
    assert _check(enrolled)["policy"].state == "ok"


def test_an_old_inventory_is_sent_by_the_next_run(enrolled: StateDirectory) -> None:
    enrolled.remember(last_inventory=int(time.time()) - 100 * 3600)
    assert _check(enrolled)["inventory"].state == "fixed"
    assert enrolled.memory()["last_inventory"] == 0


def test_a_damaged_settings_file_is_one_sentence(enrolled: StateDirectory) -> None:
    Path(enrolled.at("settings.json")).write_text("{")
    assert "is not JSON" in _check(enrolled)["server"].text


def test_damaged_counters_count_as_none(enrolled: StateDirectory) -> None:
    Path(enrolled.at("memory.json")).write_text("{")
    enrolled.remember(last_update=7)
    assert enrolled.memory() == {"last_update": 7}


_COMMAND = ["/usr/bin/python3", "/opt/a b/agent.pyz", "run", "--state-dir", "/var/x%y"]


def test_the_unit_quotes_its_command() -> None:
    unit = service.service_unit(_COMMAND)
    assert 'ExecStart="/usr/bin/python3" "/opt/a b/agent.pyz" "run" "--state-dir" "/var/x%%y"\n' in unit


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here: cron is not used")
def test_an_installed_schedule_follows_the_policy(enrolled: StateDirectory, tmp_path: Path) -> None:
    cron = tmp_path / "cron"
    assert service.install(enrolled, str(cron)) == "A cron entry runs the agent every 5 minutes."
    assert cron.read_text().splitlines()[1].startswith("*/5 * * * * root ")
    cron.write_text("")
    service.follow(enrolled, 5, str(cron))
    assert cron.read_text() == ""
    service.follow(enrolled, 15, str(cron))
    assert cron.read_text() != ""  # rewritten from the policy
    service.remove(enrolled, str(cron))
    assert not cron.exists()
    service.follow(enrolled, 30, str(cron))  # nothing is installed, nothing follows
    assert not cron.exists()


def test_backups_are_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x" * 100)
        time.sleep(0.01)
    storing.trim(str(tmp_path), 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


@pytest.mark.parametrize(("minutes", "when"), [(5, "*/5 * * * *"), (60, "0 */1 * * *"), (360, "0 */6 * * *")])
def test_the_cron_entry_follows_the_interval(minutes: int, when: str) -> None:
    entry = service.cron_entry(_COMMAND, minutes)
    assert entry.splitlines()[1].startswith(f"{when} root '/usr/bin/python3' '/opt/a b/agent.pyz'")
    assert "/var/x\\%y" in entry
