# SPDX-License-Identifier: Apache-2.0
"""The commands of `quarterdeckd` as people call them. Each one loads what it needs when it runs.

Only these functions print and choose exit statuses: 0 fine, 1 failed with one sentence, 2 called or set up wrongly,
3 a file that is kept here cannot be read. Starting again helps with 1 only.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from quarterdeck import __version__
from quarterdeck.core.errors import Invalid, QuarterdeckError, Unavailable
from quarterdeck.daemon import config as settings
from quarterdeck.daemon.config import Config, WrongSettings
from quarterdeck.daemon.places import Unreadable

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, this process's own by default, and exit. A known error becomes its sentence."""
    # They add their commands, and take what stands here.
    from quarterdeck.daemon import relay_commands, runbook_commands  # noqa: F401

    try:
        quarterdeckd.main(arguments, prog_name="quarterdeckd", standalone_mode=True)
    except QuarterdeckError as error:
        print(f"quarterdeckd: {error.message}", file=sys.stderr)
        if error.detail and os.environ.get("QUARTERDECK_LOG_LEVEL") == "debug":
            print(error.detail, file=sys.stderr)
        sys.exit(2 if isinstance(error, WrongSettings) else 3 if isinstance(error, Unreadable) else 1)


# --- what several commands share -------------------------------------------------------------------------------------

Command = Callable[..., None]


def located(command: Command) -> Command:
    """Add the options that say which server is meant."""
    options = [
        click.option(
            "--data-dir", metavar="DIR", help=f"Where the server keeps everything. [{settings.DEFAULT_DATA_DIR}]"
        ),
        click.option(
            "--config", "config_file", metavar="FILE", help="Settings file. [quarterdeck.toml in the data dir]"
        ),
        click.option("--database-url", metavar="URL", help="PostgreSQL to use instead of the embedded one."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def configured(command: Command) -> Command:
    """The same; what the command gets, as its first argument, are the settings in force there.

    Not for one that reads a file first: from then on this process may be the owner of the data directory.
    """

    @functools.wraps(command)
    def with_settings(
        *, data_dir: str | None, config_file: str | None, database_url: str | None, **given: object
    ) -> None:
        command(loaded(data_dir, config_file, database_url), **given)

    return located(with_settings)


def loaded(data_dir: str | None, config_file: str | None, database_url: str | None) -> Config:
    """The settings in force, as the user who owns the data directory.

    What the last `serve` there was told on its command line holds for the other commands, too.
    """
    from quarterdeck.daemon import supervisor  # deferred: not every call gets here

    place = settings.data_directory({"data_dir": data_dir}, os.environ)
    become_owner(place)
    told = supervisor.told_to_serve(place)
    file = config_file or told.pop("config_file", None)
    given = {"data_dir": str(place), "database_url": database_url}
    values = told | {name: value for name, value in given.items() if value is not None}
    return settings.load(values, os.environ, Path(file) if file else None)


def become_owner(data_dir: Path) -> None:
    """Root works as the owner of the data directory: what it writes there must stay readable for the server."""
    try:
        owner = data_dir.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(
            f"The data directory {data_dir} cannot be reached by this user ({error.strerror}): run this as its owner, "
            "or name another one with --data-dir."
        ) from error
    if os.geteuid() not in {0, owner} and not os.access(data_dir, os.W_OK | os.X_OK):
        raise Unavailable(
            f"The data directory {data_dir} is closed to this user: run this as its owner, user id {owner}, or name "
            "another one with --data-dir."
        )
    if os.geteuid() == 0 and owner != 0:
        try:
            account = pwd.getpwuid(owner)
        except KeyError:
            raise Unavailable(
                f"The data directory {data_dir} belongs to user id {owner}, which this machine has no account for: "
                "give it to the user that quarterdeckd is to run as."
            ) from None
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        os.environ["HOME"] = account.pw_dir


def moment(text: str | None) -> datetime | None:
    """A time from `30d`, `12h` or a date; None stays None. Raises Invalid."""
    if text is None:
        return None
    now = datetime.now(UTC)
    if found := re.fullmatch(r"(\d{1,5})([dh])", text):
        number = int(found[1])
        return now + (timedelta(days=number) if found[2] == "d" else timedelta(hours=number))
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"'{text}' is no time: write 30d, 12h or a date such as 2027-01-31.") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def shown(when: datetime | None, otherwise: str) -> str:
    """A time for a table."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if when else otherwise


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns, or nothing but the head."""
    widths = [max(len(cells[column]) for cells in [head, *rows]) for column in range(len(head))]
    for cells in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


# --- the commands ----------------------------------------------------------------------------------------------------


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="quarterdeckd")
def quarterdeckd() -> None:
    """Run and look after a Quarterdeck server."""


@quarterdeckd.command()
@located
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to accept connections. [0.0.0.0:8443]")
@click.option("--public-url", metavar="URL", help="How other machines reach this server. [https://<full name>:<port>]")
@click.option("--no-tls", is_flag=True, help="Plain HTTP; on loopback only.")
@click.option("--no-worker", is_flag=True, help="Start no worker process here.")
@click.option("--migrate", is_flag=True, help="Bring the schema of an external database up to date.")
def serve(
    *,
    data_dir: str | None,
    config_file: str | None,
    database_url: str | None,
    listen: str | None,
    public_url: str | None,
    no_tls: bool,
    no_worker: bool,
    migrate: bool,
) -> None:
    """Serve the APIs until Ctrl-C; the first start makes everything it needs."""
    from quarterdeck.daemon import supervisor

    flags = {
        "database_url": database_url,
        "listen": listen,
        "public_url": public_url,
        "tls": False if no_tls else None,
        "workers.count": 0 if no_worker else None,
    }
    told: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    file = Path(config_file).absolute() if config_file else None
    become_owner(settings.data_directory({"data_dir": data_dir}, os.environ))
    config = settings.load({"data_dir": data_dir, **told}, os.environ, file)
    if file:
        told["config_file"] = str(file)
    if os.geteuid() == 0:
        supervisor.say("Running as root; a user of its own, who owns the data directory, is safer.")
    supervisor.serve(config, told, migrate=migrate)


@quarterdeckd.command()
@configured
def check(config: Config) -> None:
    """Look at configuration, keys, database, disk, port, name and clock."""
    from quarterdeck.daemon import checks

    failed = False
    for finding in checks.findings(config):
        print(finding.line(), flush=True)
        failed = failed or finding.good is False
    if failed:
        sys.exit(1)


@quarterdeckd.command()
@configured
def migrate(config: Config) -> None:
    """Bring the database to the schema of this version."""
    from quarterdeck.daemon import administration
    from quarterdeck.storage import migrate as migrations

    with administration.database_url(config) as url:
        migrations.upgrade(url)
    print("The database has the schema of this version.")


@quarterdeckd.command()
@click.argument("file", type=click.Path(path_type=Path))
@configured
def backup(config: Config, file: Path) -> None:
    """Write database, keys and settings to FILE; the server may run. Keep it safe, the keys are in it."""
    from quarterdeck.daemon import backups

    target = file.absolute()
    backups.backup(config, target)
    print(f"Written: {target}")


@quarterdeckd.command()
@click.argument("file", type=click.Path(path_type=Path))
@configured
def restore(config: Config, file: Path) -> None:
    """Make a new data directory from the backup FILE."""
    from quarterdeck.daemon import backups

    backups.restore(config, file.absolute())
    print(f"Restored into {config.data}; start it with `quarterdeckd serve --data-dir {config.data}`.")


@quarterdeckd.group()
def token() -> None:
    """Tokens for programs that use the APIs."""


@token.command("create")
@click.argument("name")
@click.option("--access", type=click.Choice(["read", "write"]), required=True, help="What it may do without a role.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="Adds a role's rights; can be repeated.")
@click.option("--expires", metavar="WHEN", help="30d, 12h or a date; without it the token does not expire.")
@configured
def token_create(
    config: Config,
    name: str,
    *,
    access: str,
    roles: tuple[str, ...],
    expires: str | None,
) -> None:
    """Make a token and print it; it is shown this once."""
    from quarterdeck.core.accounts import Access
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    until = moment(expires)
    with administration.acting(config, "quarterdeckd token create") as ctx:
        _, secret = accounts.create_token(ctx, name, access=Access(access), roles=frozenset(roles), expires_at=until)
    print(secret)


@token.command("list")
@configured
def token_list(config: Config) -> None:
    """List the tokens, without their secrets."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    with administration.acting(config, "token list") as ctx:
        rows = [
            (
                account.name,
                str(account.access or "-"),
                ",".join(sorted(account.roles)) or "-",
                shown(account.expires_at, "never"),
                "enabled" if account.usable(ctx.now) else "ended",
            )
            for account in accounts.tokens(ctx)
        ]
    table(("NAME", "ACCESS", "ROLES", "EXPIRES", "STATE"), rows)


@token.command("revoke")
@click.argument("name")
@configured
def token_revoke(config: Config, name: str) -> None:
    """End the token NAME at once."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    with administration.acting(config, "quarterdeckd token revoke") as ctx:
        accounts.revoke_token(ctx, name)
    print(f"The token '{name}' is revoked.")


@quarterdeckd.group()
def user() -> None:
    """People who log in with a password."""


@user.command("create")
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, metavar="ROLE", help="Can be repeated; admin is all.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
@configured
def user_create(
    config: Config,
    name: str,
    *,
    roles: tuple[str, ...],
    password_stdin: bool,
) -> None:
    """Make a user."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        raise Invalid("There is no terminal to ask for the password: give it with --password-stdin.")
    with administration.acting(config, "quarterdeckd user create") as ctx:
        accounts.create_user(ctx, name, password, frozenset(roles))
    print(f"The user '{name}' is made.")


@user.command("list")
@configured
def user_list(config: Config) -> None:
    """List the users."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    with administration.acting(config, "user list") as ctx:
        rows = [
            (account.name, ",".join(sorted(account.roles)) or "-", "enabled" if account.enabled else "disabled")
            for account in accounts.users(ctx)
        ]
    table(("NAME", "ROLES", "STATE"), rows)


@user.command("remove")
@click.argument("name")
@configured
def user_remove(config: Config, name: str) -> None:
    """Remove the user NAME."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import accounts

    with administration.acting(config, "quarterdeckd user remove") as ctx:
        accounts.remove_user(ctx, name)
    print(f"The user '{name}' is removed.")


@quarterdeckd.group()
def enrolment() -> None:
    """Tokens that let machines become nodes."""


@enrolment.command("create")
@click.argument("name")
@click.option("--accept", is_flag=True, help="Accept the nodes at once, without a look by an administrator.")
@click.option("--uses", type=click.IntRange(min=1), metavar="N", help="How many machines; without it any number.")
@click.option("--expires", metavar="WHEN", default="7d", help="30d, 12h or a date.")
@click.option("--line", is_flag=True, help="Print the whole line to paste on the machine instead of the token.")
@configured
def enrolment_create(
    config: Config,
    name: str,
    *,
    accept: bool,
    uses: int | None,
    expires: str,
    line: bool,
) -> None:
    """Make an enrolment token and print it; it is shown this once."""
    from quarterdeck.daemon import administration, first_start
    from quarterdeck.services import enrolment as enrolments

    until = moment(expires)
    with administration.acting(config, "quarterdeckd enrolment create") as ctx:
        secret = enrolments.create_token(ctx, name, accept=accept, uses=uses, expires_at=until)
    print(first_start.enrolment_line(config, secret) if line else secret)


@enrolment.command("list")
@configured
def enrolment_list(config: Config) -> None:
    """List the enrolment tokens, without their secrets."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import enrolment as enrolments

    with administration.acting(config, "enrolment list") as ctx:
        rows = [
            (
                found.id,
                found.name,
                "at once" if found.accept else "by hand",
                "any" if found.uses_left is None else str(found.uses_left),
                shown(found.expires_at, "never"),
            )
            for found in enrolments.tokens(ctx)
        ]
    table(("ID", "NAME", "ACCEPTED", "USES LEFT", "EXPIRES"), rows)


@enrolment.command("revoke")
@click.argument("id")
@configured
def enrolment_revoke(config: Config, id: str) -> None:  # noqa: A002  # click names the argument so in its help
    """End the enrolment token ID; nodes that came through it stay."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import enrolment as enrolments

    with administration.acting(config, "quarterdeckd enrolment revoke") as ctx:
        enrolments.revoke_token(ctx, id)
    print(f"The enrolment token {id} is revoked.")
