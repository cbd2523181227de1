# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck techniques`: which there are, and the files that come with them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from quarterdeck.cli import connection, display
from quarterdeck.cli.display import json_option, plain


@click.group()
def techniques() -> None:
    """What directives are made of."""


@techniques.command("list")
@json_option
def list_techniques(as_json: bool) -> None:
    """List techniques."""
    found = connection.rudder(connection.current(), "GET", "/techniques")["techniques"]
    if as_json:
        display.as_json(found)
        return
    rows = ((plain(one["id"]), one["version"], plain(one["name"]), one["source"]) for one in found)
    display.table(("ID", "VERSION", "NAME", "SOURCE"), rows, empty="There is no technique.")


@techniques.group()
def resources() -> None:
    """Files that come with a technique: its methods say ${resources_dir}/PATH."""


def _one(command: Any) -> Any:
    """Add the arguments that name a technique."""
    return click.argument("technique")(click.argument("version")(command))


@resources.command("list")
@_one
@json_option
def list_resources(technique: str, version: str, as_json: bool) -> None:
    """List the files of a technique."""
    found = connection.native(connection.current(), "GET", _place(technique, version))
    if as_json:
        display.as_json(found)
        return
    rows = ((plain(one["path"]), str(one["size"]), one["sha256"]) for one in found)
    display.table(("PATH", "BYTES", "SHA-256"), rows, empty="The technique has no resource.")


@resources.command("put")
@_one
@click.argument("path")
@click.argument("file", type=click.File("rb"))
@json_option
def put_resource(technique: str, version: str, path: str, file: Any, as_json: bool) -> None:
    """Keep FILE (- is the input) as the file PATH of a technique, new or changed."""
    server, place = connection.current(), _place(technique, version, path)
    kept = connection.native(server, "PUT", place, content=file.read())
    if as_json:
        display.as_json(kept)
    else:
        click.echo(f"The resource '{plain(path)}' is kept: {kept['size']} bytes, SHA-256 {kept['sha256']}")


@resources.command("get")
@_one
@click.argument("path")
@click.option("--output", type=click.Path(dir_okay=False), help="Write it to this file. [standard output]")
@json_option
def get_resource(technique: str, version: str, path: str, output: str | None, as_json: bool) -> None:
    """Write the file PATH of a technique."""
    if as_json and output is None:
        raise click.UsageError("With --json the content needs a file: name one with --output.")
    content = connection.native_bytes(connection.current(), "GET", _place(technique, version, path))
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise click.FileError(output, error.strerror) from error
    if as_json:
        display.as_json({"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})


@resources.command("delete")
@_one
@click.argument("path")
@json_option
def delete_resource(technique: str, version: str, path: str, as_json: bool) -> None:
    """Forget the file PATH of a technique."""
    gone = connection.native(connection.current(), "DELETE", _place(technique, version, path))
    if as_json:
        display.as_json(gone)
    else:
        click.echo(f"The resource '{plain(path)}' is deleted.")


def _place(technique: str, version: str, path: str | None = None) -> str:
    place = f"/techniques/{quote(technique, safe='')}/{quote(version, safe='')}/resources"
    # With its slashes escaped, so that nothing on the way takes `..` for a step.
    return place if path is None else f"{place}/{quote(path, safe='')}"
