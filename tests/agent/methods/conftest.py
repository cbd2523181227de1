# SPDX-License-Identifier: Apache-2.0
"""A scratch machine that the methods take for the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.methods.casebook import Scratch

from quarterdeck_agent.methods import system


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scratch]:
    machine = Scratch(tmp_path / "machine")
    monkeypatch.setenv(system.SYSROOT, str(machine.root))
    monkeypatch.setenv("PATH", str(machine.home / "bin"))
    with machine.closing:
        yield machine
