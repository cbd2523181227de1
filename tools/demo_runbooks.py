# SPDX-License-Identifier: Apache-2.0
"""The demo's scene of runbook automation: three nodes over SSH, an imported job with an option, one node that fails.

The nodes are real OpenSSH servers on loopback addresses, each with its own directory as home; they let in one key that
the demo makes, and end with it. What the job did is looked up in the file system.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.demo_world import Api, DemoFailed, clean_environment, eventually, free_port, tied

PROJECT = "demo"
VERSION = "1.4.2"
#: Name -> loopback address; the last one is not ready for the job.
NODES = {"web1": "127.0.0.11", "web2": "127.0.0.12", "web3": "127.0.0.13"}
FAILING = "web3"

JOB = f"""\
- name: deploy
  group: web
  description: Bring a version of the application to every web server
  project: {PROJECT}
  loglevel: INFO
  options:
    version:
      description: Which version
      required: true
      regex: '[0-9]+(\\.[0-9]+)*'
  nodefilters:
    dispatch:
      threadcount: 3
      keepgoing: true
    include:
      tags: web
  sequence:
    keepgoing: false
    strategy: node-first
    commands:
      - exec: test -f ${{node.home}}/ready || {{ echo "not ready"; exit 4; }}
      - script: |
          #!/bin/sh
          echo "deploying @option.version@ to @node.name@"
          echo "$RD_OPTION_VERSION" > @node.home@/version
      - exec: echo "${{node.name}} runs version $(cat ${{node.home}}/version), thanks to ${{job.username}}"
"""

_SSHD = """\
ListenAddress {address}:{port}
HostKey {home}/host_key
PidFile {home}/sshd.pid
AuthorizedKeysFile {key}.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
AcceptEnv RD_*
SetEnv HOME={home}
LogLevel ERROR
"""
_PROGRAMS = ("sshd", "ssh-keygen")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def missing_programs() -> list[str]:
    """What this scene needs and this machine has not."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


@dataclass(frozen=True)
class Fleet:
    """Three nodes that take commands over SSH. `key` is the private key that they let in."""

    root: Path
    key: Path
    port: int

    def home(self, node: str) -> Path:
        """The directory in which a node's commands begin."""
        return self.root / node

    def document(self) -> str:
        """The nodes as a resource document."""
        lines = []
        for node, address in NODES.items():
            lines += [
                f"{node}:",
                f"  hostname: {address}:{self.port}",
                f"  username: {getpass.getuser()}",
                "  tags: web",
                "  osFamily: unix",
                f"  home: {self.home(node)}",
                f"  file-copy-destination-dir: {self.home(node)}",
            ]
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def fleet(root: Path) -> Iterator[Fleet]:
    """The nodes, for the length of the block."""
    root.mkdir(mode=0o711)
    key = root / "key"
    _make_key(key)
    made = Fleet(root, key, free_port(0))
    with contextlib.suppress(PermissionError):
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks up what it does not trust yet
    with contextlib.ExitStack() as stack:
        for node, address in NODES.items():
            stack.enter_context(_node(made, node, address))
        yield made


@contextlib.contextmanager
def _node(made: Fleet, node: str, address: str) -> Iterator[None]:
    home = made.home(node)
    home.mkdir()
    if node != FAILING:
        (home / "ready").touch()
    _make_key(home / "host_key")
    config = home / "sshd_config"
    config.write_text(_SSHD.format(address=address, port=made.port, home=home, key=made.key))
    program = shutil.which("sshd", path=_PATH)
    assert program is not None
    with (home / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            tied([program, "-D", "-e", "-f", str(config)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=clean_environment(),
        )
    try:
        eventually(
            lambda: _listens(address, made.port), f"The SSH server of {node} does not answer; see {log.name}.", 20
        )
        yield
    finally:
        process.terminate()
        process.wait()


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


# -- what the scene asks of the server ----------------------------------------------------------------------------


def make_project(api: Api, made: Fleet) -> None:
    """A project with these nodes, and the job."""
    properties = {"project.ssh-keypath": str(made.key)}
    api.native("PUT", "/projects", {"name": PROJECT, "description": "The demo's", "properties": properties})
    api.rundeck("POST", f"/project/{PROJECT}/resources", content=made.document(), content_type="text/yaml")


def import_job(api: Api) -> str:
    """The id of the imported job."""
    answer = api.rundeck("POST", "/jobs/import", form={"xmlBatch": JOB, "format": "yaml", "dupeOption": "update"})
    found = answer.find("succeeded/job/id")
    if found is None or not found.text:
        raise DemoFailed("The job could not be imported.")
    return found.text


def run_job(api: Api, job: str) -> str:
    """Start the job; the id of its execution."""
    answer = api.rundeck("GET", f"/job/{job}/run", query={"argString": f"-version {VERSION}"})
    (execution,) = answer.findall("executions/execution")
    return str(execution.get("id"))


def follow(api: Api, execution: str) -> Iterator[dict[str, Any]]:
    """Lines of the execution's output as they come, each with its node and level, until it ends."""
    for event in api.follow(f"/executions/{execution}/follow"):
        if event["type"] == "output":
            yield event


def verify(api: Api, made: Fleet, execution: str) -> list[str]:
    """What became of it, as proven by the nodes' files and the history; lines to print. Raises DemoFailed."""
    for node in NODES:
        path = made.home(node) / "version"
        wanted = None if node == FAILING else VERSION
        is_there = path.read_text().strip() if path.exists() else None
        if is_there != wanted:
            raise DemoFailed(f"{node} has version {is_there} and not {wanted}.")
        if left := list(made.home(node).glob(".quarterdeck-*")):
            raise DemoFailed(f"A script was left behind: {left[0]}")
    answer = api.rundeck("GET", "/history", query={"project": PROJECT})
    event = next(
        one
        for one in answer.findall("events/event")
        if (found := one.find("execution")) is not None and found.get("id") == execution
    )
    summary = event.find("node-summary")
    told = event.findtext("status"), summary.get("succeeded"), summary.get("failed")  # type: ignore[union-attr]  # checked by what follows
    if told != ("failed", "2", "1"):
        raise DemoFailed(f"The history tells {told}.")
    title, user = event.findtext("title"), event.findtext("user")
    return [f"history: {title} by {user}: [red]failed[/red], 2 nodes succeeded, 1 failed ({FAILING} is not ready)"]
