# SPDX-License-Identifier: Apache-2.0
"""What `serve` does before anybody is answered: keys, schema, the first accounts, and the text it prints.

Every step may be killed and is completed by the next start. A secret is on disk before the database knows it.
"""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck.core.accounts import Access
from quarterdeck.core.errors import Conflict, Unavailable
from quarterdeck.daemon import administration, enrolment_lines, tls
from quarterdeck.daemon.config import Config
from quarterdeck.relaying import kept_files
from quarterdeck.services import accounts, enrolment, initial, techniques
from quarterdeck.services.context import Context
from quarterdeck.storage import migrate as migrations

ADMIN = "admin"
ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105  # a file name
ENROLMENT_TOKEN_FILE = "enrolment-token"  # noqa: S105  # a file name
ENROLMENT_TOKEN_NAME = "start"  # noqa: S105  # a name
ENROLMENT_DAYS = 7
#: No machine with this program has an earlier date: its clock has no battery.
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
NAME_PATIENCE_SECONDS = 0.2


def prepare(config: Config, *, migrate: bool) -> str:
    """Make this server ready to answer; the answer is what its administrator needs to know.

    `config.database_url` names the database, the embedded one too. Raises Unavailable or Conflict.
    """
    now = datetime.now(UTC)
    refuse_lost_clock(now)
    name = _NameCheck(config.public_url)
    tls.initialise(config.data, config.public_url, now)
    if migrate:
        migrations.upgrade(config.database_url)
    elif not migrations.is_current(config.database_url):
        raise Conflict(
            "The database lacks the schema of this version: serve with --migrate, or run the migrate command."
        )
    with administration.unit_of_work(config.database_url, "first start") as ctx:
        initial.ensure(ctx, hostname=socket.getfqdn())
        techniques.reload(ctx)
        first = _ensure_admin_token(ctx, config.data)
        secret, until = _ensure_enrolment_token(ctx, config.data)
    return banner(config, secret, until, first=first) + name.complaint()


def refuse_lost_clock(now: datetime) -> None:
    """Raises Unavailable when the clock cannot be right."""
    if now < EARLIEST:
        raise Unavailable(
            f"This machine's clock says {now:%Y-%m-%d}: set it; signatures and certificates need the time."
        )


class _NameCheck:
    """Asks the name service for the server's name, aside: a slow answer must not delay the start."""

    def __init__(self, public_url: str) -> None:
        self._host = urlsplit(public_url).hostname or ""
        self._unknown = False
        self._thread = threading.Thread(target=self._ask, name="name-check", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            socket.getaddrinfo(self._host, None)
        except socket.gaierror:
            self._unknown = True

    def complaint(self) -> str:
        """A line to print when the name is known to have no address, else nothing."""
        self._thread.join(NAME_PATIENCE_SECONDS)
        if not self._unknown:
            return ""
        return f"The name {self._host} has no address here: give a name that agents can find with --public-url.\n"


def _ensure_admin_token(ctx: Context, data_dir: Path) -> bool:
    """Make the first token when there is no account at all; tells whether it did."""
    if accounts.tokens(ctx) or accounts.users(ctx):
        return False
    _, secret = accounts.create_token(ctx, ADMIN, access=Access.WRITE, roles=frozenset({"admin"}))
    kept_files.replace(data_dir / ADMIN_TOKEN_FILE, f"{secret}\n".encode())
    return True


def _ensure_enrolment_token(ctx: Context, data_dir: Path) -> tuple[str, datetime | None]:
    """The enrolment token of the printed line and its end; a new one when the last is used up or has expired."""
    path = data_dir / ENROLMENT_TOKEN_FILE
    if path.exists():
        secret = path.read_text().strip()
        digest = accounts.secret_digest(secret)
        for known, token in ctx.store.enrolment_tokens.digests():
            # A day left at least: the line shall still work when somebody pastes it.
            if known == digest and token.usable(ctx.now + timedelta(days=1)):
                return secret, token.expires_at
    until = ctx.now + timedelta(days=ENROLMENT_DAYS)
    secret = enrolment.create_token(ctx, ENROLMENT_TOKEN_NAME, accept=False, expires_at=until)
    kept_files.replace(path, f"{secret}\n".encode())
    return secret, until


def banner(config: Config, enrolment_secret: str, until: datetime | None, *, first: bool) -> str:
    """What `serve` prints once it answers."""
    kept = config.data / ADMIN_TOKEN_FILE
    lines = [f"Quarterdeck answers at {config.public_url}"]
    if first:
        lines.append(f"The first admin token is in {kept} (mode 600); keep it somewhere safe.")
    elif kept.exists():
        lines.append(f"The first admin token is still in {kept} (mode 600).")
    valid = f", until {until:%Y-%m-%d %H:%M} UTC" if until else ""
    lines += [
        f"To enrol another machine, paste this line there as root (Python 3.9 or newer{valid}):",
        "",
        enrolment_line(config, enrolment_secret),
        "",
    ]
    return "\n".join(lines)


def enrolment_line(config: Config, secret: str) -> str:
    """The line that enrols a machine at this server; see `enrolment_lines.py`."""
    kept = tls.files(config.data) if config.tls else None
    return enrolment_lines.line(config.public_url, kept, secret)
