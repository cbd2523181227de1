# SPDX-License-Identifier: Apache-2.0
"""Relays in processes of their own, and machines behind them, each under a host name of its own."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from tests.agents import Agent
from tests.daemon.servers import environment, eventually, free_port
from tests.e2e.machines import PATIENCE_SECONDS, Machine, Site

from quarterdeck.daemon import tls
from quarterdeck.formats import agent

#: All run on one machine: what the system calls it is the one thing that is not real.
_NAMED = "import runpy, socket, sys; name = sys.argv.pop(1); socket.gethostname = lambda: name; "
#: When it ends, it writes down what it had loaded.
_DAEMON = (
    _NAMED
    + "import atexit, pathlib; loaded = pathlib.Path(sys.argv.pop(1)); "
    + "atexit.register(lambda: loaded.write_text('\\n'.join(sys.modules))); "
    + "from quarterdeck.daemon.main import main; main()"
)
_AGENT = _NAMED + "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


class Relay:
    """One `quarterdeckd relay` that tests stop, kill and start again on the same port and data."""

    def __init__(self, site: Site, name: str, *, above: Site | Relay | None = None) -> None:
        self.site = site
        self.name = name
        self.above = above or site
        self.data = site.directory / name
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.log = site.directory / f"{name}.log"
        self.modules = site.directory / f"{name}.modules"
        self.process: subprocess.Popen[bytes] | None = None

    def enroll(self, token: str) -> subprocess.CompletedProcess[str]:
        """Become a node of the server above."""
        place = ("--upstream", self.above.url, "--pin", self.above.pin(), "--token", token)
        command = self._command("relay", "enroll", "--data-dir", str(self.data), *place)
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=90)

    def start(self, *prefix: str) -> None:
        """Serve, until it answers."""
        (self.data / "quarterdeck.toml").write_text("relay.mirror_seconds = 1.0\n")
        arguments = ("relay", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}")
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*prefix, *self._command(*arguments)], stdout=log, stderr=log, env=environment()
            )
        running = self.process
        answers = eventually(lambda: running.poll() is not None or self.answers(), PATIENCE_SECONDS)
        assert answers, self.log.read_text()
        assert running.poll() is None, self.log.read_text()

    def answers(self) -> bool:
        """Whether it speaks TLS with the key that nodes pin."""
        try:
            certificate = ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)
        except OSError:
            return False
        return tls.spki_pin(certificate.encode()) == self.pin()

    def kill(self) -> None:
        """As if the power had gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def pin(self) -> str:
        return tls.spki_pin((self.data / "keys" / "server.pem").read_bytes())

    @property
    def node(self) -> str:
        return (self.data / "agent" / "node.id").read_text().strip()

    def waiting(self) -> list[Path]:
        """Spool files that have not gone up yet."""
        return [one for one in (self.data / "spool" / "parcels").glob("*") if one.suffix in (".open", ".batch")]

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _DAEMON, f"{self.name}.example.com", str(self.modules), *arguments]


class RelayedMachine(Machine):
    """A machine behind a relay."""

    def __init__(self, where: Site, name: str, relay: Relay) -> None:
        super().__init__(where, name)
        self.relay = relay
        self.name = name

    def command(self, name: str, *arguments: str) -> list[str]:
        _, *isolated, program, _, _, _ = super().command(name)
        return [
            *(sys.executable, *isolated, "-c", _AGENT, f"{self.name}.example.com", program),
            *(name, "--state-dir", str(self.state), *arguments),
        ]

    def enroll_through_relay(self, token: str) -> Any:
        """What enrolling says, when it succeeds."""
        place = ("--server", self.relay.url, "--pin", self.relay.pin(), "--token", token)
        ended = self.agent("enroll", *place, "--json")
        assert ended.status == 0, (ended, self.relay.log.read_text())
        return ended.document


def enrolment_token(site: Site) -> str:
    """One that accepts at once."""
    return str(site.native("POST", "/enrolment-tokens", {"name": "relays", "accept": True})["token"])


def relay(site: Site, name: str, token: str, *, above: Site | Relay | None = None) -> Relay:
    """A relay that is enrolled, promoted and serves."""
    made = Relay(site, name, above=above)
    done = made.enroll(token)
    assert done.returncode == 0, done
    assert site.ask("POST", f"/scaleoutrelay/promote/{made.node}") == made.node
    made.start()
    return made


def policy_server(site: Site, node: str) -> str:
    """Who serves a node, as the Rudder API tells."""
    (shown,) = site.ask("GET", f"/nodes/{node}")["nodes"]
    return str(shown["policyServerId"])


def enrolled(site: Site, relay: Relay, hostname: str, token: str, key_number: int = 0) -> Agent:
    """A node behind a relay that tests speak for themselves."""
    one = Agent(hostname=hostname, key_number=key_number)
    body = agent.canonical(one.enrolment(token))
    with client(relay) as http:
        answer = http.post(agent.PATH_ENROLL, content=body, headers=one.headers("POST", agent.PATH_ENROLL, body))
    assert answer.json()["status"] == "accepted", answer.text
    return one


def client(relay: Relay) -> httpx.Client:
    """Requests to a relay, over TLS that its own authority vouches for."""
    trusting = ssl.create_default_context(cafile=str(relay.data / "keys" / "ca.pem"))
    return httpx.Client(base_url=relay.url, verify=trusting, timeout=60, trust_env=False)
