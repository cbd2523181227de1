# SPDX-License-Identifier: Apache-2.0
"""Real OpenSSH servers on loopback addresses for tests, each with its own host key; started and ended by pid.

    sshd    session  one server that listens on every 127.x.y.z at one port: a fleet of as many nodes as a test wants
    sshds   test     a function that starts further ones, for tests that change or kill theirs: `sshds(address=…)`

Tests log in as the user that runs them. `make test` installs openssh-server where that is possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quarterdeck.core.connections import Address, Connection, Hop
from quarterdeck.engine.ssh import Access
from quarterdeck.engine.transports import Stream

USER = getpass.getuser()

# HOME: bash under sshd reads the .bashrc of whoever runs the tests, and that may cost more than all else.
_CONFIG = """\
ListenAddress {listen}:{port}
HostKey {directory}/host
PidFile {directory}/pid
AuthorizedKeysFile {directory}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
AcceptEnv RD_* LANG LC_*
SetEnv HOME={directory}
MaxStartups 200:30:400
LogLevel VERBOSE
"""


def generate_key(path: Path, *, kind: str = "ed25519", passphrase: str = "", form: str = "RFC4716") -> str:
    """Make a key pair; the public key without its comment. Forms: ssh-keygen's -m."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-m", form, "-C", "", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text().strip()


@dataclass(slots=True)
class Sshd:
    """A server. `key` is the private key that it lets in, `host_key` the public key that it shows."""

    directory: Path
    address: Address
    extra: str = ""
    listen: str = ""
    process: subprocess.Popen[bytes] | None = None
    key: Path = field(init=False)
    host_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.directory / "user"
        public = generate_key(self.key)
        (self.directory / "authorized_keys").write_text(public + "\n")
        self.host_key = generate_key(self.directory / "host")

    def allow(self, public_key: str) -> None:
        """Let one more key in."""
        with (self.directory / "authorized_keys").open("a") as keys:
            keys.write(public_key + "\n")

    def start(self) -> None:
        """Start it, and wait until it listens."""
        listen = self.listen or self.address.host
        config = _CONFIG.format(listen=listen, port=self.address.port, directory=self.directory)
        said = {line.partition(" ")[0] for line in self.extra.splitlines()}
        lines = [line for line in config.splitlines() if line.partition(" ")[0] not in said]
        (self.directory / "config").write_text("\n".join([*lines, self.extra, ""]))
        log = (self.directory / "log").open("ab")
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert program is not None, "openssh-server is missing: run tools/system-packages openssh-server"
        with contextlib.suppress(PermissionError):
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd wants to be locked up
        argv = [program, "-D", "-e", "-f", str(self.directory / "config")]
        with log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while not self._listens():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address.host, self.address.port)) == 0

    def sessions(self) -> list[int]:
        """The processes of its connections."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill_sessions(self) -> None:
        """End its connections, as when a machine loses its power; their commands are left alone."""
        self._signal_sessions(signal.SIGKILL)

    def freeze_sessions(self) -> None:
        """Let its connections stay open and say nothing more, as when a cable is cut."""
        self._signal_sessions(signal.SIGSTOP)

    def _signal_sessions(self, number: signal.Signals) -> None:
        for pid in self.sessions():
            for process in (*_children(pid), pid):
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    if "sshd" in Path(f"/proc/{process}/comm").read_text():
                        os.kill(process, number)

    def stop(self) -> None:
        """End it and its connections."""
        if self.process is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self.kill_sessions()
        self.process.terminate()
        self.process.wait(10)
        self.process = None

    def change_host_key(self) -> str:
        """Show another key from now on; returns it."""
        self.stop()
        for name in ("host", "host.pub"):
            (self.directory / name).unlink()
        self.host_key = generate_key(self.directory / "host")
        self.start()
        return self.host_key

    def log(self) -> str:
        """What it has told so far."""
        return (self.directory / "log").read_text(errors="replace")

    def at(self, host: str) -> Address:
        """Another of the addresses at which it listens."""
        return Address(host, self.address.port)

    def connection(self, host: str = "", **changes: object) -> Connection:
        """How to reach it."""
        hop = Hop(self.at(host) if host else self.address, USER)
        values: dict[str, object] = {"node": host or "node", "project": "P", "hop": hop, "key_path": str(self.key)}
        return Connection(**{**values, **changes})  # type: ignore[arg-type]  # the caller names fields

    def access(self, host: str = "", *, trusted: bool = True, **changes: object) -> Access:
        """With what to reach it; its host key is approved unless said otherwise."""
        connection = self.connection(host, **changes)
        return Access(connection=connection, trusted={connection.hop.address: (self.host_key,)} if trusted else {})


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def runs(pid: int) -> bool:
    """Whether there is such a process, dead ones that nobody has asked for aside."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"), Address("127.0.0.1", free_port()), listen="0.0.0.0")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sshds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sshd]]:
    """Start a server: `sshds("127.0.7.1", extra="MaxSessions 1")`."""
    started: list[Sshd] = []

    def start(host: str = "127.0.0.1", *, extra: str = "", listen: str = "") -> Sshd:
        server = Sshd(tmp_path_factory.mktemp("sshd"), Address(host, free_port()), extra=extra, listen=listen)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.stdout = self.stderr = b""
        self.came = asyncio.Event()

    def write(self, stream: Stream, data: bytes) -> bool:
        if stream == "stdout":
            self.stdout += data
        else:
            self.stderr += data
        self.came.set()
        return True

    async def ready(self) -> None:
        raise AssertionError("never asked to wait")
