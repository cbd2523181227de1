# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck quarantine`, against a real server over TLS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine, Running

from quarterdeck.formats import report_files
from quarterdeck.relaying.failed_files import FailedFiles

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
NAMES = [f"2026-01-31T12:0{minute}:00+00:00@{NODE}.log" for minute in range(3)]
FIRST = report_files.queue_id(NAMES[0])


@pytest.fixture
def reports(running: Running) -> Path:
    """One broken file and two of a stranger."""
    directory = running.config.data / "reports"
    (directory / "incoming").mkdir(parents=True, exist_ok=True)
    failed = FailedFiles(directory / "failed")
    for number, name in enumerate(NAMES):
        failed.put(
            name,
            b"some\x1b[31m text",
            "It is broken." if number else "Nobody knows it.",
            "error" if number else "invalid",
        )
    return directory


def test_what_is_in_quarantine_is_listed_and_shown(operator: CommandLine, reports: Path) -> None:
    listed = operator("quarantine", "list", "--kind", "invalid", "--json")
    shown = operator("quarantine", "show", FIRST)

    assert [one["name"] for one in json.loads(listed.out)] == [NAMES[0]]
    assert "Nobody knows it." in shown.out
    assert "some" in shown.out
    assert "\x1b" not in shown.out
    assert FIRST in operator("quarantine", "list").out


def test_a_file_is_tried_again(operator: CommandLine, reports: Path) -> None:
    done = operator("quarantine", "retry", FIRST)

    assert (done.code, done.out) == (0, f"{NAMES[0]} of reports is tried again.\n")
    assert (reports / "incoming" / NAMES[0]).exists()
    assert operator("quarantine", "show", FIRST).code == 1


def test_all_of_a_kind_is_forgotten(operator: CommandLine, reports: Path) -> None:
    done = operator("quarantine", "remove", "--all", "--kind", "error")

    assert done.code == 0
    assert [path.name for path in (reports / "failed").glob("*.log")] == [NAMES[0]]


@pytest.mark.parametrize("arguments", [(), (FIRST, "--all"), (FIRST, "--kind", "error")])
def test_one_says_what_is_meant(operator: CommandLine, reports: Path, arguments: tuple[str, ...]) -> None:
    assert operator("quarantine", "retry", *arguments).code == 2
    assert len(list((reports / "failed").glob("*.log"))) == 3


def test_readers_may_look_but_not_touch(running: Running, quarterdeck: CommandLine, reports: Path) -> None:
    token = quarterdeck.file("token", running.tokens["read"])
    quarterdeck("login", running.url, "--token-file", token, "--ca-file", str(running.ca_file))

    assert FIRST in quarterdeck("quarantine", "list").out
    assert quarterdeck("quarantine", "show", FIRST).code == 1
    assert quarterdeck("quarantine", "retry", FIRST).code == 1
    assert quarterdeck("quarantine", "remove", FIRST).code == 1
