# SPDX-License-Identifier: Apache-2.0
"""How a node of a project is reached: what its attributes, its project and the server's settings say together.

Opening a connection is `engine/ssh.py`'s, asking agents `engine/agents.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource

#: What happens to the key of a host that nobody has approved: it is kept and trusted from then on, or refused until
#: somebody approves it. A key that differs from the one that is kept is refused either way.
HostKeyPolicy = Literal["first-use", "approve"]


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (name or address, no brackets) and its port."""

    host: str
    port: int = 22

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 22 else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Hop:
    """One machine on the way, and as whom."""

    address: Address
    username: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the server's settings say where neither the node nor its project does; times in seconds, 0 is no limit."""

    username: str = ""
    key_path: str = ""
    connect_seconds: float = 30.0
    host_keys: HostKeyPolicy = "first-use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Everything that decides how a node is reached. Secrets are named here, not held."""

    node: str
    project: str
    hop: Hop
    #: hosts to pass through, in this order
    jumps: tuple[Hop, ...] = ()
    key_path: str = ""
    key_secret: str = ""  #: name of the secret that holds the private key itself; comes before a path
    passphrase_secret: str = ""  #: name of the secret that opens the private key
    agent: bool = False  #: offer the keys of the server's own SSH agent
    connect_seconds: float = 30.0
    run_seconds: float = 0.0
    copy_directory: str = "/tmp"  # noqa: S108  # where the peer puts scripts on nodes
    host_keys: HostKeyPolicy = "first-use"


def connection(resource: Resource, project: Project, defaults: Defaults) -> Connection:
    """How to reach the resource: its own attributes first, then `project.NAME`, then the defaults. Raises Invalid."""
    get = _Getter(resource.attributes, project)
    user, address = _hop(resource.hostname)
    username = resource.username or user or get("ssh-user") or defaults.username
    if not address.host:
        raise Invalid(f"Hostname must be set to connect to remote node '{resource.name}'")
    if not username:
        raise Invalid(f"Username must be set to connect to remote node '{resource.name}'")
    if port := get("ssh-port"):
        address = Address(address.host, _port(port))
    agent = get("ssh-agent").lower() in ("true", "yes")
    key_path, key_secret = _key(get, "" if agent else defaults.key_path)
    return Connection(
        node=resource.name,
        project=project.name,
        hop=Hop(address, username),
        jumps=_jumps(get("ssh-jump-host"), username),
        key_path=key_path,
        key_secret=key_secret,
        passphrase_secret=get("ssh-passphrase-secret"),
        agent=agent,
        connect_seconds=_seconds(get("ssh-connect-timeout"), defaults.connect_seconds),
        run_seconds=_seconds(get("ssh-command-timeout"), 0.0),
        copy_directory=get("file-copy-destination-dir") or "/tmp",  # noqa: S108  # as above
        host_keys=_policy(get("ssh-host-keys"), defaults.host_keys),
    )


#: The ways to a node that is not the server's own.
Kind = Literal["ssh", "agent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWay:
    """The connection that a node's own agent holds open. `user` "" is the agent's own."""

    node: NodeId
    user: str = ""
    run_seconds: float = 0.0
    copy_directory: str = "/tmp"  # noqa: S108  # as above


def kinds(resource: Resource, project: Project) -> tuple[Kind, ...]:
    """The ways to try, in this order: SSH unless the node or its project says otherwise. Raises Invalid."""
    text = _Getter(resource.attributes, project)("node-transport") or "ssh"
    found: list[Kind] = []
    for part in text.split(","):
        match part.strip():
            case "ssh" | "agent" as kind if kind not in found:
                found.append(kind)
            case _:
                raise Invalid(f"node-transport is ssh, agent, or both in the order of tries, not '{text}'")
    return tuple(found)


def agent_way(resource: Resource, project: Project, defaults: Defaults) -> AgentWay:
    """How to reach a node of the inventory over its agent: as the same user as over SSH, where one is set.

    Raises Invalid.
    """
    if resource.node is None:
        raise Invalid(f"'{resource.name}' is no node of the inventory, so that no agent speaks for it")
    get = _Getter(resource.attributes, project)
    user, _ = _hop(resource.hostname)
    return AgentWay(
        node=resource.node,
        user=get("agent-user") or resource.username or user or get("ssh-user") or defaults.username,
        run_seconds=_seconds(get("ssh-command-timeout"), 0.0),
        copy_directory=get("file-copy-destination-dir") or "/tmp",  # noqa: S108  # as above
    )


class _Getter:
    def __init__(self, attributes: Mapping[str, str], project: Project) -> None:
        self._attributes, self._project = attributes, project

    def __call__(self, name: str) -> str:
        return self.of_node(name) or self.of_project(name)

    def of_node(self, name: str) -> str:
        return self._attributes.get(name, "").strip()

    def of_project(self, name: str) -> str:
        return self._project.get(f"project.{name}")


def _key(get: _Getter, default_path: str) -> tuple[str, str]:
    """Path and secret. What the project says of either does not count where the node names a key of its own."""
    for of in (get.of_node, get.of_project):
        path, secret = of("ssh-keypath"), of("ssh-key-secret")
        if path or secret:
            return path, secret
    return default_path, ""


def _jumps(text: str, username: str) -> tuple[Hop, ...]:
    """`user@host:port`, several separated by commas; without a user the one of the node."""
    hops = [_hop(part) for part in text.split(",") if part.strip()]
    if not all(address.host for _, address in hops):
        raise Invalid(f"'{text}' names a jump host without a name")
    return tuple(Hop(address, user or username) for user, address in hops)


def _hop(text: str) -> tuple[str, Address]:
    """User ("" for none) and address of `user@host:port`, `[::1]:22` or a bare host."""
    user, _, rest = text.strip().rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        if port and not port.startswith(":"):
            raise Invalid(f"'{port}' follows a bracket without a colon")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    return user, Address(host, _port(port) if port else 22)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Invalid(f"'{text}' is no port")
    return int(text)


def _seconds(text: str, default: float) -> float:
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 10**7:
        raise Invalid(f"'{text}' is no number of seconds")
    return seconds


def _policy(text: str, default: HostKeyPolicy) -> HostKeyPolicy:
    match text:
        case "":
            return default
        case "first-use" | "approve":
            return text
    raise Invalid(f"ssh-host-keys is first-use or approve, not '{text}'")
