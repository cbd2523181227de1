# SPDX-License-Identifier: Apache-2.0
"""A real server in its processes and real agents in theirs, as an administrator meets them: over TLS, by commands."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests import agents
from tests.daemon.servers import Server, eventually

from quarterdeck.formats import agent

RUDDER = "/rudder/api/latest"
NATIVE = "/quarterdeck/api/1"
TECHNIQUE = "one_file"
PATIENCE_SECONDS = 60.0
#: A file with exactly these lines: what the tests keep in order.
_ONE_FILE = {
    "id": TECHNIQUE,
    "version": "1.0",
    "name": "One file",
    "parameters": [{"id": "p-path", "name": "path"}, {"id": "p-text", "name": "text"}],
    "calls": [
        {
            "type": "call",
            "id": "call-1",
            "method": "file_content",
            "component": "The file",
            "condition": "any",
            "parameters": {"path": "${one_file.path}", "lines": "${one_file.text}", "enforce": "true"},
        }
    ],
}


class Site:
    """One server that tests stop, kill and start again on the same port and data."""

    def __init__(self, directory: Path, *, host: str = "127.0.0.1") -> None:
        """`host`: where it listens."""
        self.directory = directory
        self.host = host
        self.data = directory / "data"
        self.server = Server(self.data, host=host)
        self.server.wait()
        self.port = self.server.port
        self.url = f"https://127.0.0.1:{self.port}"
        trusting = ssl.create_default_context(cafile=str(self.data / "keys" / "ca.pem"))
        token = (self.data / "admin-token").read_text().strip()
        self.client = httpx.Client(
            base_url=self.url, verify=trusting, headers={"X-API-Token": token}, timeout=60, trust_env=False
        )

    def start(self) -> None:
        """Serve again after `stop`, or after the supervisor was killed."""
        self.server = Server(self.data, port=self.port, host=self.host)
        self.server.wait()

    def stop(self) -> None:
        assert self.server.end() == 0, self.server.log.read_text()

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """What the Rudder API says about something that must work."""
        answer = self.client.request(method, RUDDER + path, json=document)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()["data"]

    def native(self, method: str, path: str, document: Any = None) -> Any:
        answer = self.client.request(method, NATIVE + path, json=document)
        assert answer.is_success, (answer.status_code, answer.text)
        return answer.json()

    def settle(self) -> None:
        """Wait until all asked for is generated."""
        assert eventually(lambda: not self.native("GET", "/generation")["running"], PATIENCE_SECONDS), self.trouble()

    def trouble(self) -> str:
        """For people who read a failure: the state of generations and the server's log."""
        return f"{self.native('GET', '/generation')}\n{self.server.log.read_text()[-4000:]}"

    def pin(self) -> str:
        return str(self.native("GET", "/server")["pin"])

    def close(self) -> None:
        self.client.close()
        self.server.end()


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A served site, ended afterwards."""
    made = Site(directory)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Ended:
    """How a command of the agent ended."""

    status: int
    printed: str
    complaint: str

    @property
    def document(self) -> Any:
        return json.loads(self.printed)


class Machine:
    """A machine with the agent's one file, as the server hands it out, and a state directory of its own."""

    def __init__(self, where: Site, name: str) -> None:
        self.site = where
        self.state = where.directory / name
        self.files = where.directory / f"{name}-files"
        self.files.mkdir()
        self.program = where.directory / f"{name}.pyz"
        answer = where.client.get("/quarterdeck/agent/1/quarterdeck-agent.pyz")
        assert answer.status_code == 200
        self.program.write_bytes(answer.content)

    def command(self, name: str, *arguments: str) -> list[str]:
        """-S: without installed packages, the standard library alone."""
        return [sys.executable, "-I", "-S", str(self.program), name, "--state-dir", str(self.state), *arguments]

    def agent(self, name: str, *arguments: str) -> Ended:
        """Run one command of the agent to its end."""
        done = subprocess.run(self.command(name, *arguments), capture_output=True, text=True, check=False, timeout=90)
        return Ended(done.returncode, done.stdout, done.stderr)

    def enroll(self, *, pin: str = "", token: str = "") -> Ended:
        """With the server's pin and enrolment token, where no others are given."""
        token = token or (self.site.data / "enrolment-token").read_text().strip()
        place = ("--server", self.site.url, "--pin", pin or self.site.pin())
        return self.agent("enroll", *place, "--token", token, "--json")

    def run(self, *arguments: str) -> Any:
        """One run that succeeds: what it says of itself."""
        ended = self.agent("run", "--json", *arguments)
        assert ended.status == 0, ended
        return ended.document

    @property
    def node(self) -> str:
        return (self.state / "node.id").read_text().strip()

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Content, mode, owner and time of all files that policies may touch."""
        found: dict[str, tuple[object, ...]] = {}
        for path in [self.files, *self.files.rglob("*")]:
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (content, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        return found

    def queued(self) -> list[str]:
        """Parcels that wait for the server."""
        return sorted(path.name for path in (self.state / "queue").iterdir())


def accept(machine: Machine) -> None:
    """Enrol, and let an administrator accept."""
    ended = machine.enroll()
    assert ended.document == {"node": machine.node, "status": "pending"}, ended
    machine.site.ask("POST", f"/nodes/pending/{machine.node}", {"status": "accepted"})


@contextlib.contextmanager
def listening(machine: Machine, *arguments: str) -> Iterator[None]:
    """The machine's agent waits for orders meanwhile; what it says is in its `listener.log`."""
    with (machine.state / "listener.log").open("wb") as log:
        process = subprocess.Popen(machine.command("listen", *arguments), stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@dataclass(frozen=True)
class Kept:
    """A file that a rule keeps on machines: a directive of `TECHNIQUE` and its rule."""

    site: Site
    name: str

    def set(self, path: Path, text: str, mode: str, group: str) -> None:
        """Make the directive and the rule."""
        if not any(one["id"] == TECHNIQUE for one in self.site.ask("GET", "/techniques")["techniques"]):
            self.site.ask("PUT", "/techniques", _ONE_FILE)
        values = [{"var": {"name": "p-path", "value": str(path)}}, {"var": {"name": "p-text", "value": text}}]
        section = {"section": {"name": "Technique parameters", "vars": values}}
        directive = {
            "id": f"directive-{self.name}",
            "displayName": f"Keep {self.name}",
            "techniqueName": TECHNIQUE,
            "techniqueVersion": "1.0",
            "policyMode": mode,
            "parameters": {"section": {"name": "sections", "sections": [section]}},
        }
        self.site.ask("PUT", "/directives", directive)
        rule = {"id": f"rule-{self.name}", "displayName": f"Rule {self.name}", "directives": [directive["id"]]}
        self.site.ask("PUT", "/rules", {**rule, "targets": [f"group:{group}"]})

    def switch(self, mode: str) -> None:
        """To audit or enforce."""
        self.site.ask("POST", f"/directives/directive-{self.name}", {"policyMode": mode})

    def remove(self) -> None:
        self.site.ask("DELETE", f"/rules/rule-{self.name}")
        self.site.ask("DELETE", f"/directives/directive-{self.name}")

    def compliance(self) -> dict[str, Any]:
        """What the compliance API says of the rule."""
        (found,) = self.site.ask("GET", f"/compliance/rules/rule-{self.name}")["rules"]
        return dict(found)

    def becomes(self, compliance: float, **details: float) -> None:
        """Fails unless the rule soon shows this percentage and these details, and its only node the same."""

        def shown() -> list[tuple[float, Any]]:
            rule = self.compliance()
            return [(part["compliance"], part["complianceDetails"]) for part in (rule, *rule["nodes"])]

        wanted = [(compliance, details)] * 2
        assert eventually(lambda: shown() == wanted, PATIENCE_SECONDS), (shown(), self.site.trouble())


def statuses(run: Any) -> dict[str, str]:
    """What came of each component."""
    return {one["component"]: one["status"] for one in run["reports"]}


def keep(served: Site, name: str, node: str, method: str, **parameters: str) -> None:
    """A technique of one call, its directive, and a rule for one node."""
    if method.startswith("sharedfile"):
        parameters["file_id"] = "greeting"
    call = {"type": "call", "id": f"call-{name}", "method": method, "component": name, "condition": "any"}
    technique = {"id": f"technique_{name}", "version": "1.0", "name": name, "parameters": []}
    served.ask("PUT", "/techniques", {**technique, "calls": [{**call, "parameters": parameters}]})
    directive: dict[str, Any] = {"id": f"directive-{name}", "displayName": name, "techniqueName": technique["id"]}
    directive |= {"techniqueVersion": "1.0", "policyMode": "enforce", "parameters": {"section": {"name": "sections"}}}
    served.ask("PUT", "/directives", directive)
    where = [{"objectType": "node", "attribute": "nodeId", "comparator": "eq", "value": node}]
    query = {"select": "node", "composition": "And", "where": where}
    group = {"id": f"group-{name}", "displayName": f"Group {name}", "category": "GroupRoot", "query": query}
    served.ask("PUT", "/groups", group)
    rule = {"id": f"rule-{name}", "displayName": name, "directives": [directive["id"]]}
    served.ask("PUT", "/rules", {**rule, "targets": [f"group:group-{name}"]})


def signed_headers(machine: Machine, node: str, path: str) -> dict[str, str]:
    """A request in the name of `node`, signed with this machine's own key."""
    key = serialization.load_pem_private_key((machine.state / "node.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    moment, nonce = str(int(time.time())), uuid.uuid4().hex
    message = agent.request_message("GET", path, node, moment, nonce, b"")
    return {
        agent.HEADER_NODE: node,
        agent.HEADER_TIME: moment,
        agent.HEADER_NONCE: nonce,
        agent.HEADER_SIGNATURE: base64.b64encode(agents.sign(key, message)).decode(),
    }
