# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd check`: one line for each thing a server needs, with what to do where it is wrong.

It changes nothing and works while the server runs or not.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.core.errors import Invalid, QuarterdeckError, Unavailable
from quarterdeck.daemon import administration, first_start, places, sites, supervisor, tls
from quarterdeck.daemon.config import Config
from quarterdeck.formats import aclpolicy
from quarterdeck.storage import embedded, migrate

LEAST_FREE_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing; `good` is None where it is fine and yet worth knowing."""

    subject: str
    good: bool | None
    text: str

    def line(self) -> str:
        """The finding as it is printed."""
        mark = {True: "ok", False: "FAILED", None: "note"}[self.good]
        return f"{mark:<7}{self.subject}: {self.text}"


def findings(config: Config) -> Iterator[Finding]:
    """Every finding about a server with these settings, each as soon as it is known."""
    yield Finding("configuration", good=True, text=f"complete; data in {config.data}")
    checks: tuple[tuple[str, Callable[[Config], Finding]], ...] = (
        ("user", _user),
        ("disk", _disk),
        ("keys", _keys),
        ("database", _database),
        ("port", _port),
        ("name", _name),
        ("clock", _clock),
        ("local-node", _local_node),
        ("policies", _policies),
    )
    for subject, check in checks:
        try:
            yield check(config)
        except QuarterdeckError as error:
            yield Finding(subject, good=False, text=error.message)


def _user(config: Config) -> Finding:
    name = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        return Finding(
            "user", None, "quarterdeckd runs as root; a user of its own that owns the data directory is safer"
        )
    if not os.access(config.data, os.W_OK | os.X_OK):
        return Finding("user", good=False, text=f"{name} cannot write {config.data}; let that user own it")
    return Finding("user", good=True, text=name)


def _disk(config: Config) -> Finding:
    place = config.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 1024**3:.1f} GiB free at {place}"
    if free < LEAST_FREE_BYTES:
        return Finding("disk", good=False, text=f"{text}; make room, a full disk stops the database")
    return Finding("disk", good=True, text=text)


def _keys(config: Config) -> Finding:
    kept = tls.files(config.data)
    missing = [path for path in kept.all() if not path.exists()]
    if missing:
        return Finding("keys", good=False, text=f"{missing[0]} is missing; `quarterdeckd serve` makes it")
    for path in kept.all():
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding("keys", good=False, text=f"others may read {path}; run `chmod 600 {path}`")
    if tls.server_certificate_is_due(config.data, config.public_url, datetime.now(UTC)):
        wanted = ", ".join(tls.names(config.public_url))
        return Finding("keys", None, f"the certificate is renewed at the next start, for {wanted}")
    return Finding("keys", good=True, text=f"complete; pin {tls.spki_pin(kept.server_certificate.read_bytes())}")


def _database(config: Config) -> Finding:
    where = "configured" if config.database_url else f"embedded PostgreSQL {embedded.MAJOR}"
    with administration.database_url(config) as url:
        if migrate.is_current(url):
            return Finding("database", good=True, text=f"{where}, answers, schema is current")
        return Finding("database", good=False, text=f"{where}, its schema is older: run `quarterdeckd migrate`")


def _port(config: Config) -> Finding:
    host, port = config.address
    process = supervisor.serving_process(config.data)
    if process is None:
        with places.listening(host, port):
            return Finding("port", good=True, text=f"{host}:{port} is free")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not listened at
    try:
        with socket.create_connection((reached, port), timeout=5):
            return Finding("port", good=True, text=f"{host}:{port} answers (process {process})")
    except OSError as error:
        raise Unavailable(
            f"quarterdeckd runs (process {process}) and {host}:{port} does not answer: {error}"
        ) from error


def _local_node(config: Config) -> Finding:
    user = config.local_node.user
    if not user:
        text = "steps on this machine run as quarterdeckd itself, for admins only; local_node.user separates them"
        return Finding("local-node", None, text)
    try:
        pwd.getpwnam(user)
    except KeyError:
        text = f"there is no system user {user}; make it, or correct local_node.user"
        return Finding("local-node", good=False, text=text)
    if os.geteuid() not in (0, pwd.getpwnam(user).pw_uid):
        text = f"only root can run steps as {user}; start quarterdeckd as root, or leave local_node.user empty"
        return Finding("local-node", good=False, text=text)
    return Finding("local-node", good=True, text=f"steps on this machine run as {user}")


def _policies(config: Config) -> Finding:
    directory = sites.acl_directory(config)
    paths = sorted(directory.glob("*.aclpolicy"))
    for path in paths:
        try:
            aclpolicy.read(path.read_bytes())
        except (Invalid, OSError) as error:
            text = f"{path}: {error}; until it is mended only admins may do anything in projects"
            return Finding("policies", good=False, text=text)
    return Finding("policies", good=True, text=f"{len(paths)} access policy files in {directory}")


def _name(config: Config) -> Finding:
    host = urlsplit(config.public_url).hostname or ""
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except socket.gaierror:
        text = f"{host} has no address here; correct --public-url or the name service, or agents will not find it"
        return Finding("name", good=False, text=text)
    return Finding("name", good=True, text=f"{config.public_url} is at {', '.join(found)}")


def _clock(config: Config) -> Finding:
    now = datetime.now(UTC)
    first_start.refuse_lost_clock(now)
    tls.refuse_wrong_clock(config.data, now)
    synchronised = Path("/run/systemd/timesync/synchronized").exists() or Path("/var/lib/chrony/drift").exists()
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if not synchronised:
        return Finding("clock", None, f"{text}; no sign of a time service, requests of agents may differ by 5 minutes")
    return Finding("clock", good=True, text=text)
