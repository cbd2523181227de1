# SPDX-License-Identifier: Apache-2.0
"""With what a node is reached over SSH: its connection, the secrets that open it, the host keys that are trusted.

Everything here is known before anything is sent. Reading keys and speaking SSH is `ssh_links.py`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from quarterdeck.core.connections import Address, Connection, Hop
from quarterdeck.engine.transports import Ending, HostKey, NodeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What opens a Connection. The secrets that it names have been resolved by the caller."""

    connection: Connection
    #: key material itself, instead of the file that the connection names
    private_key: bytes = field(default=b"", repr=False)
    passphrase: str = field(default="", repr=False)
    #: the keys that are approved for the hosts on the way, as the text of OpenSSH public keys
    trusted: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)

    def of_jump(self) -> Access:
        """The same with the last of the jump hosts as the target."""
        *jumps, last = self.connection.jumps
        return replace(self, connection=replace(self.connection, hop=last, jumps=tuple(jumps)))


class NoWay(Exception):
    """A command did not begin, or its connection cannot be used. Stays within the engine's SSH modules."""

    def __init__(self, ending: Ending, reason: str, *new_host_keys: HostKey) -> None:
        super().__init__(reason)
        self.result = NodeResult(ending=ending, reason=reason, new_host_keys=new_host_keys)


@dataclass(frozen=True, slots=True)
class Credential:
    """One or several keys, as told apart from others: `digest` changes when a key does, and reveals none."""

    digest: str
    key_path: Path | None
    agent_path: str


@dataclass(frozen=True, slots=True)
class Route:
    """What must be the same for two commands to share a connection."""

    project: str
    hop: Hop
    jumps: tuple[Hop, ...]
    credential: str
    host_keys: str


def credential(access: Access) -> Credential:
    """The keys to offer. Raises NoWay when there are none, or the key file or the agent is missing."""
    connection = access.connection
    digest = hashlib.sha256()
    path = None
    if access.private_key:
        digest.update(access.private_key)
    elif connection.key_path:
        path = Path(connection.key_path)
        digest.update(_version(path))
    digest.update(b"\0" + access.passphrase.encode())
    agent_path = os.environ.get("SSH_AUTH_SOCK", "") if connection.agent else ""
    digest.update(b"\0" + agent_path.encode())
    if connection.agent and not agent_path:
        raise NoWay("refused", "There is no SSH agent: SSH_AUTH_SOCK is not set in the server's environment.")
    if not (access.private_key or path or agent_path):
        raise NoWay("refused", f"No SSH key is set for node '{connection.node}'.")
    return Credential(digest.hexdigest(), path, agent_path)


def _version(path: Path) -> bytes:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NoWay("refused", f"SSH Keyfile does not exist: {path}") from None
    except OSError as error:
        raise NoWay("refused", f"SSH Keyfile cannot be read: {path}: {error.strerror}") from error
    return f"{path}\0{found.st_mtime_ns}\0{found.st_size}".encode()


def route(access: Access, keys: Credential) -> Route:
    """Where a connection for this access is kept."""
    connection = access.connection
    return Route(connection.project, connection.hop, connection.jumps, keys.digest, connection.host_keys)
