# SPDX-License-Identifier: Apache-2.0
"""Files of genuine agents at a relay as it is wired: who may put them, what is told of them, and full disks."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from starlette.testclient import TestClient
from tests.agents import Agent
from tests.daemon.servers import eventually, here
from tests.relaying.disks import fill, tiny_disk
from tests.relaying.upstreams import Asked, Said, Upstream, conditional, upstream

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import ROOT
from quarterdeck.daemon import config, relay_process
from quarterdeck.daemon.relay_process import Relay
from quarterdeck.formats import relay_documents, report_files
from quarterdeck.formats.agent_client import Identity
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.relaying import spool as spooling
from quarterdeck.relaying.drop_directory import REPORTS
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.uploads import Uploads

RELAY = Agent(hostname="relay.example.com", key_number=3)
INNER = Agent(hostname="inner.example.com", key_number=2)
NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
STRANGER = "37817c4d-fbf7-4850-a985-50021f4e8f41"
LOGIN, DEFAULT = ("rudder", "secret"), ("rudder", "rudder")


def name(number: int = 0, node: str = NODE, ending: str = ".log.gz") -> str:
    return f"2026-01-31T12:00:{number:02d}+00:00@{node}{ending}"


@dataclass
class Above:
    """The server above: the nodes that it lists, and the files that it got."""

    listed: set[str] = field(default_factory=lambda: {NODE})
    files: dict[str, bytes] = field(default_factory=dict)
    away: bool = False

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        if asked.target == relay_documents.PATH_NODES:
            entries = {one: NodeEntry("near", RELAY.node) for one in self.listed}
            entries[INNER.node] = NodeEntry("inner", RELAY.node, (INNER.certificate,), relay=True)
            document = NodesDocument(ServerEntry(ROOT, (RELAY.certificate,)), entries)
            return conditional(asked, relay_documents.encode(document))
        if asked.method == "PUT":
            self.files[asked.target] = asked.body
            return Said(201)
        return Said(404)


@dataclass
class Put:
    """A relay, and requests to it from where nodes may come from."""

    relay: Relay
    client: TestClient
    above: Above
    data: Path

    def put(self, path: str, content: bytes = b"content", login: tuple[str, str] = LOGIN) -> int:
        return int(self.client.put(path, content=content, auth=login).status_code)

    def metrics(self) -> list[str]:
        with TestClient(self.relay.application, client=("127.0.0.1", 4711)) as here:
            return str(here.get("/metrics").text).splitlines()


@pytest.fixture
def server() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def networks() -> list[str]:
    return ["192.0.2.0/24"]


@pytest.fixture
def below(server: Upstream, disk: Path, networks: list[str]) -> Iterator[Put]:
    above = Above()
    server.answer = above.answer
    pem = RELAY.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    known = Identity(RELAY.node, pem, RELAY.certificate, server.url, "", "")
    told = {"relay.report_password": "secret", "relay.allowed_networks": networks}
    relay = relay_process.assemble(config.load({"data_dir": str(disk), **told}, {}), known)
    with TestClient(relay.application, client=("192.0.2.7", 4711), raise_server_exceptions=False) as client:
        yield Put(relay, client, above, disk)
    for link in relay.links:
        link.close()


def test_what_is_put_goes_up_as_it_came(below: Put) -> None:
    body = gzip.compress(b"signed")
    put = [
        below.put(f"/reports/{name()}", body),
        below.put(f"/reports/{name()}", body),
        below.put(f"/inventories/{NODE}.ocs", b"inventory", DEFAULT),
        below.put(f"/inventories/{NODE}.ocs.sign", b"signature", DEFAULT),
    ]
    below.relay.mirror.refresh_nodes()

    with below.relay.working():
        assert eventually(lambda: len(below.above.files) == 3, 20)

    assert put == [201, 204, 201, 201]
    assert below.above.files == {
        f"/reports/{name()}": body,
        f"/inventories/{NODE}.ocs": b"inventory",
        f"/inventories/{NODE}.ocs.sign": b"signature",
    }


def test_the_door_is_the_servers(below: Put) -> None:
    stranger = TestClient(below.relay.application, client=("198.51.100.7", 4711))

    assert below.put(f"/reports/{name()}", login=DEFAULT) == 401
    assert below.put(f"/inventory-updates/{NODE}.ocs", login=DEFAULT) == 401
    assert below.put(f"/inventories/{NODE}.ocs") == 401
    assert stranger.put(f"/reports/{name()}", content=b"x", auth=LOGIN).status_code == 403
    assert below.put("/reports/no-name.log") == 400
    assert below.client.get(f"/reports/{name()}", auth=LOGIN).status_code == 405
    assert list((below.data / "reports").glob("*/*")) == []


def test_a_node_that_was_just_accepted_is_known_when_its_file_comes(below: Put) -> None:
    below.relay.mirror.refresh_nodes()
    below.above.listed.add(STRANGER)
    below.put(f"/reports/{name(node=STRANGER)}", gzip.compress(b"x"))

    assert below.relay.carriers["run-logs"].look() == 1
    assert below.relay.mirror.nodes.current().topology.nodes.keys() == {NODE, STRANGER, INNER.node}


@pytest.mark.parametrize("networks", [[]])
def test_a_relay_below_comes_from_anywhere_when_it_signs_and_names_the_password(below: Put) -> None:
    below.relay.mirror.refresh_nodes()
    path = f"/reports/{name()}"

    def status(headers: dict[str, str], **login: tuple[str, str]) -> int:
        return int(below.client.put(path, content=b"x", headers=headers, **login).status_code)

    assert status({}, auth=LOGIN) == 403
    assert status(INNER.headers("PUT", path, b"altered"), auth=LOGIN) == 401
    assert status(INNER.headers("PUT", path, b"x"), auth=LOGIN) == 201


def test_metrics_tell_what_waits_since_when_and_what_became_of_it(below: Put) -> None:
    below.relay.mirror.refresh_nodes()
    below.above.away = True
    for number in range(2):
        below.put(f"/reports/{name(number)}", gzip.compress(b"x"))
    below.put(f"/inventories/{NODE}.ocs", b"inventory", DEFAULT)
    with pytest.raises(Unavailable):
        below.relay.carriers["run-logs"].look()
    waiting = below.metrics()
    below.above.away = False
    time.sleep(0.6)  # each waits a moment of its own
    below.put(f"/reports/{name(node=STRANGER)}", gzip.compress(b"x"))
    below.relay.carriers["run-logs"].look()
    done = below.metrics()

    assert 'quarterdeck_queue_files{queue="run-logs"} 2.0' in waiting
    assert 'quarterdeck_queue_files{queue="inventories"} 1.0' in waiting
    assert 'quarterdeck_queue_files{queue="inventory-updates"} 0.0' in waiting
    assert any(line.startswith('quarterdeck_queue_oldest_seconds{queue="run-logs"} ') for line in waiting)
    assert 'rudder_relayd_reports_total{status="forward_ok"} 0.0' in waiting
    assert 'quarterdeck_queue_files{queue="run-logs"} 0.0' in done
    assert 'rudder_relayd_reports_total{status="forward_ok"} 2.0' in done
    assert 'rudder_relayd_reports_total{status="invalid"} 1.0' in done
    assert 'rudder_relayd_inventories_total{status="forward_error"} 0.0' in done


# -- full disks ---------------------------------------------------------------------------------


class TestFullDisk:
    """A relay whose disk takes nothing more."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        with tiny_disk(tmp_path / "disk", 512) as made:
            yield made

    def test_a_put_is_refused_leaves_nothing_and_harms_nothing(self, below: Put) -> None:
        kept = below.data / "reports" / "incoming" / name()
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(gzip.compress(b"acknowledged"))
        fill(below.data / "ballast")

        statuses = [below.put(f"/reports/{name(number)}", bytes(20_000)) for number in (0, 1)]

        assert statuses == [503, 503]
        assert list(kept.parent.iterdir()) == [kept]
        assert gzip.decompress(kept.read_bytes()) == b"acknowledged"

    def test_what_does_not_fit_any_more_is_there_not_at_all(self, disk: Path, tmp_path: Path) -> None:
        uploads = Uploads(disk / "reports", REPORTS, reserve_bytes=0)
        with (tmp_path / "body").open("w+b") as body:
            body.write(bytes(8192))
            body.seek(0)
            uploads.keep(name(), body)
            fill(disk / "ballast")
            body.write(bytes(200_000))
            for file in (name(), name(1)):
                body.seek(0)
                with pytest.raises(Unavailable):
                    uploads.keep(file, body)

        (left,) = (disk / "reports").iterdir()
        assert (left.name, left.stat().st_size) == (name(), 8192)


# -- what was set aside ---------------------------------------------------------------------------


def test_what_a_relay_set_aside_is_listed_shown_tried_again_and_forgotten_while_it_runs(
    below: Put, tmp_path: Path
) -> None:
    place = ("--data-dir", str(tmp_path))
    below.relay.mirror.refresh_nodes()
    parcels = FailedFiles(tmp_path / "spool" / "failed")
    parcels.put("00001-abc.parcel", b"a parcel", "There is no such node.", "invalid")
    with below.relay.working():
        below.put(f"/reports/{name(node=STRANGER)}", gzip.compress(b"line\x1b[2J\n"))
        failed = FailedFiles(tmp_path / "reports" / "failed")
        assert eventually(lambda: failed.names() != [], 20)
        identity = report_files.queue_id(name(node=STRANGER))

        listed = here("relay", "failed", *place, "list")
        shown = here("relay", "failed", *place, "show", identity)
        below.above.listed.add(STRANGER)
        retried = here("relay", "failed", *place, "retry", identity)
        assert eventually(lambda: list(below.above.files) == [f"/reports/{name(node=STRANGER)}"], 20)
        again = here("relay", *place, "failed", "retry", "--all")

    assert listed.returncode == 0, listed.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()[1:]} >= {identity}
    assert f"There is no node '{STRANGER}' below this relay." in listed.stdout
    assert "line" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert retried.stdout == f"{name(node=STRANGER)} of run-logs is tried again.\n"
    assert again.stdout == "00001-abc.parcel of parcels is tried again.\n"
    assert parcels.names() == []


def test_a_parcel_that_is_tried_again_stands_at_the_end_of_the_spool_and_others_can_be_forgotten(
    tmp_path: Path,
) -> None:
    place = ("--data-dir", str(tmp_path))
    parcels = FailedFiles(tmp_path / "spool" / "failed")
    for number in (1, 2):
        parcels.put(f"{number}.parcel", b"parcel %d" % number, "no")
    spool = Spool(tmp_path / "spool" / "parcels", reserve_bytes=0)
    spool.append(b"first")

    first, second = (
        line.split()[0] for line in sorted(here("relay", "failed", *place, "list").stdout.splitlines()[1:])
    )
    here("relay", "failed", *place, "retry", first)
    forgotten = here("relay", "failed", "remove", *place, second)
    wrong = here("relay", "failed", *place, "retry", second)
    both = here("relay", "failed", *place, "retry", second, "--all")

    kept = [one for path in spooling.pending(spool.directory) for one in spooling.records(path)]
    assert kept[0] == b"first"
    assert len(kept) == 2
    assert "is forgotten" in forgotten.stdout
    assert (wrong.returncode, both.returncode) == (1, 2)
    assert here("relay", "failed", "list", *place).stdout == "Nothing was set aside.\n"
