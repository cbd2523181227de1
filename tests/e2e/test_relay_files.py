# SPDX-License-Identifier: Apache-2.0
"""Files of genuine agents through a tree of real processes: what is put to a relay is in the server's database."""

from __future__ import annotations

import gzip
import random
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from tests.common import genuine, run_logs
from tests.daemon.servers import eventually, here
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Site, site
from tests.e2e.relays import Relay
from tests.postgres import temporary_directory

from quarterdeck.formats import report_files
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.storage import embedded

pytestmark = [pytest.mark.xdist_group("relays"), pytest.mark.timeout(300)]

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
STRANGER = "37817c4d-fbf7-4850-a985-50021f4e8f41"
LOGIN, DEFAULT = ("rudder", "secret"), ("rudder", "rudder")
_PASSWORD = "QUARTERDECK_RELAY_REPORT_PASSWORD=secret"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with temporary_directory() as directory:
        (directory / "data").mkdir(mode=0o700)
        (directory / "data" / "quarterdeck.toml").write_text('relay.report_password = "secret"\n')
        with site(directory) as made:
            yield made


@pytest.fixture(scope="module")
def relay(served: Site) -> Iterator[Relay]:
    made = Relay(served, "relay1")
    done = made.enroll(relays.enrolment_token(served))
    assert done.returncode == 0, done
    served.ask("POST", f"/scaleoutrelay/promote/{made.node}")
    made.start("env", _PASSWORD)
    yield made
    made.end()


@pytest.fixture(scope="module")
def node(served: Site, relay: Relay) -> str:
    """A machine with a genuine agent: its inventory went up through the relay, and it was accepted."""
    put_inventory(relay, NODE)
    assert eventually(lambda: is_pending(served, NODE), PATIENCE_SECONDS), (relay.log.read_text()[-3000:], served)
    served.ask("POST", f"/nodes/pending/{NODE}", {"status": "accepted"})
    served.settle()
    return NODE


def put_inventory(relay: Relay, node: str) -> None:
    """As a genuine agent does that is new: the inventory, then its signature."""
    xml = genuine.inventory(node, f"host-{node[:8]}.example.com").decode()
    xml = re.sub(r"(<AGENT_CERT>).*?(</AGENT_CERT>)", rf"\g<1>{run_logs.certificate(node)}\g<2>", xml, flags=re.DOTALL)
    xml = re.sub(r"(<POLICY_SERVER_UUID>).*?(</)", rf"\g<1>{relay.node}\g<2>", xml)
    signed = run_logs.key().sign(xml.encode(), padding.PKCS1v15(), hashes.SHA512())
    sign_file = f"header=rudder-signature-v1\nalgorithm=sha512\ndigest={signed.hex()}\n".encode()
    name = f"{node}_2026-01-31T12:00:00.ocs"
    with relays.client(relay) as http:
        answers = [
            http.put(f"/inventories/{name}.gz", content=gzip.compress(xml.encode()), auth=DEFAULT),
            http.put(f"/inventories/{name}.sign", content=sign_file, auth=DEFAULT),
        ]
    assert [one.status_code for one in answers] == [201, 201]


def is_pending(served: Site, node: str) -> bool:
    return any(one["id"] == node for one in served.ask("GET", "/nodes/pending")["nodes"])


def log(number: int, node: str = NODE) -> tuple[str, bytes]:
    """Name and content of the file of a run."""
    start = NOW - timedelta(seconds=10 * number)
    text = run_logs.run(run_logs.report(node=node, start=start), node=node, start=start)
    return run_logs.file_name(node, start, ".log.gz"), gzip.compress(run_logs.signed(text, node), mtime=0)


def kept_runs(served: Site) -> list[datetime]:
    """When the node's stored runs began."""
    with embedded.running(served.data) as url, psycopg.connect(url) as connection:
        query = "SELECT start FROM runs JOIN node_status s ON s.number = runs.node WHERE s.node_id = %s"
        return [row[0] for row in connection.execute(query, [NODE])]


def waiting(relay: Relay) -> list[str]:
    directories = ("reports/incoming", "inventories/incoming", "inventories/accepted-nodes-updates")
    # What is hidden was not acknowledged when the relay was killed.
    return [path.name for one in directories for path in (relay.data / one).glob("[!.]*")]


def test_a_genuine_inventory_and_a_signed_run_log_go_through_a_relay_into_the_database(
    served: Site, relay: Relay, node: str
) -> None:
    name, content = log(0)
    with relays.client(relay) as http:
        answer = http.put(f"/reports/{name}", content=content, auth=LOGIN)

    assert answer.status_code == 201
    assert eventually(lambda: NOW in kept_runs(served), PATIENCE_SECONDS), relay.log.read_text()[-3000:]
    assert relays.policy_server(served, node) == relay.node
    assert eventually(lambda: waiting(relay) == [], PATIENCE_SECONDS)


class Load(threading.Thread):
    """Puts files to a relay, each again until it was acknowledged."""

    def __init__(self, relay: Relay, files: list[tuple[str, bytes]]) -> None:
        super().__init__()
        self.relay = relay
        self.files = files
        self.acknowledged = 0

    def run(self) -> None:
        with relays.client(self.relay) as http:
            while self.acknowledged < len(self.files):
                name, content = self.files[self.acknowledged]
                try:
                    answer = http.put(f"/reports/{name}", content=content, auth=LOGIN)
                except httpx.TransportError:
                    time.sleep(0.02)  # the relay is away; the file may be there or not
                else:
                    self.acknowledged += answer.status_code in (201, 204)


def test_statement_58_kills_of_the_relay_under_load_lose_no_file_and_double_no_row(
    served: Site, relay: Relay, node: str
) -> None:
    numbers = range(1, 121)
    load = Load(relay, [log(number) for number in numbers])
    chance = random.Random(58)

    load.start()
    for wanted in (20, 55, 90):
        assert eventually(lambda wanted=wanted: load.acknowledged >= wanted, PATIENCE_SECONDS)  # type: ignore[misc]  # one per turn
        time.sleep(chance.uniform(0.0, 0.1))
        relay.kill()
        relay.start("env", _PASSWORD)
    load.join()

    sent = {NOW - timedelta(seconds=10 * number) for number in numbers}
    assert eventually(lambda: sent <= set(kept_runs(served)), PATIENCE_SECONDS), relay.log.read_text()[-3000:]
    runs = kept_runs(served)
    assert len(runs) == len(set(runs))
    assert eventually(lambda: waiting(relay) == [], PATIENCE_SECONDS)
    assert FailedFiles(relay.data / "reports" / "failed").names() == []


def test_statement_59_bombs_make_no_relay_grow(relay: Relay, node: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    with gzip.open(bomb, "wb") as stream:
        for _ in range(64):
            stream.write(b"\0" * (16 * 2**20))
    failed = FailedFiles(relay.data / "reports" / "failed")
    names = [run_logs.file_name(NODE, NOW + timedelta(seconds=number), ".log.gz") for number in range(1, 9)]
    before = resident(relay, "VmHWM")

    with relays.client(relay) as http:
        answers = [http.put(f"/reports/{name}", content=bomb.read_bytes(), auth=LOGIN) for name in names]

    assert {one.status_code for one in answers} == {201}
    assert eventually(lambda: failed.names() == sorted(names), PATIENCE_SECONDS), relay.log.read_text()[-3000:]
    assert {failed.reason(name).reason for name in names} == {
        f"The report is larger than {report_files.MAX_BYTES} bytes."
    }
    assert resident(relay, "VmHWM") - before < 96 * 2**20
    for name in names:
        failed.remove(name)


def resident(relay: Relay, field: str) -> int:
    """Bytes of memory of the relay's process."""
    assert relay.process is not None
    (line,) = (
        one for one in Path(f"/proc/{relay.process.pid}/status").read_text().splitlines() if one.startswith(f"{field}:")
    )
    return int(line.split()[1]) * 1024


def test_what_a_relay_set_aside_is_tried_again_from_the_command_line_while_it_runs(
    served: Site, relay: Relay, node: str
) -> None:
    name, _ = log(0, STRANGER)
    content = log(500)[1]
    place = ("--data-dir", str(relay.data))
    with relays.client(relay) as http:
        assert http.put(f"/reports/{name}", content=content, auth=LOGIN).status_code == 201
    failed = FailedFiles(relay.data / "reports" / "failed")
    assert eventually(lambda: failed.names() == [name], PATIENCE_SECONDS), relay.log.read_text()[-3000:]
    identity = report_files.queue_id(name)

    listed = here("relay", "failed", *place, "list")
    retried = here("relay", "failed", *place, "retry", identity)

    assert f"There is no node '{STRANGER}' below this relay." in listed.stdout
    assert retried.returncode == 0, retried.stderr
    # It is still of nobody known, so it comes back: the running relay has looked at it again.
    assert eventually(lambda: relay.log.read_text().count(f"[{identity}]") >= 2, PATIENCE_SECONDS)


def test_files_cross_several_relays(served: Site, relay: Relay) -> None:
    inner = Relay(served, "inner", above=relay)
    assert inner.enroll(relays.enrolment_token(served)).returncode == 0
    served.ask("POST", f"/scaleoutrelay/promote/{inner.node}")
    try:
        inner.start("env", _PASSWORD)
        put_inventory(inner, STRANGER)

        assert eventually(lambda: is_pending(served, STRANGER), PATIENCE_SECONDS), inner.log.read_text()[-3000:]
        assert eventually(lambda: waiting(inner) == [], PATIENCE_SECONDS)
    finally:
        inner.end()


def test_another_server_gets_files_only_if_it_has_the_key_that_is_pinned(served: Site, relay: Relay, node: str) -> None:
    other = f"QUARTERDECK_RELAY_UPSTREAM_URL={served.url}"
    pins = [f"QUARTERDECK_RELAY_UPSTREAM_PIN={pin}" for pin in (f"sha256//{'A' * 43}=", served.pin())]
    name, content = log(600)
    start = NOW - timedelta(seconds=6000)
    relay.kill()
    relay.start("env", _PASSWORD, other, pins[0])
    with relays.client(relay) as http:
        assert http.put(f"/reports/{name}", content=content, auth=LOGIN).status_code == 201

    identity = f"[{report_files.queue_id(name)}]"
    assert eventually(lambda: f"{identity} The file {name} waits" in relay.log.read_text(), PATIENCE_SECONDS)
    between = waiting(relay), start in kept_runs(served)
    relay.kill()
    relay.start("env", _PASSWORD, other, pins[1])

    assert between == ([name], False)
    assert eventually(lambda: start in kept_runs(served), PATIENCE_SECONDS), relay.log.read_text()[-3000:]
