# SPDX-License-Identifier: Apache-2.0
"""The command line as a person or a timer uses it, and the single file that carries it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.agent.server import TOKEN, FakeServer, call, policy
from tools import build_agent

from quarterdeck.formats import agent_file
from quarterdeck_agent import __main__, documents, keys, parcels
from quarterdeck_agent.state import StateDirectory

_INTERPRETERS = sorted(
    path
    for path in Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin/python")
    if path.parts[-3].split(".")[1].isdigit() and int(path.parts[-3].split(".")[1]) >= 9
)


@pytest.fixture(autouse=True)
def _no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without package tools an inventory takes no time; `test_inventory.py` has the real one."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def _agent(state: StateDirectory, *arguments: str) -> int:
    command, *rest = arguments
    return __main__.main([command, "--state-dir", state.path, *rest])


def test_enrolling_makes_a_node_and_sends_its_inventory(
    state: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.publish(policy(state.node_id()))
    code = _agent(state, "enroll", "--server", server.url, "--pin", server.pin, "--token", TOKEN, "--json")
    assert code == __main__.FINE
    assert json.loads(capsys.readouterr().out) == {"node": state.node_id(), "status": "accepted"}
    (parcel,) = server.parcels
    assert parcel.kind == "inventory"
    assert parcel.payload()["node"] == state.node_id()
    assert state.settings().policy_key == server.policy_key_pem()
    assert Path(state.at("settings.json")).stat().st_mode & 0o777 == 0o600


def test_enrolling_waits_until_the_node_is_accepted(state: StateDirectory, server: FakeServer) -> None:
    server.enrolment_status = "pending"
    arguments = ("enroll", "--server", server.url, "--pin", server.pin, "--token", TOKEN)
    assert _agent(state, *arguments, "--accept-wait", "0.2") == __main__.FAILED
    server.publish(policy(state.node_id()))
    assert _agent(state, *arguments, "--accept-wait", "30") == __main__.FINE
    assert state.settings()["status"] == "accepted"


def test_a_wrong_token_enrols_nothing(
    state: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _agent(state, "enroll", "--server", server.url, "--pin", server.pin, "--token", "wrong")
    assert code == __main__.FAILED
    assert "refused: bad_token" in capsys.readouterr().err
    assert not Path(state.at("settings.json")).exists()


def test_reports_of_a_lost_key_are_put_away_when_the_node_enrols_again(
    enrolled: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = parcels.Queue(enrolled.at("queue"), enrolled.at("refused"))
    queue.add("report", enrolled.node_id(), keys.load(enrolled.path), {"run_id": "old"})
    for name in (keys.KEY_FILE, keys.CERTIFICATE_FILE):
        Path(enrolled.at(name)).unlink()
    code = _agent(enrolled, "enroll", "--server", server.url, "--pin", server.pin, "--token", TOKEN)
    assert code == __main__.FINE
    assert "1 parcel(s) of an earlier identity" in capsys.readouterr().err
    assert [parcel.kind for parcel in server.parcels] == ["inventory"]
    assert len(list(Path(enrolled.at("refused")).iterdir())) == 1


def test_the_token_can_come_from_a_file(state: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    arguments = ("enroll", "--server", server.url, "--pin", server.pin, "--token-file", str(tmp_path / "token"))
    assert _agent(state, *arguments) == __main__.FINE


def test_enrolling_as_a_given_node_renews_the_certificate(state: StateDirectory, server: FakeServer) -> None:
    node = "11111111-2222-4333-8444-555555555555"
    arguments = ("enroll", "--server", server.url, "--pin", server.pin, "--token", TOKEN, "--node-id", node)
    assert _agent(state, *arguments) == __main__.FINE
    assert state.node_id() == node == keys.certified_node(keys.load(state.path).certificate)
    assert list(server.nodes) == [node]
    assert _agent(state, *arguments[:-1], "not-a-uuid") == __main__.FAILED


@pytest.mark.parametrize(
    ("method", "mode", "options", "code"),
    [
        ("report_if_condition", "enforce", [], __main__.FINE),
        ("no_such_method", "enforce", [], __main__.IN_ERROR),
        ("no_such_method", "audit", ["--fail-on-drift"], __main__.IN_ERROR),
    ],
)
def test_the_exit_code_of_a_run_tells_its_worst_outcome(
    enrolled: StateDirectory, server: FakeServer, method: str, mode: str, options: list[str], code: int
) -> None:
    params = {"report_message": "x", "condition": "any"}
    server.publish(policy(enrolled.node_id(), call(method, "x", params=params), mode=mode))
    assert _agent(enrolled, "run", *options) == code


def test_drift_fails_a_run_only_when_asked(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.publish(policy(enrolled.node_id(), call("file_present", str(tmp_path / "gone")), mode="audit"))
    assert _agent(enrolled, "run") == __main__.FINE
    assert _agent(enrolled, "run", "--fail-on-drift") == __main__.DRIFTED
    out = capsys.readouterr().out
    assert "not compliant: A directive / file_present" in out
    assert "1 component(s): 1 not compliant" in out


def test_real_methods_repair_a_real_file(enrolled: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "motd"
    params = {"path": str(target), "lines": "Welcome to ${node.properties[site][city]}", "enforce": "true"}
    server.publish(policy(enrolled.node_id(), call("file_content", str(target), params=params)))
    assert _agent(enrolled, "run", "--audit") == __main__.FINE
    assert not target.exists()
    assert server.runs() == []
    assert _agent(enrolled, "run") == __main__.FINE
    assert target.read_text() == "Welcome to Lyon\n"
    target.write_text("damaged\n")
    assert _agent(enrolled, "run") == __main__.FINE
    assert target.read_text() == "Welcome to Lyon\n"
    assert [sent["reports"][0]["status"] for sent in server.runs()] == ["result_repaired"] * 2


_WITHOUT_DISK = """
import resource, sys
from quarterdeck_agent import __main__
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails from here on
sys.exit(__main__.main(["run", "--state-dir", sys.argv[1]]))
"""


def test_a_full_disk_does_not_keep_a_policy_from_being_applied(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    server.publish(policy(enrolled.node_id()))
    _agent(enrolled, "run")
    server.publish(policy(enrolled.node_id(), call("directory_present", str(tmp_path / "made"))))
    _agent(enrolled, "update")
    command = [sys.executable, "-c", _WITHOUT_DISK, enrolled.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": "src"})
    assert (tmp_path / "made").is_dir()
    assert "could not be kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 repaired" in done.stdout


def test_a_second_run_has_an_exit_code_of_its_own(enrolled: StateDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with enrolled.lock():
        assert _agent(enrolled, "run") == __main__.LOCKED
    assert f"process {os.getpid()}" in capsys.readouterr().err


def test_every_command_of_a_node_that_is_not_enrolled_says_what_to_do(
    state: StateDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["run"], ["update"]):
        assert _agent(state, *command) == __main__.FAILED
        assert "enroll --server" in capsys.readouterr().err


def test_updating_while_waiting_is_no_failure(enrolled: StateDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert _agent(enrolled, "update") == __main__.FINE
    assert "waits to be accepted" in capsys.readouterr().out


def test_updating_fetches_the_policy(
    enrolled: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.publish(policy(enrolled.node_id()))
    assert [_agent(enrolled, "update"), _agent(enrolled, "update")] == [__main__.FINE] * 2
    assert capsys.readouterr().out == "A new policy was fetched.\nThe policy is current.\n"


def test_info_and_history_tell_what_happened(
    enrolled: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.publish(policy(enrolled.node_id()))
    _agent(enrolled, "run")
    capsys.readouterr()
    assert _agent(enrolled, "info", "--json") == __main__.FINE
    info = json.loads(capsys.readouterr().out)
    assert (info["configuration"], info["server"], info["queued"]) == ("config-1", server.url, 0)
    assert _agent(enrolled, "history", "--json") == __main__.FINE
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["config_id"] == "config-1"
    assert _agent(enrolled, "history") == __main__.FINE
    assert "config-1" in capsys.readouterr().out


def test_the_inventory_can_be_shown_and_sent(
    enrolled: StateDirectory, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _agent(enrolled, "inventory", "--show") == __main__.FINE
    assert json.loads(capsys.readouterr().out)["format"] == documents.FORMAT
    assert server.parcels == []
    assert _agent(enrolled, "inventory") == __main__.FINE
    assert [parcel.kind for parcel in server.parcels] == ["inventory"]


def test_a_state_directory_that_others_can_write_to_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert __main__.main(["run", "--state-dir", str(tmp_path / "shared")]) == __main__.FAILED
    assert "Others can write" in capsys.readouterr().err
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_state_directory_of_another_user_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    assert __main__.main(["run", "--state-dir", str(tmp_path / "theirs")]) == __main__.FAILED
    assert "belongs to user 12345" in capsys.readouterr().err
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_state_directory_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert __main__.main(["run", "--state-dir", str(tmp_path / "file" / "below")]) == __main__.FAILED
    assert "--state-dir" in capsys.readouterr().err


def test_two_builds_of_the_same_sources_are_the_same_bytes(tmp_path: Path) -> None:
    build_agent.build(tmp_path / "one.pyz")
    build_agent.build(tmp_path / "two.pyz")
    first = (tmp_path / "one.pyz").read_bytes()
    assert first == (tmp_path / "two.pyz").read_bytes() == agent_file.agent_file()
    names = zipfile.ZipFile(tmp_path / "one.pyz").namelist()
    assert names == sorted(names)
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.skipif(not _INTERPRETERS, reason="no other interpreters on this machine")
@pytest.mark.parametrize("interpreter", _INTERPRETERS, ids=lambda path: path.parts[-3])
def test_the_single_file_runs_under(
    interpreter: Path, enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    build_agent.build(tmp_path / "agent.pyz")
    target = tmp_path / "made"
    server.publish(policy(enrolled.node_id(), call("file_present", str(target))))
    command = [str(interpreter), str(tmp_path / "agent.pyz"), "run", "--json", "--state-dir", enrolled.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"result_repaired": 1}
    assert target.exists()
    assert [run["reports"][0]["status"] for run in server.runs()] == ["result_repaired"]


def test_the_installed_command_is_the_same_program() -> None:
    command = [sys.executable, "-m", "quarterdeck_agent", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": "src"})
    assert done.stdout.startswith("quarterdeck-agent ")
