# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck jobs`: definitions in RunDeck's XML or YAML in and out, and running them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.connection import REFUSED, CommandError, Server
from quarterdeck.cli.display import json_option, moment, plain
from quarterdeck.cli.executions import started
from quarterdeck.cli.projects import pairs, path, project_option
from quarterdeck.cli.run import filter_of, filter_option, loglevel_option

FORMATS = ("yaml", "xml")
_ID = re.compile(r"[0-9]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

format_option = click.option("--format", "form", type=click.Choice(FORMATS), help="[default: by the file's name, yaml]")


@click.group()
def jobs() -> None:
    """What can be run again and again."""


@jobs.command("load")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@project_option
@format_option
@click.option(
    "--duplicates",
    type=click.Choice(["create", "skip", "update"]),
    default="update",
    show_default=True,
    help="What happens to a job that is there: by its uuid, or else its group and name.",
)
@json_option
def load_jobs(files: tuple[str, ...], project: str, form: str | None, duplicates: str, as_json: bool) -> None:
    """Load the jobs of FILE... into a project; exits 1 when one of them is not kept."""
    server = connection.current()
    done: dict[str, list[dict[str, Any]]] = {"succeeded": [], "failed": [], "skipped": []}
    for file in files:
        with click.open_file(file, "rb") as source:
            content = source.read()
        params = {"format": form or _form_of(file), "duplicates": duplicates}
        answer = connection.native(server, "POST", path(project, "/jobs/import"), params=params, content=content)
        for outcome, found in answer.items():
            done[outcome] += [one | {"file": file} for one in found]
    if as_json:
        display.as_json(done)
    else:
        _show_loaded(done)
    if done["failed"]:
        raise CommandError(f"{len(done['failed'])} of the jobs cannot be kept.", REFUSED)


def _form_of(file: str) -> str:
    return "xml" if Path(file).suffix.lower() == ".xml" else "yaml"


def _show_loaded(done: dict[str, list[dict[str, Any]]]) -> None:
    for outcome, found in done.items():
        for one in found:
            name = _full_name(one) or f"job {one['index']} of {one['file']}"
            number = f" (id {one['id']})" if one["id"] is not None else ""
            problems = f": {'; '.join(one['problems'])}" if one["problems"] else ""
            click.echo(f"{outcome} {name}{number}{problems}", err=outcome == "failed")


def _full_name(one: dict[str, Any]) -> str:
    return f"{one['group']}/{one['name']}" if one["group"] else str(one["name"])


@jobs.command("list")
@project_option
@click.option("--group", help="A group with all below.")
@click.argument("search", required=False)
@json_option
def list_jobs(project: str, group: str | None, search: str | None, as_json: bool) -> None:
    """List jobs; SEARCH is a part of the name."""
    found = _listed(connection.current(), project, group=group, search=search)
    if as_json:
        display.as_json(found)
        return
    display.table(
        ("ID", "JOB", "DESCRIPTION", "NEXT RUN", "TAKES"),
        (
            tuple(
                plain(cell)
                for cell in (
                    one["id"],
                    _full_name(one),
                    one["description"].partition("\n")[0],
                    moment(one["nextRun"]),
                    "-" if one["averageMilliseconds"] is None else f"{one['averageMilliseconds'] / 1000:.1f} s",
                )
            )
            for one in found
        ),
        empty="There is no such job." if group or search else "There is no job.",
    )


def _listed(server: Server, project: str, **asked: str | None) -> list[dict[str, Any]]:
    params = {name: value for name, value in asked.items() if value}
    found: list[dict[str, Any]] = connection.native(server, "GET", path(project, "/jobs"), params=params)
    return found


@jobs.command("export")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@project_option
@format_option
@click.option("--group", help="A group with all below.")
@json_option
def export_jobs(ids: tuple[str, ...], project: str, form: str | None, group: str | None, as_json: bool) -> None:
    """Write jobs as one document, those named or all of the project; --json: their definitions."""
    server = connection.current()
    asked = {"format": form or "yaml", "ids": ",".join(ids), "group": group}
    params = {name: value for name, value in asked.items() if value}
    if as_json:
        listed = [{"id": one} for one in ids] or _listed(server, project, group=group)
        display.as_json([connection.native(server, "GET", _path(str(one["id"]))) for one in listed])
        return
    document = connection.native_text(server, "GET", path(project, "/jobs/export"), params=params)
    click.echo(document, nl=False)


@jobs.command("run")
@click.argument("job", metavar="ID|GROUP/NAME")
@click.option("-p", "--project", envvar="QUARTERDECK_PROJECT", show_envvar=True, help="Needed for GROUP/NAME.")
@click.option("-o", "--option", "options", multiple=True, metavar="NAME=VALUE", help="Can be repeated.")
@filter_option
@loglevel_option
@click.option("--follow", is_flag=True, help="Show what it writes until it ends; exits as its worst node did.")
@json_option
def run_job(
    *,
    job: str,
    project: str | None,
    options: tuple[str, ...],
    filters: tuple[str, ...],
    loglevel: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Start a job, named by its number, its uuid, or its group and name."""
    given = pairs(options, "-o")
    server = connection.current()
    document: dict[str, Any] = {"options": given, "filter": filter_of(filters), "loglevel": loglevel or ""}
    execution = connection.native(server, "POST", f"{_path(_id(server, job, project))}/run", json=document)
    started(server, execution, follow=follow, as_json=as_json)


@jobs.command("delete")
@click.argument("job", metavar="ID|GROUP/NAME")
@click.option("-p", "--project", envvar="QUARTERDECK_PROJECT", show_envvar=True, help="Needed for GROUP/NAME.")
@json_option
def delete_job(job: str, project: str | None, as_json: bool) -> None:
    """Remove a job; its executions stay."""
    server = connection.current()
    done = connection.native(server, "DELETE", _path(_id(server, job, project)))["deleted"]
    _show_deleted(done, as_json=as_json)


@jobs.command("purge")
@project_option
@click.option("--group", help="Only those of a group and all below.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge_jobs(project: str, group: str | None, yes: bool, as_json: bool) -> None:
    """Remove all jobs of a project or of a group, all of them or none."""
    server = connection.current()
    found = _listed(server, project, group=group)
    if found and not yes:
        click.confirm(f"Remove {len(found)} jobs of '{project}'?", abort=True, err=True)
    ids = [one["uuid"] for one in found]
    done = connection.native(server, "POST", "/jobs/purge", json={"ids": ids})["deleted"] if ids else []
    _show_deleted(done, as_json=as_json)


def _show_deleted(done: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        display.as_json(done)
        return
    for one in done:
        click.echo(f"deleted {_full_name(one)} (id {one['id']})")


def _id(server: Server, job: str, project: str | None) -> str:
    """The number of the job that is meant. Raises UsageError, CommandError."""
    if _ID.fullmatch(job):
        return job
    if not project:
        raise click.UsageError(f"Say with -p in which project '{job}' is.")
    name = job.rpartition("/")[2]
    found = [one for one in _listed(server, project, search=name) if _full_name(one) == job]
    if len(found) != 1:
        several = f"{len(found)} jobs are" if found else "No job is"
        raise CommandError(f"{several} called '{job}' in '{project}'.", REFUSED)
    return str(found[0]["id"])


def _path(job: str) -> str:
    return f"/jobs/{quote(job, safe='')}"
