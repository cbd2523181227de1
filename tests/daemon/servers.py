# SPDX-License-Identifier: Apache-2.0
"""A real `quarterdeckd` in its own processes, for tests: started, asked, killed, and looked after."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.daemon import commands

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "quarterdeck.daemon.main"]


def environment() -> dict[str, str]:
    """This process's environment without settings of its own, and with the sources on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


def quarterdeckd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the daemon to its end, in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, check=False, env=environment(), timeout=90
    )


def here(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command of the daemon in this process, which spares the loading of its modules."""
    said, complained, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(text)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            commands.run(arguments)
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 0
    finally:
        sys.stdin = before
    return subprocess.CompletedProcess(["quarterdeckd", *arguments], status, said.getvalue(), complained.getvalue())


def free_port() -> int:
    """A port of the loopback that nobody listens at now."""
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


def eventually(condition: Callable[[], bool], seconds: float = 50.0) -> bool:
    """True as soon as `condition` holds, False when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it; `born` tells it from a later one of the same number."""

    pid: int
    parent: int
    born: str
    command: str

    def ended(self) -> bool:
        """Whether it is gone, or dead and only waiting for its parent to notice."""
        found = _look_at(self.pid)
        return found is None or found.born != self.born


def _look_at(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else Process(pid, int(fields[1]), fields[19], command)


def family(pid: int) -> list[Process]:
    """A process and everything below it."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    everything = [process for number in numbers if (process := _look_at(number))]
    members = [process for process in everything if process.pid == pid]
    for member in members:  # grows while it is walked
        members.extend(process for process in everything if process.parent == member.pid)
    return members


class Server:
    """One `quarterdeckd serve`."""

    def __init__(self, data_dir: Path, *arguments: str, port: int = 0, host: str = "127.0.0.1") -> None:
        """Asked on the loopback, wherever else it listens."""
        self.data_dir = data_dir
        self.port = port or free_port()
        self.log = data_dir.parent / f"{data_dir.name}.log"
        command = [*PROGRAM, "serve", "--data-dir", str(data_dir), "--listen", f"{host}:{self.port}", *arguments]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def status(self, path: str = "/") -> int | None:
        """The status of an answer over verified TLS; None while nobody answers."""
        try:
            trusting = ssl.create_default_context(cafile=str(self.data_dir / "keys" / "ca.pem"))
            with urllib.request.urlopen(f"https://127.0.0.1:{self.port}{path}", timeout=5, context=trusting) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    def wait(self) -> None:
        """Until it answers: it, and not what is left of one before it that was killed."""
        answers = eventually(lambda: self.process.poll() is not None or (self.listens() and self.status() is not None))
        assert answers, self.log.read_text()
        assert self.process.poll() is None, self.log.read_text()

    def listens(self) -> bool:
        """Whether the port is its own: it starts what answers there only then."""
        return any("api-process" in process.command for process in self.processes())

    def processes(self) -> list[Process]:
        """Its supervisor and everything below it."""
        return family(self.process.pid)

    def one(self, part: str) -> Process:
        """Its only process whose command contains `part`."""
        (found,) = [process for process in self.processes() if part in process.command]
        return found

    def postgres(self) -> Process | None:
        """Its postmaster, when there is one."""
        try:
            first, _, _ = (self.data_dir / "pg" / "18" / "postmaster.pid").read_text().partition("\n")
        except FileNotFoundError:
            return None
        return _look_at(int(first))

    def end(self) -> int:
        """Stop it as an administrator does; the answer is its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def launched(data_dir: Path) -> Iterator[Server]:
    """A server that may not answer yet and that the test kills; killed afterwards in any case."""
    server = Server(data_dir)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@contextlib.contextmanager
def serving(data_dir: Path, *arguments: str, port: int = 0) -> Iterator[Server]:
    """A server that answers, ended afterwards."""
    server = Server(data_dir, *arguments, port=port)
    try:
        server.wait()
        yield server
    finally:
        server.end()
