# SPDX-License-Identifier: Apache-2.0
"""A real `quarterdeckd serve` for benchmarks, and its API as programs use it. On loopback, without TLS unless asked."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from bench._processes import children, cpu_seconds, family, memory_bytes
from lxml import etree
from tools.demo_world import tied

SOURCES = Path(__file__).resolve().parent.parent / "src"
PROJECT = "bench"
#: How long until it is asked again whether an execution has ended, and by what part of its time that grows: asking
#: costs, and the end itself is told by the server.
_ASK_SECONDS, _ASK_SHARE = 0.03, 0.2


@dataclass(frozen=True, slots=True)
class Execution:
    """One that ended. `seconds` is from before the request to the recorded end."""

    id: int
    seconds: float
    state: str
    nodes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `data` is its data directory."""

    pid: int
    data: Path
    client: httpx.Client

    # -- the API --------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> bytes:
        answer = self.client.get(path, params=query)
        answer.raise_for_status()
        return answer.content

    def native(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, f"/quarterdeck/api/1{path}", json=body)
        if not answer.is_success:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def rundeck(self, method: str, path: str, query: Mapping[str, str], content: bytes | None = None) -> etree._Element:
        """A result of the RunDeck API."""
        headers = {"Content-Type": "text/yaml"} if content is not None else {}
        return _result(self.client.request(method, f"/api/1{path}", params=query, content=content, headers=headers))

    def project(self, name: str, nodes: str) -> None:
        """A project with the nodes of this resource document."""
        self.native("PUT", "/projects", {"name": name})
        if nodes:
            self.rundeck("POST", f"/project/{name}/resources", {}, nodes.encode())

    def run_command(self, command: str, *, project: str = PROJECT, seconds: float = 600, **query: str) -> Execution:
        """Run a command line as clients of RunDeck do, until it has ended."""
        begun = time.time()
        result = self.rundeck("GET", "/run/command", {"project": project, "exec": command, **query})
        return self._ended(int(result.findall(".//execution")[0].get("id", "")), begun, seconds)

    def run_script(self, script: str, *, project: str = PROJECT, seconds: float = 600, **form: str) -> Execution:
        """The same of a script."""
        begun = time.time()
        fields = {"project": project, "scriptFile": script, **form}
        result = _result(self.client.post("/api/1/run/script", data=fields))
        return self._ended(int(result.findall(".//execution")[0].get("id", "")), begun, seconds)

    def _ended(self, execution: int, begun: float, seconds: float) -> Execution:
        end = time.time() + seconds
        while True:
            shown = self.native("GET", f"/executions/{execution}")
            if shown["ended"] is not None:
                took = datetime.fromisoformat(shown["ended"]).timestamp() - begun
                states = {one["node"]: one["state"] for one in shown["nodeStates"]}
                return Execution(execution, took, shown["state"], states)
            if time.time() > end:
                raise SystemExit(f"Execution {execution} does not end.")
            time.sleep(min(1.0, _ASK_SECONDS + _ASK_SHARE * (time.time() - begun)))

    def output(self, execution: int) -> str:
        return self.get(f"/api/1/execution/{execution}/output", format="text").decode()

    # -- its processes --------------------------------------------------------------------

    def process(self, kind: str) -> int:
        """The pid of its `worker` or `api` process."""
        for pid in children(self.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if f"{kind}-process" in words:
                return pid
        raise SystemExit(f"The server has no {kind} process.")

    def cpu_seconds(self) -> dict[str, float]:
        """What each part has used: the worker, the API process, the database."""
        worker, api = self.process("worker"), self.process("api")
        ours = cpu_seconds(worker), cpu_seconds(api)
        return {"worker": ours[0], "api": ours[1], "database": cpu_seconds(self.pid) - sum(ours)}

    def memory_bytes(self, kind: str) -> int:
        return memory_bytes(family(self.process(kind)))


@contextlib.contextmanager
def serving(scratch: Path, settings: str = "", *, tls: bool = False) -> Iterator[Server]:
    """A server on an empty data directory below `scratch`, for the length of the block."""
    data = scratch / "server"
    scratch.chmod(0o711)
    data.mkdir(mode=0o711)
    (data / "quarterdeck.toml").write_text(f"tls = {str(tls).lower()}\n{settings}")
    port = free_port()
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    command = daemon("serve", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}", "--public-url", url)
    log = scratch / "server.log"
    with running(command, log) as process:
        trusted = answering(url, process, log, data if tls else None)
        token = (data / "admin-token").read_text().strip()
        headers = {"X-API-Token": token}
        with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False, verify=trusted) as client:
            server = Server(process.pid, data, client)
            _await_worker(server)
            yield server


def daemon(*arguments: str) -> list[str]:
    """The command line of a `quarterdeckd`."""
    return [sys.executable, "-m", "quarterdeck.daemon.main", *arguments]


def environment() -> dict[str, str]:
    """Of a `quarterdeckd` from these sources, which no setting of whoever measures reaches."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(SOURCES), *filter(None, [kept.get("PYTHONPATH")])])}


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of the block; it is killed if it does not end within a minute of being told."""
    with log.open("wb") as file:
        process = subprocess.Popen(tied(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment())
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answering(url: str, process: subprocess.Popen[bytes], log: Path, data: Path | None) -> ssl.SSLContext:
    """Wait until it answers; what a client trusts. `data` is its data directory if it speaks TLS."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"{url} ended with {process.returncode}: {log.read_text()}")
        with contextlib.suppress(httpx.HTTPError, OSError):
            trusted = ssl.create_default_context(cafile=str(data / "keys" / "ca.pem") if data else None)
            httpx.get(url, trust_env=False, verify=trusted)
            return trusted
        time.sleep(0.2)
    raise SystemExit(f"{url} does not answer: {log.read_text()}")


def _await_worker(server: Server) -> None:
    """Wait until its worker runs what it is given."""
    server.project("warmup", "")
    server.run_command("true", project="warmup")


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


def _result(answer: httpx.Response) -> etree._Element:
    result = etree.fromstring(answer.content)
    if result.get("success") != "true":
        raise SystemExit(f"{answer.request.method} {answer.request.url}: {answer.text}")
    return result
