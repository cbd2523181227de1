# SPDX-License-Identifier: Apache-2.0
"""Many nodes on one machine: an own sshd that listens at all of 127.0.0.0/8, and what its clients need to know.

It speaks one key exchange, cipher and host key type, so that all clients do the same work; it takes any number of
connections at once (MaxStartups) and ten sessions on each, as OpenSSH does by default.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench._processes import Account, accounted, children
from tools.demo_world import tied

KEY_EXCHANGE = "curve25519-sha256"
CIPHER = "aes128-gcm@openssh.com"
HOST_KEY = "ssh-ed25519"
ROOT = Path(__file__).resolve().parent.parent

# Paramiko knows the key exchange by its older name only.
# HOME: a shell under sshd reads the .bashrc of whoever runs this, which may cost more than all else.
_SSHD = f"""\
ListenAddress 0.0.0.0:{{port}}
HostKey {{directory}}/host_key
PidFile {{directory}}/pid
AuthorizedKeysFile {{directory}}/key.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv RD_* LANG LC_*
SetEnv HOME={{directory}}/home
MaxStartups 2000
KexAlgorithms {KEY_EXCHANGE},{KEY_EXCHANGE}@libssh.org
Ciphers {CIPHER}
HostKeyAlgorithms {HOST_KEY}
Subsystem sftp internal-sftp
LogLevel ERROR
"""
_CLIENT = """\
Host *
  User {user}
  Port {port}
  IdentityFile {directory}/key
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
"""


@dataclass(slots=True)
class Fleet:
    """The nodes. All files lie in `directory`: key, known_hosts, hosts, ssh_config."""

    directory: Path
    port: int
    user: str
    hosts: list[str]
    pid: int = 0
    account: Account | None = None

    @property
    def key(self) -> Path:
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def host_key(self) -> str:
        """The public key that every node shows."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    def write_known_hosts(self, path: Path, others: int = 0) -> None:
        """The keys of all nodes, after those of so many other hosts."""
        key = self.host_key
        names = [*(f"node{number}.example.com" for number in range(others)), *self.hosts]
        path.write_text("".join(f"[{name}]:{self.port} {key}\n" for name in names))

    def document(self) -> str:
        """The nodes as a resource document."""
        return "".join(f"{host}: {{hostname: '{host}:{self.port}', tags: fleet}}\n" for host in self.hosts)

    def cpu_seconds(self) -> float:
        """What sshd and the commands on all nodes have used."""
        assert self.account is not None
        return self.account.seconds()

    def hang_up(self) -> None:
        """Close all connections from the side of the nodes, and wait until that is done."""
        end = time.monotonic() + 20
        while sessions := children(self.pid):
            if time.monotonic() > end:
                raise SystemExit("Connections of sshd do not end.")
            for pid in sessions:
                for each in children(pid) or [pid]:  # the inner one first: the outer one counts its time
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGTERM)
            time.sleep(0.05)

    def settle(self) -> None:
        """Wait until no client is connected any more, so that everything has been counted."""
        end = time.monotonic() + 20
        while children(self.pid) and time.monotonic() < end:
            time.sleep(0.01)


@contextlib.contextmanager
def fleet(scratch: Path, nodes: int, *, user: str = "") -> Iterator[Fleet]:
    """So many nodes, for the length of the block. They let in `user`, without one a user made for this."""
    directory = scratch / "fleet"
    home = directory / "home"
    home.mkdir(parents=True)
    directory.chmod(0o755)
    home.chmod(0o777)
    with contextlib.ExitStack() as stack:
        name = user or stack.enter_context(_some_user(home))
        yield stack.enter_context(_fleet(directory, nodes, name))


@contextlib.contextmanager
def _some_user(home: Path) -> Iterator[str]:
    """A user for the length of the block; who runs this, when that is not root: only root may make users.

    Root himself would not do: sshd separates others' sessions from its rights by a process more.
    """
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        yield getpass.getuser()
        return
    name = f"qdbench{os.getpid()}"
    argv = ["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/bash", "--password", "*", name]
    subprocess.run(argv, check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@contextlib.contextmanager
def _fleet(directory: Path, nodes: int, user: str) -> Iterator[Fleet]:
    program = _sshd()
    for name in ("key", "host_key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(directory / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    hosts = [f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}" for number in range(nodes)]
    made = Fleet(directory, _free_port(), user, hosts)
    (directory / "sshd_config").write_text(_SSHD.format(port=made.port, directory=directory))
    (directory / "ssh_config").write_text(_CLIENT.format(port=made.port, directory=directory, user=made.user))
    (directory / "hosts").write_text("".join(f"{host}\n" for host in hosts))
    made.write_known_hosts(made.known_hosts)
    with contextlib.suppress(PermissionError):
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks up what it does not trust yet
    with (directory / "sshd.log").open("wb") as log:
        argv = tied([program, "-D", "-e", "-f", str(directory / "sshd_config")])
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    made.pid = process.pid
    try:
        with accounted(process.pid) as made.account:
            _await(made, process)
            yield made
            _end(made, process)
    finally:
        _end(made, process)


def _end(made: Fleet, process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        made.hang_up()
        process.terminate()
        process.wait(20)


def _sshd() -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    if shutil.which("sshd", path=path) is None:
        subprocess.run([str(ROOT / "tools" / "system-packages"), "openssh-server"], check=True)
    program = shutil.which("sshd", path=path)
    if program is None:
        raise SystemExit("There is no sshd: install openssh-server.")
    return program


def _await(made: Fleet, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((made.hosts[0], made.port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit((made.directory / "sshd.log").read_text())


def _free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])
