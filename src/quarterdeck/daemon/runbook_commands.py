# SPDX-License-Identifier: Apache-2.0
"""The commands of `quarterdeckd` about runbooks: projects, users of a RunDeck server, workers that come to rest.

They join the others in `commands.py`, which has what all share; who prints and chooses exit statuses is said there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quarterdeck.core.errors import AlreadyExists, Invalid, Unavailable
from quarterdeck.daemon.commands import loaded, located, quarterdeckd, table, user

if TYPE_CHECKING:
    from quarterdeck.formats.realm import RealmUser
    from quarterdeck.services.context import Context

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@quarterdeckd.group()
def project() -> None:
    """Where jobs and nodes belong."""


@project.command("create")
@click.argument("name")
@click.option("--description", default="", help="What it is for.", show_default=False)
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Can be repeated.")
@click.option(
    "--import",
    "imported",
    type=_DIRECTORY,
    metavar="DIR",
    help="Take properties and nodes from a project's directory of a RunDeck server, which has etc/project.properties.",
)
@located
def project_create(
    name: str,
    *,
    description: str,
    properties: tuple[str, ...],
    imported: Path | None,
    data_dir: str | None,
    config_file: str | None,
    database_url: str | None,
) -> None:
    """Make a project."""
    from quarterdeck.daemon import administration, rundeck_imports
    from quarterdeck.services import projects, resources

    given = dict(_pair(text) for text in properties)
    # Before this process becomes the owner of the data directory, who may not be able to read it.
    found = rundeck_imports.project(imported, name) if imported else None
    read, nodes = found or (None, None)
    config = loaded(data_dir, config_file, database_url)
    with administration.acting(config, "quarterdeckd project create") as ctx:
        projects.create(
            ctx,
            name,
            description=description or (read.description if read else ""),
            properties={**(read.properties if read else {}), **given},
        )
        if nodes is not None:
            resources.replace_document(ctx, name, lambda: nodes)
    told = "" if nodes is None else f" with {len(nodes)} nodes"
    print(f"The project '{name}' is made{told}.")
    if imported and nodes is None:
        print(f"There is no node document in {imported}.", file=sys.stderr)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--property takes NAME=VALUE, not '{text}'.")
    return name, value


@project.command("list")
@located
def project_list(*, data_dir: str | None, config_file: str | None, database_url: str | None) -> None:
    """List the projects."""
    from quarterdeck.daemon import administration
    from quarterdeck.services import projects

    with administration.acting(loaded(data_dir, config_file, database_url), "project list") as ctx:
        rows = [(one.name, one.description) for one in projects.visible(ctx)]
    table(("NAME", "DESCRIPTION"), rows)


@user.command("import-realm")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@located
def user_import_realm(file: Path, *, data_dir: str | None, config_file: str | None, database_url: str | None) -> None:
    """Make the users of FILE, a RunDeck server's realm.properties; says for whom a new password is needed."""
    from quarterdeck.daemon import administration
    from quarterdeck.formats import realm

    try:
        found = realm.read(file.read_bytes())
    except OSError as error:
        raise Unavailable(f"{file} cannot be read: {error.strerror}.") from error
    config = loaded(data_dir, config_file, database_url)
    with administration.acting(config, "quarterdeckd user import-realm") as ctx:
        told = [sentence for one in found for sentence in _import_user(ctx, one)]
    for sentence in told:
        print(sentence)


def _import_user(ctx: Context, one: RealmUser) -> list[str]:
    """What became of a user, in sentences."""
    from quarterdeck.core.accounts import ROLES
    from quarterdeck.services import accounts

    known, unknown = sorted(one.roles & ROLES.keys()), sorted(one.roles - ROLES.keys())
    roles = "".join(f" --role {role}" for role in known or ["ROLE"])
    by_hand = f"run `quarterdeckd user create {one.name}{roles}` to set a new one."
    if one.credential.kind != "plain":
        return [f"{one.name}: skipped, a password of the kind {one.credential.kind} cannot be taken over; {by_hand}"]
    try:
        accounts.create_user(ctx, one.name, one.credential.value, frozenset(known))
    except AlreadyExists:
        return [f"{one.name}: skipped, there is an account of this name already."]
    except Invalid as error:
        return [f"{one.name}: skipped, the password cannot be taken over ({error.message}); {by_hand}"]
    told = [f"{one.name}: made with {'the roles ' + ', '.join(known) if known else 'no role'}."]
    if unknown:
        told.append(f"{one.name}: there is no role {', '.join(unknown)} here; roles: {', '.join(sorted(ROLES))}.")
    return told


@quarterdeckd.command()
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer. [for ever]")
@click.option("--abort", is_flag=True, help="Ask what runs to end: at once, or when the timeout is over.")
@click.option("--resume", is_flag=True, help="Take it back: the workers begin again.")
@located
def drain(
    *,
    timeout: float | None,
    abort: bool,
    resume: bool,
    data_dir: str | None,
    config_file: str | None,
    database_url: str | None,
) -> None:
    """Let all workers begin no further execution and wait until they run none.

    Exits with 0 when nothing runs any more, with 1 when something still does after the timeout. What waits for a
    worker keeps waiting until --resume, or until new workers start.
    """
    from quarterdeck.daemon import administration, draining

    if resume and (abort or timeout is not None):
        raise click.UsageError("--resume stands alone.")
    config = loaded(data_dir, config_file, database_url)
    with administration.database_url(config) as url:
        fleet = draining.Fleet(url, config)
        if resume:
            print(f"{fleet.resume()} workers begin again.")
            return
        is_empty = fleet.drain(timeout, abort=abort, say=lambda sentence: print(sentence, file=sys.stderr, flush=True))
    if not is_empty:
        sys.exit(1)
