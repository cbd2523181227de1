# SPDX-License-Identifier: Apache-2.0
"""A tree of real processes: the server, a relay without a database, machines behind it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from tests import agents
from tests.agents import Agent
from tests.daemon.servers import eventually
from tests.dialects.relay.conftest import shared
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Site, keep, statuses
from tests.e2e.relays import Relay, RelayedMachine

from quarterdeck.formats import agent
from quarterdeck.storage import embedded

pytestmark = [pytest.mark.xdist_group("relays"), pytest.mark.timeout(300)]

GROUP = "behind"


@pytest.fixture(scope="module")
def relay(served: Site, token: str) -> Iterator[Relay]:
    made = relays.relay(served, "relay1", token)
    yield made
    made.end()


@pytest.fixture(scope="module")
def machine(served: Site, relay: Relay, token: str) -> RelayedMachine:
    made = RelayedMachine(served, "behind1", relay)
    assert made.enroll_through_relay(token) == {"node": made.node, "status": "accepted"}
    served.ask(
        "PUT",
        "/groups",
        {
            "id": GROUP,
            "displayName": "Behind the relay",
            "category": "GroupRoot",
            "dynamic": True,
            "query": {
                "select": "node",
                "composition": "And",
                "where": [
                    {"objectType": "node", "attribute": "policyServerId", "comparator": "eq", "value": relay.node}
                ],
            },
        },
    )
    served.settle()
    return made


def test_a_node_enrols_gets_its_policy_and_reports_through_its_relay(
    served: Site, relay: Relay, machine: RelayedMachine
) -> None:
    story = Kept(served, "motd")
    target = machine.files / "motd"
    story.set(target, "from the root", "enforce", GROUP)
    served.settle()

    run = machine.run()

    assert relays.policy_server(served, machine.node) == relay.node
    assert run["counts"] == {"result_repaired": 1}
    assert target.read_text() == "from the root\n"
    assert eventually(lambda: story.compliance()["compliance"] == 100.0, PATIENCE_SECONDS), served.trouble()
    assert eventually(lambda: relay.waiting() == [], PATIENCE_SECONDS), relay.log.read_text()


def test_a_relay_loads_nothing_that_needs_a_database(served: Site, token: str) -> None:
    relay = relays.relay(served, "lean", token)

    relay.stop()

    loaded = set(relay.modules.read_text().split())
    assert "quarterdeck.daemon.relay_process" in loaded
    assert not loaded & {"sqlalchemy", "psycopg", "pgqueuer", "asyncssh"}
    assert not [name for name in loaded if name.startswith(("quarterdeck.storage", "quarterdeck.services"))]


def test_while_the_server_is_away_nodes_get_their_policy_and_reports_wait_then_drain(
    served: Site, relay: Relay, machine: RelayedMachine
) -> None:
    story = Kept(served, "away")
    target = machine.files / "away"
    story.set(target, "kept here", "enforce", GROUP)
    served.settle()
    machine.run()
    assert eventually(lambda: story.compliance()["compliance"] == 100.0, PATIENCE_SECONDS), served.trouble()
    served.stop()
    try:
        (machine.state / "policy").unlink()  # so that only the relay can give it
        target.write_text("damaged\n")
        relay.kill()
        relay.start()  # it comes up alone, too

        run = machine.run()

        assert run["counts"]["result_repaired"] == 1
        assert target.read_text() == "kept here\n"
        assert machine.queued() == []
        assert relay.waiting() != []
    finally:
        served.start()
    assert eventually(lambda: relay.waiting() == [], PATIENCE_SECONDS), relay.log.read_text()
    repaired = lambda: story.compliance()["complianceDetails"].get("successRepaired") == 100.0  # noqa: E731
    assert eventually(repaired, PATIENCE_SECONDS), story.compliance()
    story.remove()


class Load(threading.Thread):
    """Delivers runs of one node to a relay; an entry is when an acknowledged run began."""

    def __init__(self, relay: Relay, reporter: Agent) -> None:
        super().__init__()
        self.relay = relay
        self.reporter = reporter
        self.acknowledged: list[datetime] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        with relays.client(self.relay) as http:
            while not self.stopping.is_set():
                try:
                    self.step(http)
                except httpx.TransportError:
                    time.sleep(0.02)  # the relay is away; the report may be there or not

    def step(self, http: httpx.Client) -> None:
        start = datetime.now(UTC)
        start -= timedelta(microseconds=start.microsecond % 1000)
        one = self.reporter
        parcel = one.parcel("report", one.run([agents.report(message=start.isoformat())], start=start))
        answer = http.post(agent.PATH_REPORTS, content=parcel, headers=one.headers("POST", agent.PATH_REPORTS, parcel))
        if answer.status_code == 202:
            self.acknowledged.append(start)

    def reaches(self, number: int) -> None:
        assert eventually(lambda: len(self.acknowledged) >= number, PATIENCE_SECONDS), self.relay.log.read_text()


def kept_runs(served: Site, node: str) -> list[datetime]:
    """When the node's stored runs began."""
    with embedded.running(served.data) as url, psycopg.connect(url) as connection:
        query = "SELECT start FROM runs JOIN node_status s ON s.number = runs.node WHERE s.node_id = %s"
        return [row[0] for row in connection.execute(query, [node])]


def test_kills_of_the_relay_and_of_the_server_under_load_lose_no_acknowledged_report_and_double_none(
    served: Site, relay: Relay, token: str
) -> None:
    reporters = [relays.enrolled(served, relay, f"load{number}.example.com", token, number) for number in (1, 2)]
    loads = [Load(relay, one) for one in reporters]
    for load in loads:
        load.start()
    try:
        for kill in (relay.kill, served.server.process.kill, relay.kill):
            wanted = [len(load.acknowledged) + 15 for load in loads]
            for load, number in zip(loads, wanted, strict=True):
                load.reaches(number)
            kill()
            if kill == relay.kill:
                relay.start()
            else:
                served.server.process.wait()
                served.start()
        for load in loads:
            load.reaches(len(load.acknowledged) + 15)
    finally:
        for load in loads:
            load.stopping.set()
            load.join()

    for load in loads:

        def missing(load: Load = load) -> set[datetime]:
            return set(load.acknowledged) - set(kept_runs(served, load.reporter.node))

        assert eventually(lambda: not missing(), PATIENCE_SECONDS), (missing(), relay.log.read_text()[-3000:])
        kept = kept_runs(served, load.reporter.node)
        assert len(kept) == len(set(kept))
    assert list((relay.data / "spool" / "failed").glob("*.parcel")) == []


def test_files_for_nodes_behind_relays_get_there_at_any_depth_and_from_there_to_others(
    served: Site, relay: Relay, token: str
) -> None:
    inner = relays.relay(served, "inner", token, above=relay)
    try:
        near = relays.enrolled(served, relay, "near.example.com", token, 3)
        deep = relays.enrolled(served, inner, "deep.example.com", token, 4)
        assert (relays.policy_server(served, near.node), relays.policy_server(served, deep.node)) == (
            relay.node,
            inner.node,
        )
        content = b"from one node to another\n\n\xff"

        sent = [put(place, near, deep, name, content) for place, name in ((relay, "down"), (served, "root"))]
        back = put(inner, deep, near, "up", content)

        assert (sent, back) == ([200, 200], 200)
        assert [kept(inner.data, deep, near, name) for name in ("down", "root")] == [content, content]
        assert kept(relay.data, near, deep, "up") == content
        assert has(relay, near, deep, "down", content) == 200
    finally:
        inner.end()


def put(place: Relay | Site, source: Agent, target: Agent, name: str, content: bytes) -> int:
    """Share a file at some server, until it knows both nodes; the status."""
    path = f"/rudder/relay-api/1/shared-files/{target.node}/{source.node}/{name}?ttl=1d"
    body = shared(source, content)
    status = 0

    def is_sent() -> bool:
        nonlocal status
        with (
            relays.client(place)
            if isinstance(place, Relay)
            else httpx.Client(base_url=place.url, verify=False, timeout=60, trust_env=False) as http
        ):
            status = http.put(path, content=body).status_code
        return status == 200

    eventually(is_sent, 30.0)
    return status


def has(place: Relay, source: Agent, target: Agent, name: str, content: bytes) -> int:
    """The status that says whether a file is there already."""
    digest = hashlib.sha512(content).hexdigest()
    with relays.client(place) as http:
        path = f"/rudder/relay-api/1/shared-files/{target.node}/{source.node}/{name}?hash={digest}"
        return http.head(path).status_code


def kept(data: Path, target: Agent, source: Agent, name: str) -> bytes:
    return (data / "shared-files" / target.node / "files" / source.node / name).read_bytes()


def test_two_relays_pass_policies_down_and_reports_up_and_the_shared_folder_too(
    served: Site, relay: Relay, token: str
) -> None:
    inner = relays.relay(served, "second", token, above=relay)
    try:
        machine = RelayedMachine(served, "deep1", inner)
        machine.enroll_through_relay(token)
        story = Kept(served, "deep")
        story.set(machine.files / "deep", "two levels down", "enforce", f"hasPolicyServer-{inner.node}")
        folder = served.data / "shared-folder" / "tools"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hello.sh").write_bytes(b"echo hello\n")
        own = served.data / "share" / machine.node / "rules"
        own.mkdir(parents=True)
        (own / "file").write_bytes(b"for this one\n")
        served.settle()

        run = machine.run()

        assert relays.policy_server(served, machine.node) == inner.node
        assert run["counts"] == {"result_repaired": 1}
        assert eventually(lambda: story.compliance()["compliance"] == 100.0, PATIENCE_SECONDS), served.trouble()
        mirrored = inner.data / "mirror" / "folder"
        assert eventually(lambda: list(mirrored.glob("trees/*/tools/hello.sh")) != [], PATIENCE_SECONDS)
        assert next(mirrored.glob("trees/*/tools/hello.sh")).read_bytes() == b"echo hello\n"
        share, below_it = inner.data / "mirror" / "share", f"trees/*/{machine.node}/rules/file"
        assert eventually(lambda: list(share.glob(below_it)) != [], PATIENCE_SECONDS), inner.log.read_text()
        assert next(share.glob(below_it)).read_bytes() == b"for this one\n"
        refused = served.client.post(f"/rudder/api/latest/scaleoutrelay/demote/{inner.node}")
        assert "serves 1 node:" in refused.json()["errorDetails"]
        told = {one["id"]: one for one in served.native("GET", "/relays")}
        assert (told[inner.node]["policyServerId"], told[inner.node]["address"]) == (relay.node, inner.url)
        assert told[inner.node]["nodes"] == told[inner.node]["nodesBelow"] == 1
        assert told[inner.node]["waitingFiles"] is not None
    finally:
        inner.end()


def test_a_node_shares_a_file_with_another_and_takes_one_of_the_shared_folder_through_its_relay(
    served: Site, relay: Relay, machine: RelayedMachine, token: str
) -> None:
    other = RelayedMachine(served, "behind2", relay)
    other.enroll_through_relay(token)
    given, taken, folder = machine.files / "given", other.files / "taken", other.files / "from-folder"
    copy, app = other.files / "copy", served.data / "shared-folder" / "app"
    given.write_text("from behind1 to behind2\n")
    (app / "sub").mkdir(parents=True)
    (app / "sub" / "with blank é").write_bytes(b"deep\n")
    (served.data / "shared-folder" / "banner").write_bytes(b"for everybody\n")
    keep(served, "give", machine.node, "sharedfile_to_node", remote_node=other.node, file_path=str(given), ttl="1d")
    keep(served, "take", other.node, "sharedfile_from_node", remote_node=machine.node, file_path=str(taken))
    keep(served, "look", other.node, "file_from_shared_folder", source="banner", path=str(folder))
    source = "/var/rudder/configuration-repository/shared-files/app"
    deep = "file_from_remote_source_recursion"
    keep(served, "copy", other.node, deep, source=source, path=str(copy), recursion="inf")
    served.settle()
    mirrored = relay.data / "mirror" / "folder"
    assert eventually(lambda: list(mirrored.glob("trees/*/banner")) != [], PATIENCE_SECONDS), relay.log.read_text()

    gave, took = machine.run(), other.run()

    assert statuses(gave)["give"] == "result_repaired", gave
    assert [statuses(took)[one] for one in ("take", "look", "copy")] == ["result_repaired"] * 3, took
    assert taken.read_text() == given.read_text()
    assert folder.read_bytes() == b"for everybody\n"
    assert (copy / "sub" / "with blank é").read_bytes() == b"deep\n"
    again = statuses(other.run())
    assert [again[one] for one in ("take", "look", "copy")] == ["result_success"] * 3
