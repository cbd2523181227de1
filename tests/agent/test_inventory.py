# SPDX-License-Identifier: Apache-2.0
"""The inventory of the machine the tests run on, compared with what other tools say, and its parsers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from quarterdeck_agent import documents, facts, hardware, inventory, software

NODE = "9a2c2f4e-0000-4000-8000-000000000123"


@pytest.fixture(scope="module")
def collected() -> dict[str, Any]:
    return dict(inventory.collect(NODE))


def test_an_inventory_is_json_of_the_agreed_fields(collected: dict[str, Any]) -> None:
    assert json.loads(documents.canonical(collected)) == collected
    assert set(collected) <= set(documents.Inventory.__annotations__)
    assert collected["node"] == NODE


def test_the_system_and_the_machine_are_this_one(collected: dict[str, Any]) -> None:
    assert collected["os"]["kernelVersion"] == platform.release()
    assert collected["architecture"] == platform.machine()
    assert collected["hostname"].startswith(socket.gethostname().partition(".")[0])
    assert collected["machine"]["type"] in ("Physical", "Virtual", "Unknown")
    assert collected["ram"] > 64 * 1024**2
    assert "root" in collected["accounts"]


def test_processors_and_processes_are_those_running(collected: dict[str, Any]) -> None:
    assert sum(entry["core"] * entry["thread"] for entry in collected["processors"]) == os.cpu_count()
    mine = next(entry for entry in software.processes() if entry["pid"] == os.getpid())
    assert "pytest" in mine["name"] or "python" in mine["name"]
    assert mine["virtualMemory"] > 1024**2


def test_file_systems_have_sizes_in_bytes(collected: dict[str, Any]) -> None:
    root = next(entry for entry in collected["file_systems"] if entry["mountPoint"] == "/")
    assert root["totalSpace"] == shutil.disk_usage("/").total
    assert not [entry for entry in collected["file_systems"] if entry["mountPoint"].startswith("/proc")]


def test_interfaces_carry_the_addresses_of_the_machine(collected: dict[str, Any]) -> None:
    loopback = next(entry for entry in collected["network_interfaces"] if entry["name"] == "lo")
    assert "127.0.0.1" in loopback["ipAddresses"]
    assert loopback["status"] == "Up"
    assert "127.0.0.1" in collected["ip_addresses"]


def test_without_the_ip_tool_the_kernel_tells_the_same_first_addresses() -> None:
    from_kernel = hardware._addresses_from_kernel()
    assert ("127.0.0.1", "255.0.0.0") in from_kernel["lo"]
    for name, addresses in hardware._addresses_from_ip().items():
        if addresses:
            assert addresses[0] in from_kernel[name]


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no dpkg")
def test_software_is_what_dpkg_says(collected: dict[str, Any]) -> None:
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "dpkg"], capture_output=True, text=True, check=True)
    versions = [entry["version"] for entry in collected["software"] if entry["name"] == "dpkg"]
    assert versions == [done.stdout]


def test_secrets_of_the_environment_stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no tools: faster, and fields are missing instead of an error
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    found = inventory.collect(NODE)
    assert "hunter2" not in json.dumps(found["environment"])
    assert "memories" not in found
    assert "ip_addresses" in found


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ({"ID": "debian"}, "Debian"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "Ubuntu"),
        ({"ID": "rhel"}, "Redhat"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "RockyLinux"),
        ({"ID": "almalinux"}, "AlmaLinux"),
        ({"ID": "ol"}, "Oracle"),
        ({"ID": "amzn"}, "AmazonLinux"),
        ({"ID": "opensuse-leap"}, "Suse"),
        ({"ID": "homegrown", "ID_LIKE": "debian"}, "Debian"),
        ({"ID": "alpine"}, "UnknownLinux"),
        ({}, "UnknownLinux"),
    ],
)
def test_systems_are_named_as_the_api_does(release: dict[str, str], name: str) -> None:
    assert inventory.operating_system(release)["name"] == name


def test_os_release_is_read_without_its_quotes(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("# comment\nID=debian\nPRETTY_NAME=\"Debian 12\"\nVERSION_ID='12'\nbroken\n")
    assert facts.os_release(("/nonexistent", str(path))) == {
        "ID": "debian",
        "PRETTY_NAME": "Debian 12",
        "VERSION_ID": "12",
    }


def test_properties_declared_on_the_node_are_merged(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"rack": "a", "row": 1}')
    (tmp_path / "2.json").write_text('{"rack": "b"}')
    (tmp_path / "3.json").write_text("not json")
    (tmp_path / "4.json").write_text('["not an object"]')
    assert inventory.properties(str(tmp_path / "*.json")) == {"rack": "b", "row": 1}


def test_the_timezone_has_a_name_and_a_short_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert inventory.timezone(time.localtime()) == {"name": "Asia/Kolkata", "offset": "+0530"}
        monkeypatch.setenv("TZ", "Europe/Paris")
        time.tzset()
        assert inventory.timezone(time.localtime(1_700_000_000)) == {"name": "Europe/Paris", "offset": "+01"}
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "size"),
    [("16 GB", 16 * 1024**3), ("8192 MB", 8 * 1024**3), ("No Module Installed", -1), ("", -1), ("4 pints", -4)],
)
def test_sizes_of_memory_modules(text: str, size: int) -> None:
    assert (hardware._size(text) == size) or (size < 0 and hardware._size(text) < 0)
