# SPDX-License-Identifier: Apache-2.0
"""kill -9 in the middle of work: what was acknowledged is there afterwards, whole, and nobody stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests import agents
from tests.agents import Agent
from tests.daemon.servers import Process, eventually
from tests.e2e.machines import PATIENCE_SECONDS, RUDDER, Kept, Machine, Site, accept

from quarterdeck.formats import agent
from quarterdeck.storage import embedded

pytestmark = [pytest.mark.xdist_group("kills"), pytest.mark.timeout(300)]

#: Acknowledged changes before the kill, and again afterwards.
SHARE = 12
#: Long enough for PostgreSQL to put it aside in pieces.
LONG = 20_000


@pytest.fixture(scope="module")
def reporter(served: Site) -> Agent:
    """An accepted node that signs with a key of its own."""
    one = Agent(hostname="reporter.example.com")
    token = served.native("POST", "/enrolment-tokens", {"name": "at once", "accept": True})["token"]
    body = agent.canonical(one.enrolment(token))
    answer = served.client.post(agent.PATH_ENROLL, content=body, headers=one.headers("POST", agent.PATH_ENROLL, body))
    assert answer.json()["status"] == "accepted", answer.text
    return one


class Stream(threading.Thread):
    """Does one thing after the other until told to stop, and remembers what was acknowledged."""

    def __init__(self, served: Site) -> None:
        super().__init__(name=type(self).__name__)
        self.site = served
        self.acknowledged: list[Any] = []
        self.refused: list[httpx.Response] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.step()
            except httpx.TransportError:
                time.sleep(0.05)  # the server is away; what was asked for may or may not have happened

    def step(self) -> None:
        raise NotImplementedError

    def reaches(self, number: int) -> None:
        """Fails unless as many steps are soon acknowledged."""
        assert eventually(lambda: len(self.acknowledged) >= number, PATIENCE_SECONDS), (
            self.name,
            len(self.acknowledged),
            [answer.text for answer in self.refused[-3:]],
            self.site.server.log.read_text()[-4000:],
        )

    def end(self) -> None:
        self.stopping.set()
        self.join()


class Rules(Stream):
    """Creates rules and changes each once; an entry is what the API last acknowledged of a rule."""

    def step(self) -> None:
        rule = str(uuid.uuid4())
        made = {"id": rule, "displayName": f"Made {rule}", "targets": ["special:all"], "tags": [{"a": "b"}]}
        if self.send("PUT", "/rules", made):
            self.send("POST", f"/rules/{rule}", {"displayName": f"Changed {rule}", "longDescription": "x" * LONG})

    def send(self, method: str, path: str, document: Any) -> bool:
        answer = self.site.client.request(method, RUDDER + path, json=document)
        if answer.status_code == 200:
            self.acknowledged.append(answer.json()["data"]["rules"][0])
            return True
        self.refused.append(answer)
        time.sleep(0.05)
        return False


class Reports(Stream):
    """Delivers runs of one node; an entry is when an acknowledged run began."""

    def __init__(self, served: Site, reporter: Agent) -> None:
        super().__init__(served)
        self.reporter = reporter

    def step(self) -> None:
        start = datetime.now(UTC)
        start -= timedelta(microseconds=start.microsecond % 1000)
        one = self.reporter
        parcel = one.parcel("report", one.run([agents.report(message=start.isoformat())], start=start))
        headers = one.headers("POST", agent.PATH_REPORTS, parcel)
        answer = self.site.client.post(agent.PATH_REPORTS, content=parcel, headers=headers)
        if answer.status_code == 202:
            self.acknowledged.append(start)
        else:
            self.refused.append(answer)
            time.sleep(0.05)


def kept_runs(served: Site, node: str) -> list[datetime]:
    """When the node's stored runs began."""
    with embedded.running(served.data) as url, psycopg.connect(url) as connection:
        query = "SELECT start FROM runs JOIN node_status s ON s.number = runs.node WHERE s.node_id = %s"
        return [row[0] for row in connection.execute(query, [node])]


def history_of_rules(served: Site) -> dict[str, list[dict[str, Any]]]:
    """The whole event log of rules, oldest first, by rule."""
    found: dict[str, list[dict[str, Any]]] = {}
    path = "/events?limit=1000"
    while True:
        page = served.native("GET", path)
        for event in page["events"]:
            if event["kind"] == "rule":
                found.setdefault(event["objectId"], []).insert(0, event)
        if page["next"] is None:
            return found
        path = f"/events?limit=1000&before={page['next']}"


def users_of(directory: Path) -> list[str]:
    """Processes that have anything to do with a directory: named on their command line, open, or worked in."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            traces = [process.joinpath("cmdline").read_bytes().decode(errors="replace")]
            links = [process / "cwd", *(process / "fd").iterdir()]
            traces += [str(link.readlink()) for link in links]
        except OSError:
            continue  # it ended meanwhile
        if any(str(directory) in trace for trace in traces):
            found.append(f"{process.name}: {traces[0]}")
    return found


def victim(served: Site, part: str) -> Process:
    """The process to kill."""
    if part == "postmaster":
        found = served.server.postgres()
        assert found is not None
        return found
    return served.server.one(part)


@pytest.mark.parametrize(
    "part", ["supervisor", "api-process", "worker-process", "postgres_guard", "postmaster", "everything"]
)
def test_what_was_acknowledged_survives_a_kill(served: Site, reporter: Agent, part: str) -> None:
    rules, reports = Rules(served), Reports(served, reporter)
    rules.start()
    reports.start()
    try:
        rules.reaches(SHARE)
        reports.reaches(SHARE)
        if part in ("supervisor", "everything"):
            kill_whole(served, everything=part == "everything")
        else:
            killed = victim(served, part)
            os.kill(killed.pid, signal.SIGKILL)
            assert eventually(killed.ended)
        rules.reaches(len(rules.acknowledged) + SHARE)
        reports.reaches(len(reports.acknowledged) + SHARE)
    finally:
        rules.end()
        reports.end()

    # A server that is starting or has lost its database says so; nothing else may go wrong.
    wrong = [answer.text for answer in rules.refused + reports.refused if answer.status_code != 503]
    assert wrong == [], (wrong, served.server.log.read_text()[-4000:])
    served.settle()
    everything_acknowledged_is_there(served, rules)
    acknowledged = set(reports.acknowledged)
    assert eventually(lambda: acknowledged <= set(kept_runs(served, reporter.node)), PATIENCE_SECONDS), (
        acknowledged - set(kept_runs(served, reporter.node)),
        served.trouble(),
    )
    kept = kept_runs(served, reporter.node)
    assert len(kept) == len(set(kept))


def kill_whole(served: Site, *, everything: bool) -> None:
    """Kill the supervisor, or every process of the server at once; wait until nobody is left, and start again."""
    processes = served.server.processes()
    assert any("postgres" in process.command for process in processes)
    for process in processes if everything else processes[:1]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # a helper of the database that came and went
    served.server.process.wait()
    assert eventually(lambda: all(process.ended() for process in processes), PATIENCE_SECONDS), [
        process for process in processes if not process.ended()
    ]
    assert eventually(lambda: not users_of(served.data), PATIENCE_SECONDS), users_of(served.data)
    served.start()


def everything_acknowledged_is_there(served: Site, stream: Rules) -> None:
    """Each rule as it was last acknowledged, or as what was under way then made it; each with its whole history."""
    present = {rule["id"]: rule for rule in served.ask("GET", "/rules")["rules"]}
    history = history_of_rules(served)
    for acknowledged in {rule["id"]: rule for rule in stream.acknowledged}.values():
        rule = present[acknowledged["id"]]
        assert rule == acknowledged or (acknowledged["longDescription"] == "" and rule["longDescription"] == "x" * LONG)
    for rule in present.values():
        events = history[rule["id"]]
        changed = rule["displayName"].startswith("Changed")
        assert [event["before"] for event in events] == [None, events[0]["after"]][: 1 + changed]
        assert events[-1]["after"]["name"] == rule["displayName"]
        assert rule["longDescription"] == "x" * LONG * changed
        made_at_start = events[0]["actor"] != "admin"
        assert made_at_start or all(event["requestId"] for event in events)
    assert set(history) == set(present)


def test_an_agent_killed_at_any_moment_leaves_nothing_half_written(served: Site) -> None:
    machine = Machine(served, "killed")
    accept(machine)
    text = "\n".join(f"line {number}" for number in range(5000))
    target = machine.files / "large"
    story = Kept(served, "large")
    served.ask("PUT", "/groups", _group_of(machine.node))
    story.set(target, text, "enforce", "killed-machine")
    served.settle()
    whole = text + "\n"
    moments = [0.02, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0]

    for moment in moments:
        target.write_text("damaged\n")
        process = subprocess.Popen(machine.command("run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        process.kill()
        process.wait()
        assert target.read_text() in {"damaged\n", whole}, moment

    run = machine.run()
    assert target.read_text() == whole
    assert run["counts"] in ({"result_repaired": 1}, {"result_success": 1})
    assert machine.queued() == []
    assert list(machine.state.rglob(".new-*")) == []
    assert [path.name for path in machine.files.iterdir()] == ["large"]
    assert machine.run()["counts"] == {"result_success": 1}


def _group_of(node: str) -> dict[str, Any]:
    line = {"objectType": "node", "attribute": "nodeId", "comparator": "eq", "value": node}
    return {
        "id": "killed-machine",
        "displayName": "The killed machine",
        "category": "GroupRoot",
        "dynamic": False,
        "nodeIds": [node],
        "query": {"select": "node", "composition": "And", "where": [line]},
    }


def test_no_request_met_a_fault_that_was_not_the_databases_absence(served: Site) -> None:
    faults = re.findall(r"^.* ERROR quarterdeck[.]web[.]runner: .*$", served.server.log.read_text(), re.MULTILINE)

    assert faults == []
