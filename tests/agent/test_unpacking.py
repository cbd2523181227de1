# SPDX-License-Identifier: Apache-2.0
"""The single file starts from an unpacked copy when, and only when, that copy can be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools import build_agent

from quarterdeck.formats import agent_file
from quarterdeck_agent.state import StateDirectory


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "agent.pyz"
    build_agent.build(path)
    return path


def _start(archive: Path, state: StateDirectory) -> str:
    """What `history` prints; the probe puts a word into it."""
    command = [sys.executable, "-B", str(archive), "history", "--state-dir", state.path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _probe(state: StateDirectory) -> Path:
    """Change the unpacked copy so that its use can be seen."""
    (library,) = Path(state.at("lib")).iterdir()
    path = library / "quarterdeck_agent" / "state.py"
    path.write_text(path.read_text() + '\nprint("from the unpacked copy")\n')
    return path


def test_the_second_start_uses_the_unpacked_copy(archive: Path, state: StateDirectory) -> None:
    assert _start(archive, state) == ""
    _probe(state)
    assert _start(archive, state) == "from the unpacked copy\n"


def test_a_copy_that_others_could_have_written_is_not_used(archive: Path, state: StateDirectory) -> None:
    _start(archive, state)
    _probe(state)
    Path(state.at("lib")).chmod(0o777)
    assert _start(archive, state) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_copy_of_another_user_is_not_used(archive: Path, state: StateDirectory) -> None:
    _start(archive, state)
    os.chown(_probe(state).parent.parent, 12345, 12345)
    assert _start(archive, state) == ""


def test_another_version_replaces_the_copy(archive: Path, state: StateDirectory, tmp_path: Path) -> None:
    _start(archive, state)
    _probe(state)
    (before,) = Path(state.at("lib")).iterdir()
    newer = tmp_path / "sources" / "quarterdeck_agent"
    for path in Path("src/quarterdeck_agent").rglob("*.py"):
        target = newer / path.relative_to("src/quarterdeck_agent")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text() + "\n# newer\n")
    archive.write_bytes(agent_file.pack(newer))
    assert _start(archive, state) == ""
    (after,) = Path(state.at("lib")).iterdir()
    assert after != before


def test_a_start_before_there_is_a_state_directory_leaves_no_trace(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(archive), "--version"]
    environment = {**os.environ, "QUARTERDECK_AGENT_STATE": str(tmp_path / "none")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("quarterdeck-agent ")
    assert not (tmp_path / "none").exists()
