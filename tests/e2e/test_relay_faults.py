# SPDX-License-Identifier: Apache-2.0
"""A relay of real processes in bad times: what was acknowledged arrives once, and the others go on meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from tests import agents
from tests.agents import Agent
from tests.daemon.servers import Process, eventually, family
from tests.dialects.relay.conftest import shared
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Site, listening, site
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory
from tests.relaying.disks import tiny_disk

from quarterdeck.formats import agent
from quarterdeck.storage import embedded

pytestmark = [pytest.mark.xdist_group("relay faults"), pytest.mark.timeout(300)]

#: Of the disks that spools lie on: what is always left free for others, and a little.
DISK_KILOBYTES = 280 * 1024
BALLAST_BYTES = 40 * 1024 * 1024
API = "/rudder/relay-api/1"
#: What one more process may take for a report, however long it is unpacked.
MOST_MORE_KILOBYTES = 160 * 1024


@dataclass
class Story:
    """A server, a relay below it, and two nodes that tests speak for behind that one."""

    site: Site
    relay: Relay
    nodes: tuple[Agent, Agent]
    token: str
    #: whether both spools lie on small disks
    small_disks: bool
    #: (node, beginning) of every run that was acknowledged
    acknowledged: list[tuple[str, datetime]] = field(default_factory=list)

    def report(self, http: httpx.Client, one: Agent, start: datetime | None = None, message: str = "fine") -> int:
        """Deliver a run that began at some time; the status of the answer."""
        start = start or datetime.now(UTC)
        start -= timedelta(microseconds=start.microsecond % 1000)
        parcel = one.parcel("report", one.run([agents.report(message=message)], start=start))
        status = post(http, one, agent.PATH_REPORTS, parcel).status_code
        if status == 202:
            self.acknowledged.append((one.node, start))
        return status

    def all_is_kept_once(self) -> None:
        """Fails unless every acknowledged run is soon in the database, each once, and nothing was set aside."""

        def missing() -> set[tuple[str, datetime]]:
            return set(self.acknowledged) - set(self.kept())

        assert eventually(lambda: not missing() and not self.relay.waiting(), PATIENCE_SECONDS), (
            len(missing()),
            self.relay.log.read_text()[-3000:],
            self.site.trouble(),
        )
        kept = self.kept()
        assert len(kept) == len(set(kept))
        assert set(kept) == set(self.acknowledged), "what was refused is not there"
        assert self.set_aside() == []

    def kept(self) -> list[tuple[str, datetime]]:
        query = "SELECT node_id, start FROM runs JOIN node_status s ON s.number = runs.node"
        with embedded.running(self.site.data) as url, psycopg.connect(url) as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def set_aside(self) -> list[Path]:
        """What relay and server could never take."""
        return [
            *(self.relay.data / "spool" / "failed").glob("*.parcel"),
            *(self.site.data / "spool" / "reports" / "quarantine").glob("*.record"),
        ]

    def daemons(self) -> list[Process]:
        """The server's processes but the database's."""
        postgres = {one.pid for one in self.database()}
        return [one for one in self.site.server.processes() if one.pid not in postgres]

    def database(self) -> list[Process]:
        postmaster = self.site.server.postgres()
        assert postmaster is not None
        return family(postmaster.pid)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        small = mounted(stack, [directory / "data" / "spool", directory / "relay" / "spool"])
        served = stack.enter_context(site(directory))
        token = relays.enrolment_token(served)
        relay = relays.relay(served, "relay", token)
        stack.callback(relay.end)
        one, other = (relays.enrolled(served, relay, f"node{number}.example.com", token, number) for number in (1, 2))
        served.settle()
        yield Story(served, relay, (one, other), token, small)


def mounted(stack: ExitStack, places: Sequence[Path]) -> bool:
    """Whether these are small disks of their own now."""
    try:
        for place in places:
            stack.enter_context(tiny_disk(place, DISK_KILOBYTES))
    except pytest.skip.Exception:
        return False
    return True


@contextmanager
def stopped(processes: Sequence[Process]) -> Iterator[None]:
    """These hang meanwhile."""
    for one in processes:
        os.kill(one.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGCONT)


def post(http: httpx.Client, one: Agent, path: str, body: bytes) -> httpx.Response:
    return http.post(path, content=body, headers=one.headers("POST", path, body))


def get(http: httpx.Client, one: Agent, path: str) -> httpx.Response:
    return http.get(path, headers=one.headers("GET", path))


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_while_the_server_hangs_a_relay_serves_what_it_has_and_reports_of_a_day_go_up_afterwards(story: Story) -> None:
    one, other = story.nodes
    (story.site.data / "shared-folder").mkdir(exist_ok=True)
    (story.site.data / "shared-folder" / "banner").write_bytes(b"for everybody\n")
    now = datetime.now(UTC)
    with relays.client(story.relay) as http:
        assert eventually(lambda: get(http, one, f"{API}/shared-folder/banner").status_code == 200, PATIENCE_SECONDS)
        policy = get(http, one, agent.PATH_POLICY).content

        with stopped(story.daemons()):
            waits = seconds(lambda: get(http, one, agent.PATH_POLICY))
            kept = get(http, one, agent.PATH_POLICY)
            folder = get(http, one, f"{API}/shared-folder/banner")
            path = f"{API}/shared-files/{other.node}/{one.node}/greeting?ttl=1d"
            body = shared(one, b"hello")
            given = http.put(path, content=body, headers=one.headers("PUT", path, body))
            taken = get(http, other, f"{API}/own-shared-files/{one.node}/greeting")
            statuses = [
                story.report(http, node, now - timedelta(minutes=minutes))
                for minutes in range(26 * 60, 0, -40)
                for node in story.nodes
            ]
            meanwhile = seconds(lambda: get(http, one, agent.PATH_POLICY))

    assert (kept.status_code, kept.content) == (200, policy)
    assert waits < 15
    assert meanwhile < 15
    assert (folder.status_code, folder.content) == (200, b"for everybody\n")
    assert (given.status_code, taken.status_code, taken.content) == (200, 200, b"hello")
    assert set(statuses) == {202}
    story.all_is_kept_once()


def test_while_the_database_hangs_reports_wait_and_nothing_is_set_aside(story: Story) -> None:
    with relays.client(story.relay) as http:
        for node in story.nodes:
            assert story.report(http, node) == 202

        with stopped(story.database()):
            end = time.monotonic() + 15  # longer than connections wait for a database
            statuses = []
            while time.monotonic() < end:
                statuses += [story.report(http, node) for node in story.nodes]
                time.sleep(0.3)

    assert set(statuses) == {202}
    story.all_is_kept_once()


def test_on_full_disks_nothing_is_acknowledged_and_nothing_that_was_is_lost(story: Story) -> None:
    if not story.small_disks:
        pytest.skip("only root may mount small disks")
    one, other = story.nodes
    with relays.client(story.relay) as http:
        with full(story.relay.data / "spool"):
            refused = [story.report(http, one), post(http, one, agent.PATH_INVENTORIES, inventory(one)).status_code]
        with full(story.site.data / "spool"):
            taken = [story.report(http, node) for node in (one, other) * 5]
            time.sleep(2)  # some tries of the relay
            waiting = story.relay.waiting()
            direct = post(story.site.client, one, agent.PATH_REPORTS, one.parcel("report", one.run([])))

    assert refused == [503, 503]
    assert set(taken) == {202}
    assert waiting != []
    assert (direct.status_code, direct.json()["code"]) == (503, "unavailable")
    story.all_is_kept_once()


def inventory(one: Agent) -> bytes:
    return one.parcel("inventory", one.inventory())


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """So little is left of this disk that nothing more is taken."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    try:
        yield
    finally:
        ballast.unlink()


def test_a_bomb_takes_no_memory_is_set_aside_and_blocks_nobody(story: Story) -> None:
    one, other = story.nodes
    bomb = gigabyte(b'{"format":1,"node":"')
    report, inventory_ = (one.wrap(kind, bomb) for kind in ("report", "inventory"))
    server = story.site.server
    looked_at = [server.one("api-process"), server.one("worker-process")]
    pids = [*(process.pid for process in looked_at), story.relay.process.pid if story.relay.process else 0]
    before = [peak_kilobytes(pid) for pid in pids]

    with relays.client(story.relay) as http:
        through = [post(http, one, path, body) for path, body in paths(report, inventory_)]
        direct = [post(story.site.client, one, path, body) for path, body in paths(report, inventory_)]
        others = [story.report(client, other) for client in (http, story.site.client) for _ in range(3)]
    assert eventually(lambda: len(story.set_aside()) == 3, PATIENCE_SECONDS), story.set_aside()
    after = [peak_kilobytes(pid) for pid in pids]
    for left in story.set_aside():
        left.unlink()

    assert [answer.status_code for answer in through] == [202, 202], "what is in them, only the root can tell"
    assert [answer.status_code for answer in direct] == [202, 400]
    assert others == [202] * 6
    assert all(now - then < MOST_MORE_KILOBYTES for then, now in zip(before, after, strict=True)), (before, after)
    story.all_is_kept_once()


def paths(report: bytes, inventory_: bytes) -> list[tuple[str, bytes]]:
    return [(agent.PATH_REPORTS, report), (agent.PATH_INVENTORIES, inventory_)]


def gigabyte(beginning: bytes) -> bytes:
    """A gzip stream of a gigabyte and something, a thousandth as long."""
    block = b"0" * (16 * 1024 * 1024)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(beginning) + packer.flush(zlib.Z_FULL_FLUSH)
    once = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # nothing before it matters, so it can be repeated
    checksum, length = zlib.crc32(beginning), len(beginning)
    for _ in range(64):
        checksum, length = zlib.crc32(block, checksum), length + len(block)
    tail = packer.flush() + checksum.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + once * 64 + tail


def peak_kilobytes(pid: int) -> int:
    """The most memory that a process had so far."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


# -- clocks --------------------------------------------------------------------------------


class Skewed(Relay):
    """A relay whose clock is off by some seconds."""

    ahead = 0

    def _command(self, *arguments: str) -> list[str]:
        program, flag, code, *rest = super()._command(*arguments)
        return [program, flag, shifted(self.ahead) + code, *rest]


class SkewedMachine(RelayedMachine):
    """A machine whose clock is off by some seconds."""

    ahead = 0

    def command(self, name: str, *arguments: str) -> list[str]:
        whole = super().command(name, *arguments)
        place = whole.index("-c") + 1
        return [*whole[:place], shifted(self.ahead) + whole[place], *whole[place + 1 :]]


def shifted(ahead: int) -> str:
    return f"import time; right = time.time; time.time = lambda: right() + {ahead}; "


def test_machines_and_relays_whose_clocks_are_off_do_everything_all_the_same(story: Story) -> None:
    served, token = story.site, story.token
    fast, slow = Skewed(served, "fast"), Skewed(served, "slow")
    fast.ahead, slow.ahead, slow.above = 3600, -3600, fast
    with ExitStack() as stack:
        for relay in (fast, slow):
            stack.callback(relay.end)
            done = relay.enroll(token)
            assert done.returncode == 0, done
            served.ask("POST", f"/scaleoutrelay/promote/{relay.node}")
            relay.start()
        machine = SkewedMachine(served, "late", slow)
        machine.ahead = -1800
        machine.enroll_through_relay(token)
        kept = Kept(served, "late")
        kept.set(machine.files / "kept", "at all times", "enforce", f"hasPolicyServer-{slow.node}")
        served.settle()

        run = machine.run()

        assert run["counts"] == {"result_repaired": 1}
        assert machine.queued() == []
        assert eventually(lambda: kept.compliance()["compliance"] == 100.0, PATIENCE_SECONDS), served.trouble()
        assert eventually(lambda: given(story, machine.node) == 200, PATIENCE_SECONDS), slow.log.read_text()
        stack.enter_context(listening(machine))
        assert eventually(lambda: "component(s)" in asked_to_run(story, machine.node), PATIENCE_SECONDS), (
            asked_to_run(story, machine.node),
            slow.log.read_text(),
        )
        kept.remove()


def given(story: Story, target: str) -> int:
    """The status of a file from a node behind the first relay to another, given to the server."""
    source = story.nodes[0]
    path = f"{API}/shared-files/{target}/{source.node}/greeting?ttl=1d"
    return story.site.client.put(path, content=shared(source, b"hello")).status_code


def asked_to_run(story: Story, node: str) -> str:
    """What a run on demand prints."""
    form = {"nodes": node, "keep_output": "true"}
    return story.site.client.post("/rudder/relay-api/remote-run/nodes", data=form).text
