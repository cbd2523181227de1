# SPDX-License-Identifier: Apache-2.0
"""What the demo owns on this machine: its directory, the processes it starts, and the API it talks to.

Nothing here outlives the demo, even when it is killed: each process has asked the kernel to be ended with its parent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from lxml import etree

MARKER = ".quarterdeck-demo"
FIRST_ANSWER_SECONDS = 120.0
STOP_SECONDS = 60.0
WORK_SECONDS = 120.0

#: Runs the command after the first argument so that it gets SIGTERM when the process of that id ends, killed or not.
_TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


class DemoFailed(Exception):
    """A step did not happen. The message is one sentence for the user."""


@dataclass(frozen=True)
class Places:
    """The demo's directory and what is where in it."""

    root: Path

    @property
    def server(self) -> Path:
        """The data directory of the server."""
        return self.root / "server"

    @property
    def agent(self) -> Path:
        """The state directory of the agent."""
        return self.root / "agent"

    @property
    def agent_program(self) -> Path:
        """The agent, installed by the enrolment line."""
        return self.root / "quarterdeck-agent"

    @property
    def machine(self) -> Path:
        """The files that the demo's policies are about."""
        return self.root / "machine"

    @property
    def nodes(self) -> Path:
        """The nodes that are reached over SSH."""
        return self.root / "nodes"

    @property
    def branch(self) -> Path:
        """A relay, and what is behind it."""
        return self.root / "branch"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.root / "server.log"

    @property
    def ca(self) -> Path:
        """The authority that signed the server's certificate."""
        return self.server / "keys" / "ca.pem"

    def renew(self) -> None:
        """Make everything afresh. Raises DemoFailed rather than remove what no demo made, or what one still uses."""
        if self.root.exists() and any(self.root.iterdir()):
            if not (self.root / MARKER).exists():
                raise DemoFailed(f"{self.root} was not made by the demo: move it away, or name another --dir.")
            if _is_locked(self.server / "serve.lock"):
                raise DemoFailed(f"A server still runs on {self.root}: stop it (Ctrl-C there), or name another --dir.")
            shutil.rmtree(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / MARKER).write_text("Everything here is made, and removed, by `make demo`.\n")
        self.machine.mkdir()


def _is_locked(lock: Path) -> bool:
    import fcntl  # with the one call that needs it

    try:
        with lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything about the files below: kind, mode, owner, times, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([directory, *directory.rglob("*")]):
        seen = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        about = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, content)
        found[str(path.relative_to(directory))] = about
    return found


def tied(command: list[str]) -> list[str]:
    """The command line of `command` as a process that ends with this one."""
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def free_port(wanted: int) -> int:
    """`wanted` where nobody listens at it on loopback, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                asking.bind(("127.0.0.1", port))
                return int(asking.getsockname()[1])
    raise DemoFailed("There is no free port on 127.0.0.1.")


def clean_environment() -> dict[str, str]:
    """The environment of this process without settings meant for another server or agent."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}


@contextlib.contextmanager
def serving(places: Places, port: int) -> Iterator[str]:
    """`quarterdeckd serve` on loopback for the length of the block; its URL, once it answers."""
    url = f"https://127.0.0.1:{port}"
    # The demo's nodes have their key there.
    places.server.mkdir(mode=0o711, exist_ok=True)
    settings = f"[projects]\nallowed_paths = [{json.dumps(str(places.nodes))}]\n"
    (places.server / "quarterdeck.toml").write_text(settings)
    options = ["--data-dir", str(places.server), "--listen", f"127.0.0.1:{port}", "--public-url", url]
    command = tied([sys.executable, "-m", "quarterdeck.daemon.main", "serve", *options])
    with places.log.open("wb") as log:
        # A session of its own: Ctrl-C is the demo's to handle, which then ends the server in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), start_new_session=True
        )
    try:
        _await_answer(process, places, url)
        yield url
        if process.poll() is not None:
            raise DemoFailed(f"The server ended on its own (status {process.returncode}); see {places.log}.")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_answer(process: subprocess.Popen[bytes], places: Places, url: str) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            raise DemoFailed(f"The server did not start: {places.log.read_text().strip().splitlines()[-1]}")
        # It prints its banner once it answers, and the banner has the line that enrols.
        return bool(enrolment_line(places))

    eventually(answers, f"The server at {url} did not answer; see {places.log}.", FIRST_ANSWER_SECONDS)


def enrolment_line(places: Places) -> str:
    """The line that the server printed to enrol a machine; empty while there is none."""
    lines = places.log.read_text().splitlines()
    return next((line for line in lines if " enroll " in line and line.startswith("(")), "")


def eventually(condition: Callable[[], bool], otherwise: str, seconds: float = WORK_SECONDS) -> None:
    """Wait until `condition` holds. Raises DemoFailed with `otherwise` when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise DemoFailed(otherwise)
        time.sleep(0.1)


@dataclass
class Api:
    """The server's APIs as any program sees them: over HTTPS, with a token."""

    client: httpx.Client

    def rudder(self, method: str, path: str, body: Any = None) -> Any:
        """The data of an answer of the Rudder API. Raises DemoFailed with the server's own words."""
        return self._call(method, f"/rudder/api/latest{path}", body)["data"]

    def native(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the native API. Raises DemoFailed with the server's own words."""
        return self._call(method, f"/quarterdeck/api/1{path}", body)

    def rundeck(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        content: str | None = None,
        content_type: str = "",
    ) -> etree._Element:
        """The result of an answer of the RunDeck API. Raises DemoFailed with the server's own words."""
        headers = {"Content-Type": content_type} if content_type else {}
        url = f"/api/1{path}"
        try:
            answer = self.client.request(method, url, params=query, data=form, content=content, headers=headers)
            result = etree.fromstring(answer.content)
        except (httpx.HTTPError, etree.XMLSyntaxError) as error:
            raise DemoFailed(f"{method} {url}: no answer that can be read ({error}).") from error
        if result.get("success") != "true":
            told = "; ".join(message.text or "" for message in result.iter("message"))
            raise DemoFailed(f"{method} {url}: {told}")
        return result

    def follow(self, path: str) -> Iterator[Any]:
        """The events of a stream of the native API, as they come. Raises DemoFailed."""
        url = f"/quarterdeck/api/1{path}"
        try:
            with self.client.stream("GET", url, timeout=WORK_SECONDS) as answer:
                if not answer.is_success:
                    raise DemoFailed(f"GET {url}: status {answer.status_code}")
                for line in answer.iter_lines():
                    yield json.loads(line)
        except httpx.HTTPError as error:
            raise DemoFailed(f"GET {url}: the stream broke ({error}).") from error

    def _call(self, method: str, path: str, body: Any) -> Any:
        try:
            answer = self.client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise DemoFailed(f"{method} {path}: the server does not answer ({error}).") from error
        if not answer.is_success:
            raise DemoFailed(f"{method} {path}: status {answer.status_code}: {answer.text[:500]}")
        return answer.json()


@contextlib.contextmanager
def api(places: Places, url: str) -> Iterator[Api]:
    """The APIs with the first admin token, trusting the server's own authority and nothing else."""
    import ssl  # with the one call that needs it

    token = (places.server / "admin-token").read_text().strip()
    trusting = ssl.create_default_context(cafile=str(places.ca))
    headers = {"X-API-Token": token}
    with httpx.Client(base_url=url, headers=headers, verify=trusting, timeout=30, trust_env=False) as client:
        yield Api(client)
