# SPDX-License-Identifier: Apache-2.0
"""What the stories cannot say: real signed inventories, and a watcher."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.testclient import TestClient
from tests.common import genuine
from tests.served import Served

from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.parts import Parts

NODE = "17dadf50-6056-4c8b-a935-6b97d14b89a7"
PREFIX = "/rudder/api/latest"


@dataclass
class Switch:
    """A watcher that only tells what it was told."""

    told: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def admin(served: Served) -> httpx.Client:
    served.client.headers["X-API-Token"] = served.tokens["admin"]
    return served.client


@pytest.fixture
def switch(served: Served) -> Iterator[tuple[httpx.Client, Switch]]:
    switch = Switch()
    app = mount({"/rudder/api": RudderDialect(parts=Parts(watcher=switch))}, served.database, threads=2)
    headers = {"X-API-Token": served.tokens["admin"]}
    with TestClient(app, base_url="https://server.example.com", headers=headers) as client:
        yield client, switch


@pytest.mark.parametrize("compressed", [False, True])
def test_an_uploaded_inventory_makes_a_pending_node(compressed: bool, admin: httpx.Client) -> None:
    content = genuine.inventory(NODE, "node1.example.com")
    sent = gzip.compress(content) if compressed else content
    files = {"file": ("node1.ocs", sent), "signature": ("node1.ocs.sign", genuine.sign_file(content))}

    answer = admin.post(f"{PREFIX}/inventories/upload", files=files)

    assert answer.json() == {
        "action": "uploadInventory",
        "result": "success",
        "data": "Inventory 'node1.ocs' added to processing queue.",
    }
    [node] = admin.get(f"{PREFIX}/nodes/pending?include=full").json()["data"]["nodes"]
    assert node["hostname"] == "node1.example.com"
    assert node["ram"] == 2048
    assert node["os"]["kernelVersion"] == "6.1.0-18-amd64"
    assert node["machine"]["type"] == "Virtual"
    assert node["fileSystems"][0] == {"name": "swap", "totalSpace": 512}
    assert node["fileSystems"][1]["totalSpace"] == 4096
    assert node["software"][0]["name"] == "bash"
    assert node["processes"][0]["pid"] == 77
    assert [one["ipAddresses"] for one in node["networkInterfaces"]] == [["192.168.110.21"]]


def test_one_interface_of_a_node_can_be_asked_for(admin: httpx.Client) -> None:
    content = genuine.inventory(NODE, "node1.example.com")
    files = {"file": ("node1.ocs", content), "signature": ("node1.ocs.sign", genuine.sign_file(content))}
    admin.post(f"{PREFIX}/inventories/upload", files=files)

    [node] = admin.get(f"{PREFIX}/nodes/{NODE}?include=minimal,networkInterfaces").json()["data"]["nodes"]

    assert list(node) == ["id", "hostname", "status", "networkInterfaces"]
    [interface] = node["networkInterfaces"]
    assert interface["name"] == "eth0"
    assert interface["macAddress"] == "52:54:00:49:45:ac"
    assert "quantity" not in interface


def test_processes_are_searched_and_shown(admin: httpx.Client) -> None:
    content = genuine.inventory(NODE, "node1.example.com")
    files = {"file": ("node1.ocs", content), "signature": ("node1.ocs.sign", genuine.sign_file(content))}
    admin.post(f"{PREFIX}/inventories/upload", files=files)
    admin.post(f"{PREFIX}/nodes/pending/{NODE}", data={"status": "accepted"})
    where = '[{"objectType":"process","attribute":"commandName","comparator":"regex","value":".*(java|jre|jdk).*"}]'

    answer = admin.get(f"{PREFIX}/nodes", params={"include": "minimal,processes", "where": where})

    assert answer.json()["data"]["nodes"] == [
        {
            "id": NODE,
            "hostname": "node1.example.com",
            "status": "accepted",
            "processes": [{"pid": 77, "name": "java -jar app.jar", "user": "tomcat"}],
        }
    ]


def test_a_wrong_signature_is_refused_and_nothing_is_kept(admin: httpx.Client) -> None:
    content = genuine.inventory(NODE, "node1.example.com")
    files = {"file": ("node1.ocs", content), "signature": ("node1.ocs.sign", genuine.sign_file(b"other"))}

    answer = admin.post(f"{PREFIX}/inventories/upload", files=files)

    assert answer.status_code == 500
    assert "signature is not valid" in answer.json()["errorDetails"]
    assert admin.get(f"{PREFIX}/nodes/pending").json()["data"]["nodes"] == []


def test_a_small_file_that_unpacks_to_much_is_refused(admin: httpx.Client) -> None:
    bomb = gzip.compress(b"\0" * (300 * 1024 * 1024), compresslevel=9)
    assert len(bomb) < 1024 * 1024
    files = {"file": ("node1.ocs.gz", bomb), "signature": ("node1.ocs.sign", b"")}

    answer = admin.post(f"{PREFIX}/inventories/upload", files=files)

    assert answer.status_code == 413
    assert "holds more than" in answer.json()["errorDetails"]


@pytest.mark.parametrize(
    ("word", "told", "text", "action"),
    [
        ("start", ["start"], "Incoming inventory watcher started", "fileWatcherStart"),
        ("stop", ["stop"], "Incoming inventory watcher stopped", "fileWatcherStop"),
        ("restart", ["stop", "start"], "Incoming inventory watcher restarted", "frileWatcherRestart"),
    ],
)
def test_the_watcher_is_started_and_stopped(
    word: str, told: list[str], text: str, action: str, switch: tuple[httpx.Client, Switch]
) -> None:
    client, watcher = switch

    answer = client.post(f"{PREFIX}/inventories/watcher/{word}")

    assert answer.json() == {"action": action, "result": "success", "data": text}
    assert watcher.told == told
