# SPDX-License-Identifier: Apache-2.0
"""Putting reports and inventories as genuine agents and relays do, over HTTP, into directories."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import ROOT
from quarterdeck.daemon import genuine_files
from quarterdeck.dialects.relay import callers, intake
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.dialects.relay.intake import Inlet, IntakeEdge, IntakeGrammar
from quarterdeck.formats import report_files
from quarterdeck.relaying.drop_directory import INVENTORIES, REPORTS
from quarterdeck.relaying.nodes_list import ListFiles, NodesList
from quarterdeck.relaying.uploads import Uploads

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
REPORT = f"/reports/2026-01-31T12:00:00+00:00@{NODE}.log.gz"
INSIDE, OUTSIDE = "192.0.2.7", "198.51.100.7"


@dataclass
class Intake:
    """The paths of one relay, and requests to them from wherever one likes."""

    directory: Path
    client: TestClient
    stranger: TestClient

    def put(self, path: str, content: bytes = b"content", *, user: str = "relay", password: str = "secret") -> int:
        return self.ask("PUT", path, content=content, auth=(user, password)).status_code

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        answer: httpx.Response = self.client.request(method, path, **arguments)
        return answer

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in self.directory.glob("*/*")}


@pytest.fixture(params=["secret"])
def relay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Intake]:
    files = ListFiles(me=ROOT, nodes=tmp_path / "nodeslist.json", certificates=tmp_path / "certificates.pem")
    nodes = NodesList(files.load)
    directory, password = tmp_path / "files", request.param

    def inlet(name: str, rules: Any, user: str, password: str) -> Inlet:
        uploads = Uploads(directory / name, rules, reserve_bytes=0)
        return Inlet(uploads=uploads, user=user, password=password)

    edge = IntakeEdge(
        grammar=IntakeGrammar(),
        door=Door(nodes=nodes, networks=callers.networks(["192.0.2.0/24"])),
        inlets={
            intake.REPORTS: inlet("reports", REPORTS, "relay", password),
            intake.INVENTORIES: inlet("new", INVENTORIES, "rudder", "rudder"),
            intake.INVENTORY_UPDATES: inlet("updates", INVENTORIES, "relay", password),
        },
        prefix="",
        threads=anyio.CapacityLimiter(4),
        body_directory=tmp_path,
    )
    app = Starlette(routes=genuine_files.routes(edge))
    with TestClient(app, client=(INSIDE, 4711)) as client, TestClient(app, client=(OUTSIDE, 4711)) as stranger:
        yield Intake(directory, client, stranger)


def test_a_new_file_is_created_and_an_old_one_replaced(relay: Intake) -> None:
    assert relay.put(REPORT, b"first") == 201
    assert relay.put(REPORT, b"second") == 204
    assert relay.files() == {REPORT.removeprefix("/"): b"second"}


@pytest.mark.parametrize("path", ["//reports/", "/reports//"])
def test_relays_that_write_two_slashes_are_understood(relay: Intake, path: str) -> None:
    url = f"http://testserver{path}{Path(REPORT).name}"

    status = relay.ask("PUT", url, content=b"x", auth=("relay", "secret")).status_code

    assert status == (201 if path.startswith("//") else 404)


def test_names_may_be_encoded(relay: Intake) -> None:
    assert relay.put(REPORT.replace(":", "%3A").replace("+", "%2B").replace("@", "%40")) == 201
    assert list(relay.files()) == [REPORT.removeprefix("/")]


def test_every_kind_has_its_directory_and_password(relay: Intake) -> None:
    inventory = f"{NODE}_2026-01-31T12:00:00.ocs.gz"

    assert relay.put(f"/inventories/{inventory}", user="rudder", password="rudder") == 201
    assert relay.put(f"/inventories/{inventory}.sign", user="rudder", password="rudder") == 201
    assert relay.put(f"/inventory-updates/{inventory}") == 201
    assert relay.put(f"/inventory-updates/{inventory}", user="rudder", password="rudder") == 401
    assert relay.put(f"/inventories/{inventory}") == 401
    assert set(relay.files()) == {f"new/{inventory}", f"new/{inventory}.sign", f"updates/{inventory}"}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !",
        "Bearer secret",
        f"Basic {base64.b64encode(b'relay:').decode()}",
        f"Basic {base64.b64encode(b'relay:secret2').decode()}",
        f"Basic {base64.b64encode(b'other:secret').decode()}",
    ],
)
def test_without_the_password_nothing_is_taken(relay: Intake, authorization: str) -> None:
    answer = relay.ask("PUT", REPORT, content=b"x", headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert relay.files() == {}


@pytest.mark.parametrize("relay", [""], indirect=True)
def test_where_no_password_is_set_nobody_is_let_in(relay: Intake) -> None:
    assert relay.put(REPORT, password="") == 401
    assert relay.put(f"/inventories/{NODE}.ocs", user="rudder", password="rudder") == 201


def test_strangers_from_other_networks_are_refused(relay: Intake) -> None:
    assert relay.stranger.put(REPORT, content=b"x", auth=("relay", "secret")).status_code == 403
    assert relay.files() == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PROPFIND", "MKCOL", "MOVE", "OPTIONS"])
def test_no_other_method_does_anything(relay: Intake, method: str) -> None:
    relay.put(REPORT)

    answer = relay.ask(method, REPORT, auth=("relay", "secret"))

    assert (answer.status_code, answer.headers["Allow"]) == (405, "PUT")
    assert len(relay.files()) == 1


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 404),
        ("a/b.log", 404),
        ("..%2Fescaped.log", 400),
        ("%2e%2e", 400),
        (".hidden.log", 400),
        ("bad-name.log", 400),
        (f"2026-01-31T12:00:00+00:00@{NODE}.txt", 400),
        (f"2026-01-31T12:00:00+00:00@{NODE}.log%00.gz", 400),
        (f"2026-01-31T12:00:00+00:00@{NODE}.log%FF.gz", 201),
    ],
)
def test_names_that_nobody_would_take_are_refused(relay: Intake, name: str, status: int) -> None:
    assert relay.put(f"/reports/{name}") == status
    assert len(relay.files()) == (status == 201)


def test_what_is_too_long_is_refused(relay: Intake) -> None:
    content = b"\0" * (report_files.MAX_INVENTORY_BYTES + 1)

    assert relay.put(f"/inventories/{NODE}.ocs", content, user="rudder", password="rudder") == 413
    assert relay.files() == {}


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "reports", REPORTS, reserve_bytes=2**62)

    with (tmp_path / "body").open("w+b") as body, pytest.raises(Unavailable):
        uploads.keep(Path(REPORT).name, body)

    assert list((tmp_path / "reports").iterdir()) == []
