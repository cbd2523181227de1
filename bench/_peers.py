# SPDX-License-Identifier: Apache-2.0
"""Other ways to run a command on many nodes over SSH, each as somebody who knows it would use it.

Each lives in a virtual environment of its own below $XDG_CACHE_HOME/quarterdeck-bench, made when it is first needed.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench._processes import Ran, run
from bench._sshd import Fleet

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-bench"

#: What is installed, in this order; `--no-deps` where a package asks for old versions of what it uses.
_PACKAGES = {
    "ansible": (["ansible-core"],),
    "parallel-ssh": (["parallel-ssh"],),
    "fabric": (["fabric"],),
    "nornir": (["nornir", "paramiko"], ["--no-deps", "nornir-paramiko"]),
    "pyinfra": (["pyinfra"],),
}

_ASYNCSSH = """
import asyncio, json, sys
import asyncssh
facts = json.loads(sys.argv[1])
async def main():
    options = asyncssh.SSHClientConnectionOptions(
        username=facts["user"], port=facts["port"], client_keys=[asyncssh.read_private_key(facts["key"])],
        agent_path=None, config=None, compression_algs=None, preferred_auth="publickey",
        known_hosts=asyncssh.read_known_hosts(facts["known_hosts"]))
    gate = asyncio.Semaphore(facts["at_once"])
    async def one(host):
        async with gate, asyncssh.connect(host, options=options) as connection:
            done = await connection.run(facts["command"], input=facts.get("stdin"), check=True)
            print(done.stdout, end="")
    await asyncio.gather(*map(one, facts["hosts"]))
asyncio.run(main())
"""
_PARALLEL_SSH = """
import json, sys
from pssh.clients import ParallelSSHClient
facts = json.loads(sys.argv[1])
client = ParallelSSHClient(facts["hosts"], user=facts["user"], port=facts["port"], pkey=facts["key"],
                           pool_size=facts["at_once"], allow_agent=False)
outputs = client.run_command(facts["command"])
client.join(outputs)
for output in outputs:
    for line in output.stdout:
        print(line)
"""
_FABRIC = """
import base64, json, sys
from concurrent.futures import ThreadPoolExecutor
import paramiko
from fabric import Connection
facts = json.loads(sys.argv[1])
key = paramiko.Ed25519Key.from_private_key_file(facts["key"])
kind, encoded = facts["host_key"].split()
shown = paramiko.PKey.from_type_string(kind, base64.b64decode(encoded))
def one(host):
    options = dict(pkey=key, allow_agent=False, look_for_keys=False)
    with Connection(host, user=facts["user"], port=facts["port"], connect_kwargs=options) as connection:
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        connection.client.get_host_keys().add(f"[{host}]:{facts['port']}", shown.get_name(), shown)
        return connection.run(facts["command"], hide=True, in_stream=False).stdout
with ThreadPoolExecutor(facts["at_once"]) as pool:
    for output in pool.map(one, facts["hosts"]):
        print(output, end="")
"""
_NORNIR = """
import json, sys
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.inventory import ConnectionOptions, Defaults, Groups, Host, Hosts, Inventory
from nornir.core.plugins.connections import ConnectionPluginRegister
from nornir.core.state import GlobalState
from nornir.plugins.runners import ThreadedRunner
from nornir_paramiko.plugins.tasks import paramiko_command
facts = json.loads(sys.argv[1])
ConnectionPluginRegister.auto_register()
extras = {"key_filename": facts["key"], "allow_agent": False, "look_for_keys": False}
hosts = Hosts({
    host: Host(name=host, hostname=host, port=facts["port"], username=facts["user"],
               connection_options={"paramiko": ConnectionOptions(extras=dict(extras))})
    for host in facts["hosts"]
})
nornir = Nornir(inventory=Inventory(hosts, Groups(), Defaults()), runner=ThreadedRunner(num_workers=facts["at_once"]),
                data=GlobalState(), config=Config())
for result in nornir.run(task=paramiko_command, command=facts["command"]).values():
    print(str(result[0].result).strip())
nornir.close_connections()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What all peers do: `command` on every node of the fleet, so many at once."""

    fleet: Fleet
    command: str
    at_once: int

    def facts(self, **more: object) -> str:
        """For programs of this file."""
        fleet = self.fleet
        known = {"user": fleet.user, "port": fleet.port, "key": str(fleet.key), "hosts": fleet.hosts}
        known |= {"known_hosts": str(fleet.known_hosts), "host_key": fleet.host_key}
        return json.dumps({**known, "command": self.command, "at_once": self.at_once, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way. `command` makes its command line from the load and a scratch directory."""

    name: str
    package: str = ""
    command: Callable[[Load, Path], list[str]]
    environment: Callable[[Load, Path], Mapping[str, str]] | None = None

    def run(self, load: Load, scratch: Path, *, seconds: float = 300, watch_memory: bool = False) -> Ran:
        """Do it once."""
        more = self.environment(load, scratch) if self.environment is not None else {}
        environment = {"PYTHONWARNINGS": "ignore", **more}
        command = self.command(load, scratch)
        return run(command, scratch, environment=environment, seconds=seconds, watch_memory=watch_memory)


@functools.cache
def installed(package: str) -> Path | None:
    """The `bin` directory of a peer's environment, which is made when it is not there; None when it cannot be."""
    home = CACHE / package
    if (home / "ready").exists():
        return home / "bin"
    print(f"installing {package} into {home}", file=sys.stderr, flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, capture_output=True)
        for some in _PACKAGES[package]:
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *some], check=True, capture_output=True, timeout=600)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        told = getattr(error, "stderr", None) or b""
        print(f"{package} cannot be installed: {error} {told.decode(errors='replace')[-500:]}", file=sys.stderr)
        return None
    (home / "ready").touch()
    return home / "bin"


def version(package: str) -> str:
    """The installed version of a peer."""
    name = _PACKAGES[package][0][0]
    asking = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run(
        [str(CACHE / package / "bin" / "python"), "-c", asking], capture_output=True, text=True, check=True
    ).stdout.strip()


def all_peers() -> Iterator[Peer]:
    """Those that are here or can be installed; the others are told of."""
    for peer in _PEERS:
        if peer.package and installed(peer.package) is None:
            continue
        if not peer.package and peer.name.startswith("OpenSSH") and shutil.which("ssh") is None:
            print("There is no OpenSSH client.", file=sys.stderr)
            continue
        yield peer


def _program(package: str, source: str) -> Callable[[Load, Path], list[str]]:
    def command(load: Load, scratch: Path) -> list[str]:
        directory = installed(package) if package else Path(sys.executable).parent
        return [str((directory or Path()) / "python"), "-c", source, load.facts()]

    return command


def _openssh(load: Load, scratch: Path) -> list[str]:
    fleet = load.fleet.directory
    ssh = ["ssh", "-F", str(fleet / "ssh_config"), "%", load.command]
    return ["xargs", "-a", str(fleet / "hosts"), "-P", str(load.at_once), "-I%", *ssh]


def _ansible(module: str) -> Callable[[Load, Path], list[str]]:
    def command(load: Load, scratch: Path) -> list[str]:
        program = str((installed("ansible") or Path()) / "ansible")
        inventory = scratch / "inventory"
        inventory.write_text("\n".join(["[all]", *load.fleet.hosts, ""]))
        return [program, "all", "-i", str(inventory), "-f", str(load.at_once), "-m", module, "-a", load.command]

    return command


def _ansible_settings(*, tuned: bool) -> Callable[[Load, Path], Mapping[str, str]]:
    def environment(load: Load, scratch: Path) -> Mapping[str, str]:
        fleet = load.fleet
        settings = ["[defaults]", "host_key_checking = True", f"remote_user = {fleet.user}"]
        settings += [f"remote_port = {fleet.port}", f"private_key_file = {fleet.key}"]
        settings += [f"remote_tmp = {fleet.directory}/home/.ansible", f"local_tmp = {scratch}/local"]
        if tuned:
            settings += ["interpreter_python = /usr/bin/python3"]
        settings += ["[ssh_connection]", f"control_path_dir = {scratch}/control"]
        settings += [f"ssh_common_args = -F {fleet.directory}/ssh_config"]
        if tuned:
            settings += ["pipelining = True", "ssh_args = -o ControlMaster=no"]
        file = scratch / "ansible.cfg"
        file.write_text("\n".join([*settings, ""]))
        return {"ANSIBLE_CONFIG": str(file), "ANSIBLE_HOME": str(scratch / "ansible")}

    return environment


def _pyinfra(load: Load, scratch: Path) -> list[str]:
    fleet = load.fleet
    inventory = scratch / "inventory.py"
    data = {"ssh_user": fleet.user, "ssh_port": fleet.port, "ssh_key": str(fleet.key)}
    data |= {"ssh_known_hosts_file": str(fleet.known_hosts), "ssh_strict_host_key_checking": "yes"}
    inventory.write_text(f"nodes = ({fleet.hosts!r}, {data!r})\n")
    program = str((installed("pyinfra") or Path()) / "pyinfra")
    return [program, "-y", "--parallel", str(load.at_once), str(inventory), "exec", "--", *load.command.split()]


_PEERS = (
    Peer(name="OpenSSH, xargs -P", command=_openssh),
    Peer(name="asyncssh alone", command=_program("", _ASYNCSSH)),
    Peer(name="parallel-ssh", package="parallel-ssh", command=_program("parallel-ssh", _PARALLEL_SSH)),
    Peer(name="fabric", package="fabric", command=_program("fabric", _FABRIC)),
    Peer(name="nornir", package="nornir", command=_program("nornir", _NORNIR)),
    Peer(name="pyinfra", package="pyinfra", command=_pyinfra),
    Peer(
        name="ansible raw",
        package="ansible",
        command=_ansible("raw"),
        environment=_ansible_settings(tuned=False),
    ),
    Peer(
        name="ansible raw, tuned",
        package="ansible",
        command=_ansible("raw"),
        environment=_ansible_settings(tuned=True),
    ),
    Peer(
        name="ansible command",
        package="ansible",
        command=_ansible("command"),
        environment=_ansible_settings(tuned=False),
    ),
    Peer(
        name="ansible command, tuned",
        package="ansible",
        command=_ansible("command"),
        environment=_ansible_settings(tuned=True),
    ),
)


@contextmanager
def control_masters(load: Load, scratch: Path) -> Iterator[Peer]:
    """An OpenSSH master process for each node, for the length of the block, and the way over them."""
    config, sockets = str(load.fleet.directory / "ssh_config"), scratch / "masters"
    sockets.mkdir(exist_ok=True)
    masters: list[subprocess.Popen[bytes]] = []
    try:
        for host in load.fleet.hosts:
            argv = ["ssh", "-F", config, "-M", "-N", "-S", str(sockets / host), host]
            nowhere = subprocess.DEVNULL
            masters.append(subprocess.Popen(argv, stdin=nowhere, stdout=nowhere, stderr=nowhere))
            if len(masters) % 20 == 0:
                _await_sockets(sockets, len(masters))
        _await_sockets(sockets, len(masters))
        hosts = str(load.fleet.directory / "hosts")

        def command(load: Load, scratch: Path) -> list[str]:
            ssh = ["ssh", "-F", config, "-S", f"{sockets}/%", "%", load.command]
            return ["xargs", "-a", hosts, "-P", str(load.at_once), "-I%", *ssh]

        yield Peer(name="OpenSSH, ssh -S on masters", command=command)
    finally:
        for master in masters:
            master.terminate()
        for master in masters:
            master.wait()


def _await_sockets(directory: Path, count: int) -> None:
    for _ in range(600):
        if len(list(directory.iterdir())) >= count:
            return
        time.sleep(0.05)
    raise SystemExit("Masters of OpenSSH do not connect.")
