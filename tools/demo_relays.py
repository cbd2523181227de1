# SPDX-License-Identifier: Apache-2.0
"""The demo's scene of relays: a relay in a process of its own, a second machine behind it, a file from the first to it.

The second machine is this one again, with a state directory of its own and, since no two nodes of a server may have
one, another host name. What it was given is looked up in the file system.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.demo_world import Api, DemoFailed, clean_environment, eventually, free_port, tied

CONTENT = "from the first machine to the second\n"
STOP_SECONDS = 20
RUN_SECONDS = 180
_FILE = "greeting"
_NAMED = "import runpy, socket, sys; name = sys.argv.pop(1); socket.gethostname = lambda: name; sys.argv.pop(0); "
_DAEMON = _NAMED + "sys.argv.insert(0, 'quarterdeckd'); from quarterdeck.daemon.main import main; main()"
_AGENT = _NAMED + "runpy.run_path(sys.argv[0], run_name='__main__')"


@dataclass
class Branch:
    """A relay, and a machine behind it."""

    root: Path
    agent_program: Path
    url: str
    relay: str = ""
    node: str = ""
    pin: str = ""

    @property
    def data(self) -> Path:
        """The data directory of the relay."""
        return self.root / "relay"

    @property
    def agent(self) -> Path:
        """The state directory of the agent behind it."""
        return self.root / "agent"

    @property
    def taken(self) -> Path:
        """Where the file shall come to."""
        return self.root / "machine" / "taken"

    @property
    def given(self) -> Path:
        """Where it comes from."""
        return self.root / "given"

    @property
    def log(self) -> Path:
        """What the relay prints."""
        return self.root / "relay.log"


def prepare(root: Path, agent_program: Path) -> Branch:
    """The scene's directory."""
    (root / "machine").mkdir(parents=True)
    made = Branch(root, agent_program, f"https://127.0.0.1:{free_port(0)}")
    made.given.write_text(CONTENT)
    return made


def make_relay(api: Api, branch: Branch, server: str) -> str:
    """Enrol the relay at the server and promote it; the enrolment token, which accepts at once. Raises DemoFailed."""
    token = str(api.native("POST", "/enrolment-tokens", {"name": "demo-relay", "accept": True})["token"])
    pin = str(api.native("GET", "/server")["pin"])
    _done(
        "The relay could not enrol",
        [_DAEMON, "relay.demo.example", "relay", "enroll", "--data-dir", str(branch.data)],
        ["--upstream", server, "--pin", pin, "--token", token],
    )
    branch.relay = (branch.data / "agent" / "node.id").read_text().strip()
    api.rudder("POST", f"/scaleoutrelay/promote/{branch.relay}")
    (branch.data / "quarterdeck.toml").write_text("relay.mirror_seconds = 1.0\n")
    return token


@contextlib.contextmanager
def relaying(branch: Branch) -> Iterator[None]:
    """The relay, for the length of the block. Raises DemoFailed when it does not answer."""
    address = branch.url.removeprefix("https://")
    options = ["relay", "--data-dir", str(branch.data), "--listen", address, "--public-url", branch.url]
    with branch.log.open("wb") as log:
        process = subprocess.Popen(
            tied([sys.executable, "-c", _DAEMON, "relay.demo.example", *options]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=clean_environment(),
            start_new_session=True,
        )
    try:
        host, _, port = address.partition(":")

        def answers() -> bool:
            if process.poll() is not None:
                raise DemoFailed(f"The relay did not start; see {branch.log}.")
            with contextlib.suppress(OSError):
                ssl.get_server_certificate((host, int(port)), timeout=5)
                return True
            return False

        eventually(answers, f"The relay does not answer; see {branch.log}.", 30)
        branch.pin = next(word for word in branch.log.read_text().split() if word.startswith("sha256//"))
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def enrol(api: Api, branch: Branch, token: str) -> None:
    """The second machine becomes a node, through the relay. Raises DemoFailed."""
    command = [_AGENT, "second.demo.example", str(branch.agent_program), "enroll", "--state-dir", str(branch.agent)]
    _done(
        "The machine behind the relay could not enrol",
        command,
        ["--server", branch.url, "--pin", branch.pin, "--token", token],
    )
    branch.node = (branch.agent / "node.id").read_text().strip()
    (node,) = api.rudder("GET", f"/nodes/{branch.node}")["nodes"]
    if node["policyServerId"] != branch.relay:
        raise DemoFailed(f"The node behind the relay is served by {node['policyServerId']}.")


def make_rules(api: Api, branch: Branch, first: str) -> None:
    """The first machine gives a file to the second, which takes it."""
    give = {"remote_node": branch.node, "file_id": _FILE, "file_path": str(branch.given), "ttl": "1d"}
    take = {"remote_node": first, "file_id": _FILE, "file_path": str(branch.taken)}
    _keep(api, "give", first, "sharedfile_to_node", give)
    _keep(api, "take", branch.node, "sharedfile_from_node", take)


def _keep(api: Api, name: str, node: str, method: str, parameters: dict[str, str]) -> None:
    technique, directive, group = f"demo_{name}", f"demo-{name}", f"demo-{name}"
    call = {"type": "call", "id": f"call-{name}", "method": method, "component": name, "condition": "any"}
    document = {"id": technique, "version": "1.0", "name": f"Demo: {name} a file", "parameters": []}
    api.rudder("PUT", "/techniques", {**document, "calls": [{**call, "parameters": parameters}]})
    made: dict[str, Any] = {"id": directive, "displayName": f"Demo: {name} a file", "techniqueName": technique}
    made |= {"techniqueVersion": "1.0", "policyMode": "enforce", "parameters": {"section": {"name": "sections"}}}
    api.rudder("PUT", "/directives", made)
    where = [{"objectType": "node", "attribute": "nodeId", "comparator": "eq", "value": node}]
    query = {"select": "node", "composition": "And", "where": where}
    api.rudder(
        "PUT",
        "/groups",
        {"id": group, "displayName": f"Demo: who shall {name}", "category": "GroupRoot", "query": query},
    )
    rule = {"id": directive, "displayName": f"Demo: {name} a file", "directives": [directive]}
    api.rudder("PUT", "/rules", {**rule, "targets": [f"group:{group}"]})


def run_agent(branch: Branch) -> None:
    """One run of the agent behind the relay. Raises DemoFailed unless it delivered its report."""
    command = [_AGENT, "second.demo.example", str(branch.agent_program), "run", "--json"]
    done = _run([*command, "--state-dir", str(branch.agent)])
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise DemoFailed(f"The agent behind the relay did not run: {done.stderr.strip()}") from None
    if result["queued"] or result["waiting"]:
        raise DemoFailed(f"It could not deliver its report: {'; '.join(result['problems'])}")


def verify(api: Api, branch: Branch) -> None:
    """Raises DemoFailed unless the file is there, and the server knows it from the relay."""
    if not branch.taken.exists() or branch.taken.read_text() != CONTENT:
        raise DemoFailed(f"The shared file did not come to {branch.taken}.")

    def compliant() -> bool:
        (rule,) = api.rudder("GET", "/compliance/rules/demo-take")["rules"]
        return bool(rule["compliance"] == 100.0)

    eventually(compliant, "The report of the node behind the relay did not arrive.")


def _done(otherwise: str, command: list[str], more: list[str]) -> None:
    done = _run([*command, *more])
    if done.returncode != 0:
        raise DemoFailed(f"{otherwise}: {done.stderr.strip()}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            tied([sys.executable, "-c", *command]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
            timeout=RUN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"This took longer than {RUN_SECONDS} s: {command[1:4]}") from None
