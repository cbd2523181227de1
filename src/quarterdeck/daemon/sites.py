# SPDX-License-Identifier: Apache-2.0
"""From the daemon's settings to what services know of the site, and the operator's access policy files."""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import socket
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from quarterdeck.core.access_policies import AccessPolicy
from quarterdeck.core.connections import Defaults
from quarterdeck.core.errors import Invalid
from quarterdeck.core.notifications import Mail
from quarterdeck.core.resources import Resource
from quarterdeck.core.sites import Site
from quarterdeck.daemon import time_zones
from quarterdeck.daemon.config import Config
from quarterdeck.formats import aclpolicy

log = logging.getLogger(__name__)

#: A file that cannot be read must not open what it was to close: nobody but admins may do anything then.
_CLOSED = (AccessPolicy(description="A policy file cannot be read."),)


def site(config: Config) -> Site:
    """What services know of this server."""
    return Site(
        base_url=config.public_url,
        node=_own_node(config),
        allowed_paths=tuple(PurePosixPath(path) for path in config.projects.allowed_paths),
        allowed_urls=tuple(config.projects.allowed_urls),
        loglevel=config.executions.loglevel,
        ssh=Defaults(
            username=config.ssh.user,
            key_path=config.ssh.key_path,
            connect_seconds=config.ssh.connect_seconds,
            host_keys=config.ssh.host_keys,
        ),
        local_user=config.local_node.user,
        zone=time_zone(config),
        misfire_seconds=config.schedules.misfire_grace_seconds,
        mail=_mail(config),
        allowed_webhooks=tuple(config.webhooks.allowed),
        log_bytes=config.executions.log_bytes,
        executions_kept=timedelta(days=config.executions.retention_days),
        policies=PolicyFiles(acl_directory(config)).current,
    )


def acl_directory(config: Config) -> Path:
    """Where access policies lie."""
    return Path(config.projects.acl_directory) if config.projects.acl_directory else config.data / "acl"


def time_zone(config: Config) -> ZoneInfo:
    """The zone of schedules that name none. Raises Invalid."""
    name = config.schedules.time_zone
    return time_zones.zone(name) if name else time_zones.default(os.environ)


def _mail(config: Config) -> Mail:
    kept = config.mail
    return Mail(
        host=kept.host,
        port=kept.port,
        user=kept.user,
        password=kept.password,
        sender=kept.sender or f"quarterdeck@{_mail_domain(urlsplit(config.public_url).hostname or 'localhost')}",
        security=kept.security,
    )


def _mail_domain(host: str) -> str:
    """A name as it is, an IP address as mail addresses have them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{host}]" if address.version == 6 else f"[{host}]"


def _own_node(config: Config) -> Resource:
    host = socket.gethostname()
    return Resource(
        config.local_node.name or host,
        hostname=host,
        description="Quarterdeck server node",
        os_arch=platform.machine(),
        os_family="unix",
        os_name=platform.system(),
        os_version=platform.release(),
    )


@dataclass(slots=True)
class PolicyFiles:
    """The `*.aclpolicy` files of a directory, read again when one changes."""

    directory: Path
    _seen: tuple[tuple[str, int, int], ...] | None = None
    _policies: tuple[AccessPolicy, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> tuple[AccessPolicy, ...]:
        """What the files say now; nothing without files."""
        with self._lock:
            present = self._present()
            if present != self._seen:
                self._policies, self._seen = self._read(), present
            return self._policies

    def _present(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in sorted(self.directory.glob("*.aclpolicy")):
            status = path.stat()
            found.append((path.name, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _read(self) -> tuple[AccessPolicy, ...]:
        found: list[AccessPolicy] = []
        for path in sorted(self.directory.glob("*.aclpolicy")):
            try:
                found += aclpolicy.read(path.read_bytes())
            except (Invalid, OSError) as error:
                log.critical("%s: %s; until it is mended only admins may do anything in projects", path, error)
                return _CLOSED
        return tuple(found)
